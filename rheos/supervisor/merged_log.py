"""One log of many processes, and a file for each."""

import io
import os
from collections.abc import Sequence
from pathlib import Path
from typing import BinaryIO, TextIO

FILE_LIMIT_BYTES = 10 << 20  # then NAME.log becomes NAME.log.1, whose predecessor goes
COLOURS = (36, 32, 33, 35, 34, 96, 92, 93, 95, 94)  # ANSI foregrounds, told apart on dark and light


class MergedLog:
    """Prefixed lines of all sources on `out`, coloured on a terminal; the lines alone in
    ``folder/NAME.log``.

    When `out` goes away (a closed pipe, a lost terminal) the files go on. Blocks as `out` blocks.
    """

    def __init__(self, folder: Path, out: TextIO, names: Sequence[str]) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        if isinstance(out, io.TextIOWrapper):
            out.reconfigure(errors="replace")  # a child's odd byte must not end its supervisor
        self._out: TextIO | None = out
        self._paths = {name: folder / f"{name}.log" for name in names}
        self._files: dict[str, BinaryIO] = {
            name: path.open("ab") for name, path in self._paths.items()
        }
        colour = out.isatty() and not os.environ.get("NO_COLOR")
        width = max(map(len, names))
        self._prefixes = {
            name: f"\x1b[{COLOURS[i % len(COLOURS)]}m{name:{width}} |\x1b[0m "
            if colour
            else f"{name:{width}} | "
            for i, name in enumerate(names)
        }

    def write(self, name: str, line: bytes) -> None:
        """Log one line, given without its end."""
        line = line.rstrip(b"\r").rpartition(b"\r")[2]  # what a progress bar would show at last
        file = self._files[name]
        file.write(line + b"\n")
        file.flush()
        if file.tell() > FILE_LIMIT_BYTES:
            file.close()
            path = self._paths[name]
            path.replace(path.with_name(f"{path.name}.1"))
            self._files[name] = path.open("ab")
        if self._out is not None:
            try:
                self._out.write(f"{self._prefixes[name]}{line.decode('utf-8', 'replace')}\n")
                self._out.flush()
            except OSError:
                self._out = None

    def close(self) -> None:
        """Close the files; `out` belongs to the caller."""
        for file in self._files.values():
            file.close()
