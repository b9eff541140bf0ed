"""How good models are on a holdout, through the path that serves them, and popularity beside them.

Each user with something to find is one case: all items are ranked by what the generation makes of
the user's newest known interactions, those interactions left out. A user of whom the generation
knows nothing is shown what is popular, as the running system would.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple, TypeVar

import msgspec
import numpy as np

from rheos.generation import Generation
from rheos.settings import Settings
from rheos.state import Float32s, Float64s, History, Int64s
from trainer import fitting
from trainer.data_set import DataSet
from trainer.evaluation import bands, beyond_accuracy, metrics, pointwise, refit, served
from trainer.evaluation.bands import Band
from trainer.evaluation.beyond_accuracy import BeyondAccuracy
from trainer.evaluation.holdout import Holdout
from trainer.evaluation.pointwise import Pointwise
from trainer.models import item_weigher_of_settings
from trainer.models.model import Model, Run

S = TypeVar("S", BeyondAccuracy, Pointwise)

POPULARITY = "popularity"
"""The row that every model is held against."""


class Judgement(msgspec.Struct, frozen=True):
    """One recommender: ``all`` cases, and by what was known of the user when asked.

    ``by_item``: each item to find is a case of its own, by its interactions in what was fitted;
    the others to find then stand in its way. ``beyond_accuracy`` is of the lists of k, with what
    the fit saw, ``pointwise`` of each item to find against one drawn from those that its user
    neither had nor had to find, for users with a history; of several folds both are means.
    """

    all: Band
    by_activity: list[Band]
    by_item: list[Band]
    beyond_accuracy: BeyondAccuracy
    pointwise: Pointwise


class _Outcome(NamedTuple):
    """One recommender on one holdout: n users, m items to find (``owners`` their users)."""

    user_ids: list[str]
    activity: Int64s
    values: Float64s
    owners: list[str]
    target_counts: Int64s
    target_values: Float64s
    beyond: BeyondAccuracy
    pointwise: Pointwise


def compare(
    holdouts: Iterable[Holdout], models: Sequence[Model], k: int, settings: Settings, run: Run
) -> dict[str, Judgement]:
    """Fits each of ``models`` on each of ``holdouts`` and judges it, popularity first.

    As the trainer would make them by ``settings``: the history is as long as it is kept there, and
    item weights join where they are asked for. Raises FitError, NotFiniteError, SettingsError.
    """
    weigher = item_weigher_of_settings(settings)
    outcomes: dict[str, list[_Outcome]] = {POPULARITY: []}
    for part in holdouts:
        histories = part.histories(settings.history.size)
        outcomes[POPULARITY].append(_of_popularity(part, histories, k, run.seed))
        for model in models:
            fitted = fitting.fit(model, part.train, run)
            fitted = fitting.with_item_weights(fitted, weigher, part.train, run)
            generation = refit.in_memory(fitting.make(1, model, fitted, part.train, {}))
            outcomes.setdefault(model.name, []).append(
                _of_generation(generation, model, part, histories, k, settings, run.seed)
            )
    return {name: _summed(parts) for name, parts in outcomes.items()}


def _of_popularity(part: Holdout, histories: Sequence[History], k: int, seed: int) -> _Outcome:
    popular = part.train.popularity()
    row_of = {item: row for row, item in enumerate(part.train.item_ids)}

    def without(history: History) -> Float32s:
        own = popular.copy()
        own[[row_of[item] for item in history.item_ids if item in row_of]] = -np.inf
        return own

    pairs = pointwise.against_negatives(
        part.wanted.values(), histories, row_of, lambda _, rows: popular[rows], seed
    )
    judged = pointwise.of_labels(*pairs, logits=False)
    return _outcome(part, histories, map(without, histories), row_of, judged, k)


def _of_generation(
    generation: Generation,
    model: Model,
    part: Holdout,
    histories: Sequence[History],
    k: int,
    settings: Settings,
    seed: int,
) -> _Outcome:
    generation = served.with_new_items(generation, part.train.items_known)
    attributes = [part.known.users_known.get(user_id) for user_id in part.wanted]
    found = served.scores(
        generation,
        histories,
        attributes,
        depth=settings.retrieval.vector_depth,
        retrieval=settings.retrieval,
        unknown=generation.popularity,
    )
    users = generation.encoder.encode(histories, attributes)
    pairs = pointwise.against_negatives(
        part.wanted.values(),
        histories,
        generation.row_of,
        lambda place, rows: served.pair_scores(generation, histories[place], users[place], rows),
        seed,
    )
    judged = pointwise.of_labels(*pairs, logits="probabilities" in model.can)
    return _outcome(part, histories, found, generation.row_of, judged, k)


def _outcome(
    part: Holdout,
    histories: Sequence[History],
    found: Iterable[Float32s],
    row_of: Mapping[str, int],
    judged: Pointwise,
    k: int,
) -> _Outcome:
    train = part.train
    fitted_counts = dict(zip(train.item_ids, train.popularity().tolist(), strict=True))
    lists = np.full((len(histories), k), -1, np.int64)
    values = np.zeros((len(histories), len(metrics.MEASURES)))
    owners: list[str] = []
    better: list[int] = []
    tied: list[int] = []
    counts: list[int] = []
    for place, (own, (user_id, wanted)) in enumerate(zip(found, part.wanted.items(), strict=True)):
        rows = np.array([row_of[item] for item in wanted if item in row_of], np.int64)
        values[place] = metrics.of_scores(own, rows, len(wanted), k)
        shown = served.best(own, k)
        lists[place, : len(shown)] = shown
        order = np.sort(own)
        for item in wanted:
            above, beside = _place(order, own, row_of.get(item))
            better.append(above)
            tied.append(beside)
        owners += [user_id] * len(wanted)
        counts += [int(fitted_counts.get(item, 0)) for item in wanted]
    had = _users_per_item(train, row_of)
    return _Outcome(
        list(part.wanted),
        np.array(part.activity(), np.int64),
        values,
        owners,
        np.array(counts, np.int64),
        metrics.expected_values(better, tied, k),
        beyond_accuracy.of_lists(
            lists,
            had,
            len(train.user_ids),
            np.array([_mean_of(had, row_of, history) for history in histories]),
        ),
        judged,
    )


def _place(order: Float32s, own: Float32s, row: int | None) -> tuple[int, int]:
    """``metrics.compare`` of the item at ``row`` by the scores in rising ``order`` (N,)."""
    if row is None or own[row] == -np.inf:
        return metrics.NO_CANDIDATE, 0
    left, right = (
        np.searchsorted(order, own[row], "left"),
        np.searchsorted(order, own[row], "right"),
    )
    return len(order) - int(right), int(right - left) - 1


def _summed(parts: Sequence[_Outcome]) -> Judgement:
    """All cases of all folds together; what has no cases is averaged over the folds."""
    users = _numbered([user for part in parts for user in part.user_ids])
    owners = _numbered([user for part in parts for user in part.owners])
    values = np.concatenate([part.values for part in parts])
    target_values = np.concatenate([part.target_values for part in parts])
    return Judgement(
        bands.whole(values, users),
        bands.by_count(values, users, np.concatenate([part.activity for part in parts])),
        bands.by_count(
            target_values, owners, np.concatenate([part.target_counts for part in parts])
        ),
        _averaged([part.beyond for part in parts], "lists"),
        _averaged([part.pointwise for part in parts], "cases"),
    )


def _averaged(structs: Sequence[S], count: str) -> S:
    """The mean of each field but ``count``, which is the sum."""
    columns = {
        name: [getattr(one, name) for one in structs] for name in type(structs[0]).__struct_fields__
    }
    means: dict[str, Any] = {name: float(np.mean(column)) for name, column in columns.items()}
    return type(structs[0])(**{**means, count: sum(columns[count])})


def _numbered(names: Sequence[str]) -> Int64s:
    return np.unique(np.array(names, object), return_inverse=True)[1].astype(np.int64)


def _users_per_item(train: DataSet, row_of: Mapping[str, int]) -> Float64s:
    """How many users had each item of a catalogue (N,), whose rows ``row_of`` tells."""
    first = train.first_of_pairs()
    counts = np.bincount(train.items[first], minlength=len(train.item_ids))
    had = np.zeros(len(row_of))
    for item, count in zip(train.item_ids, counts.tolist(), strict=True):
        if item in row_of:
            had[row_of[item]] = count
    return had


def _mean_of(had: Float64s, row_of: Mapping[str, int], history: History) -> float:
    rows = [row_of[item] for item in set(history.item_ids) if item in row_of]
    return float(had[rows].mean()) if rows else np.nan
