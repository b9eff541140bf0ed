"""Starts the broker; after a crash, lets its controller notice the crash first.

A broker that comes back after SIGKILL finds itself in its own old metadata as a living leader and
resumes the transactions that it was about to finish, before it listens to anyone. Then its
controller fences that earlier incarnation, no partition has a leader for a moment, and Kafka (seen
on 4.4.0) takes a marker that it cannot deliver for one that is not needed any more: an
acknowledged transaction stays open for ever, and readers of committed records stop in front of it.

So, when the last end was no orderly one, the controller runs alone for two or three seconds, until
it has fenced the earlier incarnation. The broker that starts then begins without any partition.
"""

import json
import shutil
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from rheos.supervisor.tether import tethered

FENCED = "Fencing broker 1 "
PATIENCE_S = 15.0
"""A controller that fences nothing for so long has nothing to fence: it was done before."""

CLEAN = ".kafka_cleanshutdown"  # kafka.log.LogManager writes it into each log folder
METADATA = "__cluster_metadata-0/*.log"  # formatting makes the folder, a controller its log


def launch_command(
    log_dir: Path, settling: Path, controller: Sequence[str], broker: Sequence[str]
) -> list[str]:
    """The command that does both: ``controller`` first if need be, logging to ``settling``."""
    order = [str(log_dir), str(settling), list(controller), list(broker)]
    return [sys.executable, "-P", "-m", "rheos.local_kafka", json.dumps(order)]


def crashed(log_dir: Path) -> bool:
    """Whether a broker ran on this folder and did not end in good order."""
    return any(log_dir.glob(METADATA)) and not (log_dir / CLEAN).exists()


def settle(controller: Sequence[str], settling: Path) -> None:
    """Runs the controller until it has fenced the broker that crashed. Blocks for PATIENCE_S at
    most; what it decided is in its log, so it is ended at once."""
    shutil.rmtree(settling, ignore_errors=True)
    settling.mkdir(parents=True)
    log = settling / "kafka.log"
    process = subprocess.Popen(tethered(controller), stdin=subprocess.DEVNULL)
    try:
        deadline = time.monotonic() + PATIENCE_S
        while time.monotonic() < deadline and process.poll() is None:
            if log.exists() and FENCED in log.read_text(errors="replace"):
                time.sleep(0.2)  # the record that says so is written behind the line that does
                return
            time.sleep(0.1)
    finally:
        process.kill()
        process.wait()
