"""``python -m rheos.local_kafka ORDER``: what ``launch_command`` makes; becomes the broker."""

import json
import os
import sys
from pathlib import Path

from rheos.local_kafka.launch import crashed, settle


def main() -> None:
    log_dir, settling, controller, broker = json.loads(sys.argv[1])
    if crashed(Path(log_dir)):
        settle(controller, Path(log_dir), Path(settling))
    os.execv(broker[0], broker)


if __name__ == "__main__":
    main()
