"""What figures and their seconds depend on."""

import time
from typing import Any


def conditions(started: float) -> dict[str, Any]:
    """Seconds since ``started`` (``time.perf_counter``), machine and versions."""
    import platform

    from rheos.snapshot import software_versions

    return {
        "seconds": round(time.perf_counter() - started, 1),
        "cpu_seconds": round(time.process_time(), 1),
        "machine": {
            "cores": cores(),
            "processor": platform.processor() or platform.machine(),
            "system": platform.platform(),
            "python": platform.python_version(),
        },
        "software": software_versions(),
    }


def cores() -> int:
    import os

    return len(os.sched_getaffinity(0))  # those that this process may use
