"""``rheos tune``: better parameters for a model, by the gate's own measure.

    <data_dir>/tune/<model>.journal     all trials so far; a later call goes on from there

A trial fits the model with other parameters on all but the newest events, writes and reads back a
snapshot, and is judged on those by NDCG@20 through the served path, as a candidate at the gate is.
The window of the first trial is kept for all others: figures on other events do not compare. Which
parameters come next is the tree-structured Parzen estimator's choice (Bergstra et al. 2011).
"""

import os
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import optuna
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.trial import FrozenTrial, TrialState

from rheos.generation import Generation
from rheos.settings import Settings
from rheos.snapshot import SnapshotError
from rheos.snapshot_store import LocalStore
from trainer import gate
from trainer.archiver import Archiver
from trainer.catalogue import READERS, with_catalogue
from trainer.data_set import DataSet, load
from trainer.evaluation import metrics
from trainer.fitting import FitError, fit, make, with_item_weights
from trainer.models import item_weigher_of_settings, model_class, model_of
from trainer.models.model import Model, Progress, Run, silent
from trainer.search_space import Range, space_of


class TuneError(RuntimeError):
    """There is nothing to tune, or nothing to judge by; the text says what to do."""


class Tuned(msgspec.Struct, frozen=True, kw_only=True):
    """``best`` are the parameters of the best trial, complete as for ``trainer.parameters``;
    ``first_ndcg`` is that of the settings' own, which are tried first.
    """

    model: str
    trials: int
    failed: int
    best: dict[str, Any]
    best_ndcg: float
    first_ndcg: float | None
    queries: int
    file: str


class _Window(msgspec.Struct, frozen=True):
    """The events that all trials of a study read."""

    topic_id: str
    offsets: dict[str, tuple[int, int]]


def check(settings: Settings) -> Mapping[str, Range]:
    """What of the settings' model may be tried. Raises TuneError for nothing, SettingsError."""
    name = settings.trainer.model
    model_of(name, settings.trainer.parameters)
    space = space_of(model_class(name))
    if not space:
        raise TuneError(f"the model {name} declares nothing to tune")
    return space


def tune(
    settings: Settings, trials: int, *, fresh: bool = False, progress: Progress = silent
) -> Tuned:
    """Runs so many more trials for the model of the settings. Blocks: trials times a fit.

    Every trial is kept as it ends, so that a call may be cut short. ``fresh`` begins anew, on the
    newest events. Raises TuneError, SettingsError, ArchiveError, KafkaError, OSError.
    """
    name, base = settings.trainer.model, settings.trainer.parameters
    space = check(settings)
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    folder = Path(settings.data_dir) / "tune"
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / f"{name}.journal"
    if fresh:
        file.unlink(missing_ok=True)
    with Archiver(settings) as archiver:
        archiver.catch_up(lambda done, total: progress("archive", done, total))
    data = load(archiver.archive, settings.event_rules(), settings.trainer.max_interactions)
    if READERS & model_class(name).can:
        data = with_catalogue(data, settings)
    study = _study(file, name, settings.trainer.seed)
    data = _in_window(study, data, file)
    trial = gate.plan(data, None, settings)
    if trial.reason:
        raise TuneError(trial.reason)
    if not study.trials:
        study.enqueue_trial(_own(model_of(name, base), space))

    def objective(asked: optuna.Trial) -> float:
        parameters = base | {key: _suggested(asked, key, span) for key, span in space.items()}
        began = time.process_time()
        value = _judged(settings, model_of(name, parameters), data, trial, folder, progress)
        asked.set_user_attr("cpu_seconds", round(time.process_time() - began, 3))
        return value

    for done in range(trials):
        progress("trials", done, trials)
        study.optimize(objective, n_trials=1, catch=(FitError, SnapshotError))
    progress("trials", trials, trials)
    return _told(study, name, base, len(trial.queries), file)


def _study(file: Path, name: str, seed: int) -> optuna.Study:
    storage = JournalStorage(JournalFileBackend(str(file)))
    study = optuna.create_study(
        study_name=name, storage=storage, direction="maximize", load_if_exists=True
    )
    # The same seed again would draw the same first trials again.
    study.sampler = optuna.samplers.TPESampler(seed=seed + len(study.trials))
    return study


def _in_window(study: optuna.Study, data: DataSet, file: Path) -> DataSet:
    """The part of ``data`` in the study's window, which a new study takes from it."""
    own = _Window(data.topic_id, data.window)
    if "window" not in study.user_attrs:
        study.set_user_attr("window", msgspec.to_builtins(own))
        return data
    kept = msgspec.convert(study.user_attrs["window"], _Window)
    mask = np.zeros(len(data), bool)
    for partition, (begin, end) in kept.offsets.items():
        found = own.offsets.get(partition, (0, 0))
        if own.topic_id != kept.topic_id or found[0] > begin or found[1] < end:
            raise TuneError(f"the events of {file} are not all there any more: begin with --fresh")
        mask |= (data.partitions == int(partition)) & (data.offsets >= begin) & (data.offsets < end)
    return data.where(mask)


def _judged(
    settings: Settings,
    model: Model,
    data: DataSet,
    trial: gate.Trial,
    folder: Path,
    progress: Progress,
) -> float:
    """NDCG@20 of a candidate at the gate. Raises FitError, SnapshotError."""
    trainer = settings.trainer
    threads = trainer.threads or len(os.sched_getaffinity(0))
    run = Run(trainer.seed, threads, lambda _, *count: progress("fit", *count), trainer.device)
    earlier = data.where(trial.train)
    fitted = with_item_weights(
        fit(model, earlier, run), item_weigher_of_settings(settings), earlier, run
    )
    with tempfile.TemporaryDirectory(prefix=".candidate-", dir=folder) as candidate:
        store = LocalStore(Path(candidate))
        generation = Generation(store.get(store.put(*make(1, model, fitted, earlier, {}))))
        found = metrics.mean(gate.values(generation, data, trial.queries, settings)).ndcg
    if not np.isfinite(found):
        raise FitError(f"{model.name}: scores are not finite")
    return found


def _suggested(asked: optuna.Trial, key: str, span: Range) -> float | int:
    if span.is_whole:
        return asked.suggest_int(key, int(span.low), int(span.high), log=span.log)
    return asked.suggest_float(key, span.low, span.high, log=span.log)


def _own(model: Model, space: Mapping[str, Range]) -> dict[str, Any]:
    """The settings' own values, as far as they are in the space."""
    own = msgspec.to_builtins(model)
    return {key: own[key] for key, span in space.items() if span.low <= own[key] <= span.high}


def _told(study: optuna.Study, name: str, base: dict[str, Any], queries: int, file: Path) -> Tuned:
    complete = [found for found in study.trials if found.state is TrialState.COMPLETE]
    if not complete:
        raise TuneError(f"every trial failed: {_failure(study.trials)}")
    first = study.trials[0].value
    return Tuned(
        model=name,
        trials=len(complete),
        failed=sum(found.state is TrialState.FAIL for found in study.trials),
        best=base | study.best_params,
        best_ndcg=study.best_value,
        first_ndcg=first,
        queries=queries,
        file=str(file),
    )


def _failure(trials: list[FrozenTrial]) -> str:
    return f"{len(trials)} of them; `rheos train` shows why with the same settings"
