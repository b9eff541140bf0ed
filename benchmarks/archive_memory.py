"""What loading a data set costs: peak memory and CPU seconds by the number of interactions.

An archive is written for each size (a tenth as many users, 100,000 items by Zipf's law); a fresh
process loads it. Its peak has a fixed part (Arrow, a row group's buffers) and grows with each
interaction, ids included: by the difference of the largest size and the smallest. The last load is
of the newest fifth of the largest archive (trainer.max_interactions).
"""

import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

if __package__ in (None, ""):
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import numpy as np

from benchmarks.report import arguments, finish, note
from rheos.settings import Settings
from trainer.archive import SCHEMA, Archive
from trainer.data_set import load

ITEMS = 100_000
FILE_ROWS = 500_000
PARTITIONS = 2
MOST_BYTES = 130
"""The claim: what docs/operations.md reckons with."""

_LOAD = "from benchmarks.archive_memory import measure; measure()"


def main() -> int:
    asked = arguments(
        __doc__,
        ("--sizes", {"type": int, "nargs": "+", "default": [1_000_000, 5_000_000]}),
    )
    told = []
    with tempfile.TemporaryDirectory(prefix="rheos-archive-") as name:
        for size in asked.sizes:
            folder = Path(name) / str(size)
            note(f"writing {size:,} interactions")
            _write(folder, size)
            told.append(_load(folder, size, 0))
        told.append(_load(folder, size, size // 5))
    small, large = told[0], told[-2]
    grown = (large["peak_mb"] - small["peak_mb"]) * 1e6
    each = grown / (large["interactions"] - small["interactions"])
    claims = {f"each interaction takes at most {MOST_BYTES} bytes": each <= MOST_BYTES}
    outcome = {"loads": told, "bytes_per_interaction": round(each, 1)}
    return finish("archive_memory", outcome, claims, as_json=asked.json)


def _write(folder: Path, size: int) -> None:
    """An archive of ``size`` records, in files of FILE_ROWS."""
    random = np.random.default_rng(0)
    archive = Archive(folder, "topic")
    for partition in range(PARTITIONS):
        count = size // PARTITIONS
        for start in range(0, count, FILE_ROWS):
            rows = min(FILE_ROWS, count - start)
            users = random.integers(0, max(1, size // 10 // PARTITIONS), rows)
            items = np.minimum(random.zipf(1.2, rows), ITEMS)
            offsets = np.arange(start, start + rows)
            columns: dict[str, Any] = {column: [None] * rows for column in SCHEMA.names}
            columns |= {
                "offset": offsets,
                "append_time_ms": 1_700_000_000_000 + 10 * offsets,
                "event_hash": random.integers(0, 1 << 63, rows).astype(np.uint64),
                "user_id": [f"user-{partition}-{user:08d}" for user in users],
                "item_id": [f"item-{item:08d}" for item in items],
                "type": ["purchase"] * rows,
                "time_ms": 1_700_000_000_000 + 10 * offsets,
                "value": np.ones(rows),
            }
            archive.commit(partition, start, start + rows, columns)


def _load(folder: Path, size: int, most: int) -> dict[str, Any]:
    """What a fresh process says of loading (``measure``)."""
    note(f"loading {size:,}" + (f", the newest {most:,}" if most else ""))
    done = subprocess.run(
        [sys.executable, "-c", _LOAD, str(folder), str(most)],
        check=True,
        capture_output=True,
        cwd=Path(__file__).parents[1],
    )
    answer: dict[str, Any] = json.loads(done.stdout)
    return {"archived": size, "most": most, **answer}


def measure() -> None:
    """In the process of its own: loads and prints what that took, as JSON."""
    folder, most = Path(sys.argv[1]), int(sys.argv[2])
    before = _peak_bytes()
    cpu, wall = time.process_time(), time.perf_counter()
    data = load(Archive(folder, "topic"), Settings().event_rules(), most)
    grown = _peak_bytes() - before
    told = {
        "interactions": len(data),
        "users": len(data.user_ids),
        "items": len(data.item_ids),
        "peak_mb": round(grown / 1e6, 1),
        "cpu_seconds": round(time.process_time() - cpu, 2),
        "seconds": round(time.perf_counter() - wall, 2),
    }
    print(json.dumps(told))


def _peak_bytes() -> int:
    """The most resident memory so far; ru_maxrss would begin with the parent's."""
    status = Path("/proc/self/status").read_text(encoding="ascii")
    return int(status.partition("VmHWM:")[2].split()[0]) * 1024


if __name__ == "__main__":
    sys.exit(main())
