"""The reports of candidates that were not let through: why, with all figures, for people.

    <data_dir>/refused/<generation>/report.json, report.html

What serves never looks there, and nothing there can serve: the candidates themselves are gone.
"""

import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path

from rheos.durable import remove_leftovers
from rheos.settings import Settings
from rheos.snapshot import is_name

KEPT = 20
"""The newest so many stay, some 100 kB each."""
_WRITING = ".writing-"


class RefusedReports:
    """One folder a candidate below ``directory``. For one process at a time (the cycle's lock)."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory

    def keep(self, name: str, files: Mapping[str, bytes]) -> Path:
        """Writes a candidate's report, wholly or not at all, and deletes all but the newest KEPT.

        Gives back its folder. Raises OSError.
        """
        self._directory.mkdir(parents=True, exist_ok=True)
        remove_leftovers(self._directory, _WRITING)
        temporary = Path(tempfile.mkdtemp(prefix=_WRITING, dir=self._directory))
        try:
            for file, data in files.items():
                (temporary / file).write_bytes(data)
            temporary.chmod(0o755)
            folder = temporary.rename(self._directory / name)
        except BaseException:
            shutil.rmtree(temporary, ignore_errors=True)
            raise
        for old in self.names()[:-KEPT]:
            shutil.rmtree(self._directory / old)
        return folder

    def names(self) -> list[str]:
        """The candidates that have a report here, the newest last."""
        if not self._directory.is_dir():
            return []
        found = [path for path in self._directory.iterdir() if is_name(path.name)]
        return [path.name for path in sorted(found, key=lambda path: path.stat().st_mtime_ns)]

    def path(self, name: str) -> Path:
        """The folder of a candidate's report."""
        return self._directory / name


def of(settings: Settings) -> RefusedReports:
    return RefusedReports(Path(settings.data_dir) / "refused")
