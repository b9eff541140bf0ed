"""One attempt at a next generation: from a data set to what serves, or to why it is not let.

The steps and their order are ``trainer.cycle.run_cycle``'s, and so are the numbers here.
"""

import logging
import os
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Literal, NamedTuple, TypeVar

import msgspec

from rheos.blend import Blend
from rheos.generation import Generation
from rheos.settings import Settings
from rheos.snapshot import Manifest, SnapshotError
from rheos.snapshot_store import LocalStore, SnapshotStore
from trainer import gate, refused
from trainer.blending import as_served
from trainer.blending import learning as blending
from trainer.blending.learning import Learned
from trainer.data_set import DataSet
from trainer.evaluation import report, report_page
from trainer.fitting import Fit, Made, make, with_item_weights
from trainer.gate import Drift, Trial, Verdict
from trainer.models import item_weigher_of_settings
from trainer.models.model import Fitted, Model, Progress, Run, Start
from trainer.publish import Decisions, ServingChangedError, publish
from trainer.warm_start import WarmStarts

log = logging.getLogger(__name__)

T = TypeVar("T")


class Outcome(msgspec.Struct, frozen=True, kw_only=True):
    """How a cycle ended. ``generation`` is the promoted one's name, or empty.

    ``candidate_ndcg``, ``against_ndcg`` and the candidate's ``metrics`` (as in a manifest) are the
    gate's, where it came to that; ``drift`` where the cycle began with a look for it, of the model
    alone, and ``drift_as_served`` where it looked on. ``report`` is the page on what was promoted
    or refused, ``troubles`` is what failed and was gone on without.
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
    drift_as_served: Drift | None = None
    report: str = ""
    troubles: list[str] = []
    seconds: float = 0.0


class _Judged(NamedTuple):
    """A candidate, fitted without the newest events and judged on them; the ``metrics`` as
    manifests have them; the ``blend`` that it is to carry.
    """

    trial: Trial
    candidate: Generation
    curve: Mapping[str, Sequence[float]]
    verdict: Verdict
    metrics: dict[str, float]
    blend: Blend | None = None


class Attempt:
    """For one call of ``run``. The fits begin with what ``warm`` has of the serving generation."""

    def __init__(
        self,
        settings: Settings,
        model: Model,
        data: DataSet,
        warm: WarmStarts,
        progress: Progress,
        fit: Fit,
    ) -> None:
        self._settings, self._model, self._data = settings, model, data
        self._warm, self._progress, self._fit = warm, progress, fit
        self._store = LocalStore(settings.store_dir)
        self._troubles: list[str] = []

    def run(self, only_if_drifted: bool) -> Outcome:
        """Raises FitError, SnapshotError, KafkaError, OSError, NotAnnouncedError."""
        self._decisions = Decisions(self._settings, self._store)
        self._serving = _serving(self._decisions, self._store)
        self._number = self._decisions.next_number()
        self._start = self._beginning()
        serving, drift, as_answered = self._serving, None, None
        trial = gate.plan(self._data, serving.manifest if serving else None, self._settings)  # 2
        if trial.reason:
            return Outcome(kind="waiting", reason=trial.reason)
        if only_if_drifted and serving is not None:
            drift = gate.drift(serving, self._data, trial, self._settings)
            if not _has_fallen(drift):
                as_answered = self._drift_as_served(serving, trial)
            if not (_has_fallen(drift) or _has_fallen(as_answered)):
                reason = _told(drift, as_answered)
                return Outcome(
                    kind="waiting", reason=reason, drift=drift, drift_as_served=as_answered
                )
        judged = self._judged(trial)
        if judged.verdict.passed:
            outcome = self._publish(judged)
        else:
            outcome = self._refuse(judged, judged.verdict.reason)
        return msgspec.structs.replace(outcome, drift=drift, drift_as_served=as_answered)

    def _drift_as_served(self, serving: Generation, trial: Trial) -> Drift | None:
        return self._if_possible(
            "look for drift as served",
            lambda: as_served.drift(
                *(serving, self._data, trial.train, self._settings, self._run("drift").progress)
            ),
            None,
        )

    def _judged(self, trial: Trial) -> _Judged:
        """Steps 3 to 5: a candidate, its verdict and, if it passed, its blend."""
        earlier = self._data.where(trial.train)
        fitted = self._fitted("fit", earlier)  # 3
        with _candidates(Path(self._settings.data_dir)) as store:
            name = store.put(*self._made(fitted, earlier, {}))
            candidate = Generation(store.get(name))
        verdict = gate.judge(candidate, self._serving, self._data, trial, self._settings)  # 4
        self._progress("gate", 1, 1)
        if not verdict.passed:
            return _Judged(trial, candidate, fitted.curve, verdict, _metrics(verdict))
        learned = self._blend(candidate, trial)  # 5
        verdict, figures = self._as_served(trial, verdict, learned)
        metrics = _metrics(verdict) | learned.metrics() | figures
        return _Judged(trial, candidate, fitted.curve, verdict, metrics, learned.blend)

    def _publish(self, judged: _Judged) -> Outcome:
        """Steps 6 and 7, with what passed the gate."""
        fitted = self._fitted("refit", self._data)  # 6
        made = self._made(fitted, self._data, judged.metrics)
        if judged.blend is not None:
            made = blending.attach(made, judged.blend)
        made = made._replace(files=self._report(made.manifest, judged))
        reason = "; ".join([judged.verdict.reason, *self._troubles])
        try:
            against = self._decisions.serving
            name = publish(self._settings, self._store, made, reason, against).generation  # 7
        except ServingChangedError as changed:
            return self._refuse(judged, str(changed))
        self._if_possible(
            "beginning for the next fit",
            lambda: self._warm.keep(self._model, name, self._data, fitted),
            None,
        )
        self._progress("publish", 1, 1)
        page = self._store.path(name) / report.PAGE if made.files else ""
        return self._outcome("promoted", judged, reason, generation=name, report=str(page))

    def _refuse(self, judged: _Judged, reason: str) -> Outcome:
        """Leaves a report of the candidate where people find it."""
        name = judged.candidate.name
        manifest = msgspec.structs.replace(judged.candidate.manifest, metrics=judged.metrics)
        reports = refused.of(self._settings)
        files, page = self._report(manifest, judged), ""
        if files:
            folder = self._if_possible("report", lambda: reports.keep(name, files), None)
            page = str(folder / report.PAGE) if folder else ""
        return self._outcome("refused", judged, reason, report=page)

    def _fitted(self, stage: str, data: DataSet) -> Fitted:
        """The model fitted on ``data``, with item weights where the settings ask for them."""
        weigher = item_weigher_of_settings(self._settings)
        fitted = self._fit(self._model, data, self._run(stage))
        return with_item_weights(fitted, weigher, data, self._run("item weights"))

    def _made(self, fitted: Fitted, data: DataSet, metrics: dict[str, float]) -> Made:
        began = self._serving.name if self._serving is not None and self._start is not None else ""
        return make(self._number, self._model, fitted, data, metrics, start=began)

    def _blend(self, candidate: Generation, trial: Trial) -> Learned:
        learned = self._if_possible(
            "blend",
            lambda: blending.learn_for(
                *(self._settings, candidate, self._serving, self._data, trial.train),
                self._run("blend"),
            ),
            blending.kept_of(self._serving, candidate, "learning one failed"),
        )
        if learned.reason:
            log.info("%s", learned.reason)
        return learned

    def _as_served(
        self, trial: Trial, verdict: Verdict, learned: Learned
    ) -> tuple[Verdict, dict[str, float]]:
        """The verdict with what the second question adds, and its figures, where it is asked."""
        serving = self._serving
        if serving is None or not len(learned.rows):
            return verdict, {}
        found = self._if_possible(
            "judgement as served",
            lambda: as_served.compare(
                *(learned, serving, self._data, trial.train),
                *(self._settings, self._run("gate").progress),
            ),
            None,
        )
        if found is None:
            return verdict, {}
        reason = f"{verdict.reason}; {found.reason}"
        return verdict._replace(passed=found.passed, reason=reason), found.figures

    def _report(self, manifest: Manifest, judged: _Judged) -> dict[str, bytes]:
        """The files of a report on a generation, or none."""

        def made() -> dict[str, bytes]:
            told = report.make(
                *(manifest, judged.candidate, self._serving, self._data),
                *(judged.trial, judged.verdict, self._settings),
                curve=judged.curve,
                logits="probabilities" in self._model.can,
            )
            return report_page.files(told)

        return self._if_possible("report", made, {})

    def _if_possible(self, what: str, step: Callable[[], T], otherwise: T) -> T:
        """``step()``, or ``otherwise`` where it fails, whatever it raises: told as a trouble.

        What a generation can do without must not cost it: its fit may have taken hours.
        """
        try:
            return step()
        except Exception as error:
            text = f"no {what}: {type(error).__name__}: {error}"
            log.error("the cycle goes on with %s", text, exc_info=error)
            self._troubles.append(text)
            return otherwise

    def _run(self, stage: str) -> Run:
        trainer = self._settings.trainer
        threads = trainer.threads or len(os.sched_getaffinity(0))

        def told(_: str, done: int, total: int) -> None:
            self._progress(stage, done, total)

        return Run(trainer.seed, threads, told, trainer.device, self._start)

    def _beginning(self) -> Start | None:
        """What the fits begin with, or None: anew."""
        if self._serving is None or not self._settings.trainer.warm_start:
            return None
        if "warm_start" not in self._model.can:
            return None
        return self._warm.read(self._model, self._serving.name)

    def _outcome(
        self,
        kind: Literal["promoted", "refused"],
        judged: _Judged,
        reason: str,
        *,
        generation: str = "",
        report: str = "",
    ) -> Outcome:
        return Outcome(
            kind=kind,
            reason=reason,
            generation=generation,
            candidate_ndcg=_finite(judged.verdict.candidate.ndcg),
            against_ndcg=_finite(judged.verdict.against),
            metrics=judged.metrics,
            report=report,
            troubles=self._troubles,
        )


def _has_fallen(drift: Drift | None) -> bool:
    return drift is not None and drift.has_fallen


def _told(drift: Drift | None, as_answered: Drift | None) -> str:
    """Why there is no drift."""
    found = {"": drift, "as served ": as_answered}
    told = [
        f"{what}NDCG@{gate.K} {one.now:.4f} on the newest events, {one.at_gate:.4f} then"
        for what, one in found.items()
        if one is not None
    ]
    if not told:
        return "no drift can be seen: the serving generation has no figure of a gate"
    return f"no drift: {'; '.join(told)}"


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
