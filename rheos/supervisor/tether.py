"""A process that ends when its parent ends, even when the parent is killed by SIGKILL.

Run as a script between fork and the real program, with the standard library only, so that no
Python code runs in a forked copy of a threaded parent:

- On Linux it asks the kernel for SIGKILL at the parent's death (prctl PR_SET_PDEATHSIG), checks
  that the parent did not die before that, and becomes the program by exec. Nothing stays between.
- Elsewhere it stays as a small watcher in the program's process group, which kills the group
  within half a second of the parent's death.

SIGKILL and not SIGTERM: after the parent nobody is left to wait out a slow stop, and whatever runs
under Rheos must survive a crash anyway.
"""

import os
import signal
import subprocess
import sys
from collections.abc import Sequence

PR_SET_PDEATHSIG = 1  # linux/prctl.h
CANNOT_START = 127  # what a shell answers for a program that it cannot start
WATCH_INTERVAL_S = 0.5


def tethered(argv: Sequence[str]) -> list[str]:
    """Return argv such that the started program dies with the process that calls this.

    On Linux the kernel looks at the *thread* that forks, not at the process: start the result from
    a thread that lives as long as the process does, which is the main thread. Where the platform
    is not Linux the result must lead a process group of its own (``start_new_session=True``).
    Descendants of the program are not tethered; they are its own affair.
    """
    # -I -S: no site packages, no PYTHON* variables; the program itself still gets them.
    return [sys.executable, "-I", "-S", __file__, str(os.getpid()), *argv]


def _become(parent: int, argv: Sequence[str]) -> None:
    import ctypes

    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "prctl(PR_SET_PDEATHSIG) failed")
    if os.getppid() != parent:  # it died before prctl, so no signal will come
        os.kill(os.getpid(), signal.SIGKILL)
    os.execvp(argv[0], list(argv))


def _watch(parent: int, argv: Sequence[str]) -> int:
    # The group's signals reach the program directly; the watcher waits to pass on its exit status.
    for stop in (signal.SIGINT, signal.SIGTERM):
        signal.signal(stop, lambda *_: None)  # a handler, unlike SIG_IGN, is not inherited by exec
    program = subprocess.Popen(argv)
    while os.getppid() == parent:
        try:
            status = program.wait(WATCH_INTERVAL_S)
        except subprocess.TimeoutExpired:
            continue
        return status if status >= 0 else 128 - status
    os.killpg(0, signal.SIGKILL)
    raise AssertionError("unreachable: the watcher is in the group that it killed")


def main(parent: int, argv: Sequence[str]) -> int:
    """Run argv tethered to the process `parent`; return its exit status if this process stays."""
    try:
        if sys.platform == "linux":
            _become(parent, argv)
        return _watch(parent, argv)
    except OSError as error:
        print(f"cannot start {argv[0]}: {error.strerror}", file=sys.stderr)
        return CANNOT_START


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1]), sys.argv[2:]))
