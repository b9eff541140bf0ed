"""A stream worker that also tells where its processor time goes: ``stream_speed.py`` starts it.

    RHEOS_CONFIG=FILE python -m benchmarks.timed_worker OUT.json

Some functions, each called once a chunk or a commit, are wrapped by timers of their thread's CPU
time (0.3 us a call). SIGUSR1 sets them to 0; SIGUSR2 writes OUT.json: seconds by name, less what is
told under another name, and the CPU seconds of whole threads by name.
"""

import functools
import importlib
import json
import os
import signal
import sys
import threading
import time
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

TIMED = {
    "users: fold": ("stream.users", "UserFold.fold"),
    "users: encode vectors": ("stream.users", "_states"),
    "users: pack transitions": ("stream.transitions", "TransitionPacker.pack"),
    "items: fold": ("stream.items", "ItemFold.fold"),
    "both: encode states": ("stream.partition", "_Encoded.__init__"),
    "both: produce": ("stream.partition", "Partition._send"),
    "both: flush, commit": ("stream.partition", "Partition._finish"),
    "both: keep": ("stream.partition", "Partition._keep"),
    "both: the runner's rest": ("stream.runner", "Runner._commit"),
}


class Timers:
    """CPU seconds by name, exclusive: a timer inside another stops the outer one."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = defaultdict(float)
        self._local = threading.local()
        self._lock = threading.Lock()

    def wrap(self, name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(function)
        def timed(*args: Any, **kwargs: Any) -> Any:
            stack = self._local.__dict__.setdefault("stack", [])
            began, inner = time.thread_time(), [0.0]
            stack.append(inner)
            try:
                return function(*args, **kwargs)
            finally:
                took = time.thread_time() - began
                stack.pop()
                if stack:
                    stack[-1][0] += took
                with self._lock:
                    self.seconds[name] += took - inner[0]

        return timed


def _install(timers: Timers) -> None:
    for name, (module, path) in TIMED.items():
        owner: Any = importlib.import_module(module)
        *outer, last = path.split(".")
        for part in outer:
            owner = getattr(owner, part)
        setattr(owner, last, timers.wrap(name, getattr(owner, last)))


def threads() -> dict[str, float]:
    """CPU seconds of this process's threads by name; Python's are all of one name to the kernel."""
    python = {thread.native_id: thread.name for thread in threading.enumerate()}
    ticks = os.sysconf("SC_CLK_TCK")
    out: dict[str, float] = defaultdict(float)
    for task in Path("/proc/self/task").iterdir():
        head, _, tail = (task / "stat").read_text().rpartition(")")
        fields = tail.split()
        name = python.get(int(task.name)) or head.partition("(")[2]
        out[name] += (int(fields[11]) + int(fields[12])) / ticks
    return dict(out)


def main(out: Path) -> int:
    timers = Timers()
    _install(timers)
    before: dict[str, float] = {}

    def begin(*_: object) -> None:
        timers.seconds.clear()
        before.update(threads())

    def tell(*_: object) -> None:
        spent = {name: seconds - before.get(name, 0.0) for name, seconds in threads().items()}
        told = json.dumps({"timers": timers.seconds, "threads": spent})
        partial = out.with_suffix(".partial")
        partial.write_text(told, "utf-8")
        partial.rename(out)

    signal.signal(signal.SIGUSR1, begin)
    signal.signal(signal.SIGUSR2, tell)
    settings = importlib.import_module("rheos.settings").load()
    return int(importlib.import_module("stream.worker").run(settings))


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
