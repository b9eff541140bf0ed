"""How one recommender came out on one holdout: what of each case and each list is counted."""

from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from rheos.state import Float32s, Float64s, History, Int64s
from trainer.data_set import DataSet
from trainer.evaluation import beyond_accuracy, metrics, served
from trainer.evaluation.beyond_accuracy import BeyondAccuracy
from trainer.evaluation.holdout import Holdout
from trainer.evaluation.pointwise import Pointwise


class Outcome(NamedTuple):
    """One recommender on one holdout: n users, m items to find (``owners`` their users).

    ``values`` (n, metrics.MEASURES) and ``activity`` (n,), the known interactions, are the users';
    ``target_values`` (m, metrics.MEASURES) and ``target_counts`` (m,), the fitted interactions, the
    items'.
    """

    user_ids: list[str]
    activity: Int64s
    values: Float64s
    owners: list[str]
    target_counts: Int64s
    target_values: Float64s
    beyond: BeyondAccuracy
    pointwise: Pointwise


def of_scores(
    part: Holdout,
    histories: Sequence[History],
    found: Iterable[Float32s],
    row_of: Mapping[str, int],
    judged: Pointwise,
    k: int,
) -> Outcome:
    """What ``found`` says of the users in ``part.wanted``, in their order.

    It has an array of scores (N,) for each, by the rows of ``row_of``; -inf is never shown. Lists
    have ``k`` items. ``histories`` are the users', ``judged`` is what was measured of pairs.
    """
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
    return Outcome(
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
