"""Errors that a person can act on, in one line each."""

import sys

FAILED = 1
WRONG_USAGE = 2

OURS = ("rheos", "stream", "indexer", "trainer")

_EXPECTED = {
    ("rheos.settings", "SettingsError"): WRONG_USAGE,
    ("rheos.client", "ApiError"): FAILED,
    ("rheos.row_file", "RowFileError"): FAILED,
    ("rheos.snapshot", "SnapshotError"): FAILED,
    ("rheos.local_kafka.error", "LocalKafkaError"): FAILED,
    ("rheos.supervisor.folder_lock", "FolderBusyError"): FAILED,
    ("stream.committed_log", "CommittedLogError"): FAILED,
    ("stream.source_writer", "SourceError"): FAILED,
    ("trainer.archive", "ArchiveError"): FAILED,
    ("trainer.fitting", "FitError"): FAILED,
    ("trainer.evaluation.served", "NotFiniteError"): FAILED,
}
"""Exceptions whose text is written for a person, and the exit status of each."""


class CommandError(Exception):
    """A command failed in an expected way; the text names cause and fix."""

    def __init__(self, text: str, status: int = FAILED) -> None:
        super().__init__(text)
        self.status = status


def explained(error: Exception) -> tuple[str | None, int]:
    """The line for a person and the exit status; no line for an error that is ours to repair.

    Looks only at modules that are loaded: whose module is not, was not raised.
    """
    for (module, name), status in _EXPECTED.items():
        if _is(error, module, name):
            return str(error), status
    if _is(error, "kafka.errors", "KafkaError"):
        return f"Kafka: {_first_line(error)}", FAILED
    if isinstance(error, ModuleNotFoundError) and (error.name or "").split(".")[0] not in OURS:
        return (
            f"{error.name} is not installed here: pip install 'rheos[all]', or the part of one"
            " worker (rheos doctor names them)",
            FAILED,
        )
    if isinstance(error, OSError):
        return _first_line(error), FAILED
    return None, FAILED


def _is(error: Exception, module: str, name: str) -> bool:
    loaded = sys.modules.get(module)
    return loaded is not None and isinstance(error, getattr(loaded, name))


def _first_line(error: Exception) -> str:
    return (str(error) or type(error).__name__).splitlines()[0]
