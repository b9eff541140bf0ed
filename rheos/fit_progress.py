"""How far a fit is: a small file beside the snapshots, where whoever serves them can read it."""

import contextlib
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec

FILE = "fitting.json"
_WRITING = ".writing-fitting"
TOLD_EVERY_S = 1.0
FORGOTTEN_S = 900.0
"""A fit that was killed leaves its file; one of which nothing was heard for so long has ended."""

Told = Callable[[str, int, int], None]


class FitProgress(msgspec.Struct, frozen=True, kw_only=True):
    """``done`` of ``total`` parts of a ``stage`` of a cycle of the trainer that began at
    ``began_ms`` and said so at ``told_ms``.
    """

    model: str
    stage: str
    done: int
    total: int
    began_ms: int
    told_ms: int


@contextlib.contextmanager
def told(directory: Path, model: str, also: Told) -> Iterator[Told]:
    """Gives what to tell of a fit: it is written to ``directory``, and passed on to ``also``.

    At most once a second, and whenever a stage begins or ends. The file goes with the fit. A disk
    that refuses it stops no fit.
    """
    began_ms = _now_ms()
    stage_of_last, last_s = "", 0.0

    def tell(stage: str, done: int, total: int) -> None:
        nonlocal stage_of_last, last_s
        also(stage, done, total)
        now_s = time.monotonic()
        if stage == stage_of_last and done < total and now_s - last_s < TOLD_EVERY_S:
            return
        stage_of_last, last_s = stage, now_s
        progress = FitProgress(
            model=model,
            stage=stage,
            done=done,
            total=total,
            began_ms=began_ms,
            told_ms=_now_ms(),
        )
        with contextlib.suppress(OSError):
            directory.mkdir(parents=True, exist_ok=True)
            # Renamed: a reader sees a whole record.
            (directory / _WRITING).write_bytes(msgspec.json.encode(progress))
            (directory / _WRITING).replace(directory / FILE)

    try:
        yield tell
    finally:
        with contextlib.suppress(OSError):
            (directory / FILE).unlink(missing_ok=True)


def read(directory: Path) -> FitProgress | None:
    """What the fit that runs last told, or None where none runs. Reads one small file."""
    try:
        found = msgspec.json.decode((directory / FILE).read_bytes(), type=FitProgress)
    except (OSError, msgspec.DecodeError, UnicodeDecodeError):
        return None
    return found if _now_ms() - found.told_ms < FORGOTTEN_S * 1000 else None


def _now_ms() -> int:
    return time.time_ns() // 1_000_000
