"""One cycle of the trainer: archive, fit, judge, fit again on everything, publish.

``train_once`` is ``rheos train``. As a program (``python -m trainer.cycle``) it reads an Order as
JSON from stdin and writes the outcome as JSON to stdout: so the worker runs it, which archives
itself, and a fit that crashes, hangs or fills the memory does not take the archiving with it.
"""

import fcntl
import logging
import os
import shutil
import signal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, Literal

import msgspec

from rheos.generation import Generation
from rheos.settings import Settings
from rheos.snapshot import SnapshotError
from rheos.snapshot_store import LocalStore, SnapshotStore
from trainer import gate
from trainer.archive import Archive, ArchiveError
from trainer.archiver import Archiver
from trainer.blending import learning as blending
from trainer.catalogue import READERS, with_catalogue
from trainer.data_set import DataSet, load
from trainer.evaluation import report, report_page
from trainer.fitting import FitError, make, with_item_weights
from trainer.fitting import fit as fit_alone
from trainer.gate import Drift, Verdict
from trainer.models import item_weigher_of_settings, model_of_settings
from trainer.models.model import Fitted, Model, Progress, Run, silent
from trainer.publish import Decisions, ServingChangedError, publish
from trainer.schedule import Why
from trainer.warm_start import WarmStarts

__all__ = ["ArchiveError", "Outcome", "TrainerBusyError", "train_once"]

log = logging.getLogger(__name__)


class TrainerBusyError(RuntimeError):
    """Another process runs a cycle on the same data folder."""


class Outcome(msgspec.Struct, frozen=True, kw_only=True):
    """How a cycle ended. ``generation`` is the promoted one's name, or empty.

    ``candidate_ndcg``, ``against_ndcg`` and the candidate's ``metrics`` (as in a manifest) are the
    gate's, where it came to that; ``drift`` where the cycle began with a look for it.
    """

    kind: Literal["promoted", "refused", "failed", "waiting"]
    reason: str
    model: str = ""
    generation: str = ""
    interactions: int = 0
    candidate_ndcg: float | None = None
    against_ndcg: float | None = None
    metrics: dict[str, float] = {}
    drift: Drift | None = None
    seconds: float = 0.0


class Order(msgspec.Struct, frozen=True, kw_only=True):
    """What the worker's child is asked: a cycle on what is archived of the topic with this id.

    ``why`` it is due: for "drift" it goes on only if there is some.
    """

    settings: Settings
    topic_id: str
    why: Why = "time"


Fit = Callable[[Model, DataSet, Run], Fitted]
"""Fits and checks a model; raises FitError. ``trainer.together`` has one over several processes."""


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
    aside. 5. With what passes, a blend is learned on that too, which has a gate of its own. 6. The
    model is fitted again on everything. 7. The result is published with a report, and what its fit
    kept stays for the next. Whatever happens before 7 leaves the serving generation alone; where a
    fit fails or does not pass, the next starts anew. ``only_if_drifted``: it ends after 2 unless
    the serving generation does worse on what came since than it did at its gate.

    Raises TrainerBusyError (not with ``wait``), SettingsError (no such model or parameter),
    ArchiveError, KafkaError, OSError; a bad fit is an outcome.
    """
    began = time.monotonic()
    model = model_of_settings(settings)
    blending.check(settings)
    with _cycle_lock(Path(settings.data_dir), wait):
        warm = WarmStarts(Path(settings.data_dir) / "warm")
        archive.compact()
        data = load(archive, settings.event_rules(), settings.trainer.max_interactions)  # 1
        if READERS & model.can or settings.trainer.blend != "none":
            data = with_catalogue(data, settings)
        progress("data set", 1, 1)
        try:
            outcome = _learn(settings, model, data, warm, progress, fit, only_if_drifted)
        except (FitError, SnapshotError) as error:
            log.error("the fit failed, the serving generation stays: %s", error, exc_info=error)
            outcome = Outcome(kind="failed", reason=str(error))
        if outcome.kind in ("failed", "refused"):
            warm.drop(model.name)  # a bad beginning must not spoil the next fit too
    return msgspec.structs.replace(
        outcome,
        model=model.name,
        interactions=len(data),
        seconds=round(time.monotonic() - began, 3),
    )


def _learn(
    settings: Settings,
    model: Model,
    data: DataSet,
    warm: WarmStarts,
    progress: Progress,
    fit: Fit,
    only_if_drifted: bool,
) -> Outcome:
    trainer = settings.trainer
    weigher = item_weigher_of_settings(settings)
    if len(data) < trainer.min_events:
        text = f"{len(data)} interactions, {trainer.min_events} are needed (trainer.min_events)"
        return Outcome(kind="waiting", reason=text)
    store = LocalStore(settings.store_dir)
    decisions = Decisions(settings, store)
    serving = _serving(decisions, store)
    trial = gate.plan(data, serving.manifest if serving else None, settings)  # 2
    if trial.reason:
        return Outcome(kind="waiting", reason=trial.reason)
    drift = None
    if only_if_drifted and serving is not None:
        drift = gate.drift(serving, data, trial, settings)
        if drift is None or not drift.has_fallen:
            return Outcome(kind="waiting", reason=_told(drift), drift=drift)
    number = decisions.next_number()
    threads = trainer.threads or len(os.sched_getaffinity(0))
    start = None
    if serving is not None and trainer.warm_start and "warm_start" in model.can:
        start = warm.read(model, serving.name)

    def run(stage: str) -> Run:
        def told(_: str, done: int, total: int) -> None:
            progress(stage, done, total)

        return Run(trainer.seed, threads, told, trainer.device, start)

    earlier = data.where(trial.train)
    fitted = fit(model, earlier, run("fit"))  # 3
    fitted = with_item_weights(fitted, weigher, earlier, run("item weights"))
    with _candidates(Path(settings.data_dir)) as candidates:
        name = candidates.put(*make(number, model, fitted, earlier, {}))
        candidate = Generation(candidates.get(name))
    curve = fitted.curve
    verdict = gate.judge(candidate, serving, data, trial, settings)  # 4
    progress("gate", 1, 1)
    metrics = _metrics(verdict)
    judged = Outcome(
        kind="refused",
        reason=verdict.reason,
        candidate_ndcg=_finite(verdict.candidate.ndcg),
        against_ndcg=_finite(verdict.against),
        metrics=metrics,
        drift=drift,
    )
    if not verdict.passed:
        return judged
    learned = blending.learn_for(settings, candidate, serving, data, trial.train, run("blend"))  # 5
    metrics |= learned.metrics()
    if learned.reason:
        log.info("%s", learned.reason)
    fitted = fit(model, data, run("refit"))  # 6
    fitted = with_item_weights(fitted, weigher, data, run("item weights"))
    began_with = serving.name if serving is not None and start is not None else ""
    made = make(number, model, fitted, data, metrics, start=began_with)
    if learned.blend is not None:
        made = blending.attach(made, learned.blend)
    told = report.make(
        made.manifest,
        candidate,
        serving,
        data,
        trial,
        verdict,
        settings,
        curve=curve,
        logits="probabilities" in model.can,
    )
    made = made._replace(files=report_page.files(told))
    try:
        announcement = publish(settings, store, made, verdict.reason, decisions.serving)  # 7
    except ServingChangedError as changed:
        return msgspec.structs.replace(judged, reason=str(changed))
    try:
        warm.keep(model, announcement.generation, data, fitted)
    except OSError as error:
        log.warning("nothing is kept of this fit, the next one starts anew: %s", error)
    progress("publish", 1, 1)
    return msgspec.structs.replace(judged, kind="promoted", generation=announcement.generation)


def _told(drift: Drift | None) -> str:
    if drift is None:
        return "no drift can be seen: the serving generation has no figure of a gate"
    return f"no drift: NDCG@{gate.K} {drift.now:.4f} on the newest events, {drift.at_gate:.4f} then"


def _serving(decisions: Decisions, store: SnapshotStore) -> Generation | None:
    """The serving generation, or None: there is none yet, or its snapshot is broken or gone."""
    if not decisions.serving:
        return None
    try:
        return Generation(store.get(decisions.serving))
    except SnapshotError as error:
        log.error("the serving generation cannot be read, nothing is compared with it: %s", error)
        return None


def _metrics(verdict: Verdict) -> dict[str, float]:
    """The candidate's accuracy on the gate's events, as manifests have it; empty if not finite."""
    found = verdict.candidate
    if _finite(found.ndcg) is None:
        return {}
    named = {"hr": found.hit_rate, "recall": found.recall, "mrr": found.mrr, "ndcg": found.ndcg}
    metrics = {f"gate_{name}@{gate.K}": value for name, value in named.items()}
    metrics["gate_queries"] = found.cases
    if verdict.difference is not None:
        metrics[f"gate_against_ndcg@{gate.K}"] = verdict.against
        metrics |= {f"gate_{name}": value for name, value in verdict.difference.told().items()}
    return metrics


def _finite(number: float) -> float | None:
    return number if abs(number) < float("inf") else None  # NaN compares with nothing


@contextmanager
def _candidates(data_dir: Path) -> Iterator[LocalStore]:
    """A store for a candidate, on the same disk, gone afterwards."""
    directory = data_dir / "candidates"
    shutil.rmtree(directory, ignore_errors=True)  # a killed cycle's
    try:
        yield LocalStore(directory)
    finally:
        shutil.rmtree(directory, ignore_errors=True)


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
