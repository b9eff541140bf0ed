"""Starts the broker; after a crash, lets its controller notice the crash first.

A broker that comes back after SIGKILL finds itself in its own old metadata as a living leader and
resumes the transactions that it was about to finish, before it listens to anyone. Then its
controller fences that earlier incarnation, no partition has a leader for a moment, and Kafka (seen
on 4.4.0) takes a marker that it cannot deliver for one that is not needed any more: an
acknowledged transaction stays open for ever, and readers of committed records stop in front of it.

So, when the last end was no orderly one, the controller runs alone for two or three seconds, until
it has written that it fenced the earlier incarnation. The broker that starts then begins without
any partition.
"""

import json
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from rheos.supervisor.tether import tethered

FENCED = re.compile(rb"\x01\x11.\x00\x00\x00\x01.{8}\x01\x00\x01\x01", re.DOTALL)
"""A BrokerRegistrationChangeRecord as the metadata log has it, after all that the fencing changes:
frame 1, type 17, a version; broker 1; its epoch; one tagged field, number 0 (`fenced`): one byte, 1
(-1 ends a fencing). The line that tells of it comes earlier, by seconds on a busy machine."""
START_S = 300.0
"""A controller that wrote nothing for so long does not come up."""
PATIENCE_S = 15.0
"""One that is up and fences nothing for so long has nothing to fence: it was done before."""

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


def settle(controller: Sequence[str], log_dir: Path, settling: Path) -> None:
    """Runs the controller until it has fenced the broker that crashed. Blocks for START_S and
    PATIENCE_S at most; what it decided is in the metadata log then, so it is ended at once."""
    shutil.rmtree(settling, ignore_errors=True)
    settling.mkdir(parents=True)
    before = _sizes(log_dir)
    process = subprocess.Popen(tethered(controller), stdin=subprocess.DEVNULL)
    try:
        is_up, deadline = False, time.monotonic() + START_S
        while time.monotonic() < deadline and process.poll() is None:
            if not is_up and _sizes(log_dir) != before:
                is_up, deadline = True, time.monotonic() + PATIENCE_S
            if is_up and FENCED.search(_written(log_dir, before)):
                time.sleep(0.2)  # the rest of its batch is in the same write
                return
            time.sleep(0.1)
    finally:
        process.kill()
        process.wait()


def _sizes(log_dir: Path) -> dict[Path, int]:
    return {path: path.stat().st_size for path in log_dir.glob(METADATA)}


def _written(log_dir: Path, before: Mapping[Path, int]) -> bytes:
    """What the metadata log has beyond the sizes that its files had before."""
    parts = []
    for path in sorted(log_dir.glob(METADATA)):
        with path.open("rb") as file:
            file.seek(before.get(path, 0))
            parts.append(file.read())
    return b"".join(parts)
