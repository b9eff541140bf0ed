"""One cycle of the trainer: archive, fit, judge, fit again on everything, publish.

``train_once`` is ``rheos train``. As a program (``python -m trainer.cycle``) it reads an Order as
JSON from stdin and writes the outcome as JSON to stdout: so the worker runs it, which archives
itself, and a fit that crashes, hangs or fills the memory does not take the archiving with it.
"""

import fcntl
import logging
import os
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

import msgspec

from rheos import fit_progress
from rheos.settings import Settings
from rheos.snapshot import SnapshotError
from trainer.archive import Archive, ArchiveError
from trainer.archiver import Archiver
from trainer.attempt import Attempt, Outcome
from trainer.blending import learning as blending
from trainer.catalogue import READERS, with_catalogue
from trainer.data_set import DataSet, load
from trainer.fitting import Fit, FitError
from trainer.fitting import fit as fit_alone
from trainer.models import item_weigher_of_settings, model_of_settings
from trainer.models.model import Progress, silent
from trainer.publish import NotAnnouncedError
from trainer.schedule import Why
from trainer.warm_start import WarmStarts

__all__ = ["ArchiveError", "Outcome", "TrainerBusyError", "train_once"]

log = logging.getLogger(__name__)


class TrainerBusyError(RuntimeError):
    """Another process runs a cycle on the same data folder."""


class Order(msgspec.Struct, frozen=True, kw_only=True):
    """What the worker's child is asked: a cycle on what is archived of the topic with this id.

    ``why`` it is due: for "drift" it goes on only if there is some.
    """

    settings: Settings
    topic_id: str
    why: Why = "time"


def train_once(settings: Settings, progress: Progress = silent, fit: Fit = fit_alone) -> Outcome:
    """Archives all events so far and runs one cycle on them. Blocks: seconds to hours.

    Raises what ``run_cycle`` raises, and KafkaError.
    """
    model_of_settings(settings)  # a wrong name or parameter shows before the long work
    blending.check(settings)
    item_weigher_of_settings(settings)
    with Archiver(settings) as archiver:
        archiver.catch_up(lambda done, total: progress("archive", done, total))
    return run_cycle(settings, archiver.archive, progress, fit)


def run_cycle(
    settings: Settings,
    archive: Archive,
    progress: Progress = silent,
    fit: Fit = fit_alone,
    *,
    only_if_drifted: bool = False,
    wait: bool = False,
) -> Outcome:
    """Runs one cycle on what is archived; ``wait``: after one that runs on the same data folder.

    1. The archive becomes a data set, with the catalogue where it is read. 2. The newest
    events are set aside. 3. The model is fitted on the rest, beginning where the serving
    generation's fit ended. 4. The gate compares it with the serving generation on what was set
    aside. 5. With what passes, a blend is learned on that too, which has a gate of its own; and the
    gate asks again, of both as they are served, each with its blend. 6. The model is fitted again
    on everything. 7. The result is published with a report, and what its fit kept stays for the
    next. Whatever happens before 7 leaves the serving generation alone; where a fit fails or does
    not pass, the next starts anew. A candidate that does not pass leaves a report too.
    ``only_if_drifted``: it ends after 2 unless the serving generation, its model alone or as it is
    served, does worse on what came since than it did at its gate.

    Raises TrainerBusyError (not with ``wait``), SettingsError (no such model or parameter),
    ArchiveError, KafkaError, OSError. A bad fit is an outcome; a blend, a report or anything else
    that a generation can do without fails as one of the outcome's ``troubles``.
    """
    began = time.monotonic()
    model = model_of_settings(settings)
    blending.check(settings)
    with (
        _cycle_lock(Path(settings.data_dir), wait),
        fit_progress.told(settings.store_dir, model.name, progress) as told,
    ):
        warm = WarmStarts(Path(settings.data_dir) / "warm")
        archive.compact()
        data = load(archive, settings.event_rules(), settings.trainer.max_interactions)  # 1
        if READERS & model.can or settings.trainer.blend != "none":
            data = with_catalogue(data, settings)
        told("data set", 1, 1)
        try:
            attempt = Attempt(settings, model, data, warm, told, fit)
            outcome = _too_few(settings, data) or attempt.run(only_if_drifted)
        except (FitError, SnapshotError, NotAnnouncedError) as error:
            log.error("the cycle failed, the serving generation stays: %s", error, exc_info=error)
            outcome = Outcome(kind="failed", reason=str(error))
        if outcome.kind in ("failed", "refused"):
            warm.drop(model.name)  # a bad beginning must not spoil the next fit too
    return msgspec.structs.replace(
        outcome,
        model=model.name,
        interactions=len(data),
        seconds=round(time.monotonic() - began, 3),
    )


def _too_few(settings: Settings, data: DataSet) -> Outcome | None:
    least = settings.trainer.min_events
    if len(data) >= least:
        return None
    text = f"{len(data)} interactions, {least} are needed (trainer.min_events)"
    return Outcome(kind="waiting", reason=text)


@contextmanager
def _cycle_lock(data_dir: Path, wait: bool) -> Iterator[None]:
    """One cycle at a time on a data folder; the kernel frees the lock of a process that dies."""
    data_dir.mkdir(parents=True, exist_ok=True)
    with (data_dir / "trainer.lock").open("a+") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except BlockingIOError:
            file.seek(0)
            raise TrainerBusyError(
                f"process {file.read().strip() or 'unknown'} is fitting on {data_dir}; try later"
            ) from None
        file.truncate(0)
        file.write(str(os.getpid()))
        file.flush()
        yield


def main() -> int:
    """The worker's child: an Order from stdin, the Outcome to stdout, the log to stderr."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the worker's; it ends this process
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    logging.getLogger("kafka").setLevel(logging.ERROR)
    with stdout_for_the_answer() as answer:
        order = msgspec.json.decode(sys.stdin.buffer.read(), type=Order)
        settings = order.settings
        outcome = run_cycle(
            settings,
            Archive(settings.archive_dir, order.topic_id),
            only_if_drifted=order.why == "drift",
            wait=True,
        )
        answer.write(msgspec.json.encode(outcome))
    return 0


@contextmanager
def stdout_for_the_answer() -> Iterator[BinaryIO]:
    """The real stdout; whatever is printed meanwhile, by C libraries too, goes to stderr."""
    sys.stdout.flush()
    answer = os.fdopen(os.dup(1), "wb")
    try:
        os.dup2(2, 1)
        yield answer
        answer.flush()
    finally:
        sys.stdout.flush()
        os.dup2(answer.fileno(), 1)
        answer.close()


if __name__ == "__main__":
    sys.exit(main())
