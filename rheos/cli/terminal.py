"""The supervisor's output, with a progress bar that stays below the log's lines."""

import io
import re
import shutil
import sys
from typing import TextIO

BAR_EDGE = "▕"
"""Leads a line of progress, and nothing else that a child writes."""

_BAR_CELLS = 24
_COLOURS = re.compile(r"\x1b\[[0-9;]*m")
_ERASE = "\r\x1b[K"


def bar(share: float, text: str) -> str:
    """A line of progress: ``share`` of it done, 0 to 1."""
    done = round(min(max(share, 0.0), 1.0) * _BAR_CELLS)
    return f"{BAR_EDGE}{'█' * done}{'░' * (_BAR_CELLS - done)}▏{share:4.0%}  {text}"


class Terminal(io.TextIOBase):
    """Whole lines to ``out`` (default: stdout). On a terminal a line of progress is rewritten in
    place below the others; elsewhere it is a line like any other."""

    def __init__(self, out: TextIO | None = None) -> None:
        self._out = out or sys.stdout
        if isinstance(self._out, io.TextIOWrapper):
            self._out.reconfigure(errors="replace")
        self._in_place = self._out.isatty()
        self._bar = ""

    def isatty(self) -> bool:
        return self._in_place

    def write(self, text: str) -> int:
        if not self._in_place:
            return self._out.write(text)
        if BAR_EDGE in text:
            self._bar = _cut(text.rstrip("\n"))
            self._out.write(_ERASE + self._bar)
        elif self._bar:
            self._out.write(_ERASE + text + self._bar)
        else:
            self._out.write(text)
        return len(text)

    def flush(self) -> None:
        self._out.flush()


def _cut(line: str) -> str:
    """As much as fits in one row of the terminal; a longer one would stay when it is rewritten."""
    invisible = sum(map(len, _COLOURS.findall(line)))
    return line[: shutil.get_terminal_size().columns - 1 + invisible]
