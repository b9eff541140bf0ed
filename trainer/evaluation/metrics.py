"""Accuracy of a ranking at k: hit rate, recall, MRR and NDCG, with ties at their expected value.

Definitions as in Herlocker et al. 2004 (hit rate, recall), Voorhees 1999 (reciprocal rank) and
Järvelin & Kekäläinen 2002 (NDCG, discount 1 / log2(rank + 1), binary gains). Where scores tie, the
value is the mean over all orders of the tied items (McSherry & Najork 2008), so that a model that
gives every item the same score earns what a random order would, and not more.
"""

from collections.abc import Collection, Hashable, Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from rheos.state import Float64s, Int64s

NO_CANDIDATE = 1 << 40
"""How many stand above an item that is not among the candidates: it is missed at every k."""


class Accuracy(NamedTuple):
    """Mean accuracy at some k over ``cases`` cases; NaN everywhere when there are none."""

    hit_rate: float
    recall: float
    mrr: float
    ndcg: float
    cases: int


def of_ranking(ranked: Sequence[Hashable], relevant: Collection[Hashable], k: int) -> Accuracy:
    """One case: ``ranked`` ids (best first, distinct) against the ``relevant`` ones.

    The ideal ranking has min(k, number of relevant) hits on top. Raises ValueError for k < 1,
    repeated ids, or when nothing is relevant: such a case has no value.
    """
    wanted = set(relevant)
    if k < 1 or not wanted:
        raise ValueError(f"accuracy at k={k} with {len(wanted)} relevant items is not defined")
    top = ranked[:k]
    if len(set(top)) != len(top):
        raise ValueError("a ranking names an item twice")
    hits = np.array([item in wanted for item in top], bool)
    places = np.flatnonzero(hits)
    if not len(places):
        return Accuracy(0.0, 0.0, 0.0, 0.0, 1)
    ideal = _discounts(min(k, len(wanted))).sum()
    return Accuracy(
        hit_rate=1.0,
        recall=len(places) / len(wanted),
        mrr=1.0 / (int(places[0]) + 1),
        ndcg=float(_discounts(k)[places].sum() / ideal),
        cases=1,
    )


def of_targets(better: npt.ArrayLike, tied: npt.ArrayLike, k: int) -> Accuracy:
    """The mean over cases with one target each, from how the target's score compares.

    ``better`` (n,): the other items with a higher score than the target. ``tied`` (n,): the other
    items with the same score; the target is equally likely to stand at any place among them.
    """
    values = expected_values(better, tied, k)
    if not len(values):
        return Accuracy(np.nan, np.nan, np.nan, np.nan, 0)
    hit_rate, mrr, ndcg = (float(value) for value in values.mean(axis=0))
    return Accuracy(hit_rate, hit_rate, mrr, ndcg, len(values))


def expected_values(better: npt.ArrayLike, tied: npt.ArrayLike, k: int) -> Float64s:
    """Per case (n, 3): expected hit rate (= recall, with one target), reciprocal rank and NDCG.

    Arguments as for ``of_targets``. Raises ValueError for k < 1 or negative counts.
    """
    above: Int64s = np.asarray(better, np.int64).reshape(-1)
    beside: Int64s = np.asarray(tied, np.int64).reshape(-1)
    if k < 1 or (above < 0).any() or (beside < 0).any():
        raise ValueError("accuracy of targets: k is at least 1, and counts are never negative")
    ranks = np.arange(1, k + 1)
    per_rank = np.stack([np.ones(k), 1.0 / ranks, _discounts(k)], axis=1)  # (k, 3)
    up_to = np.vstack([np.zeros((1, 3)), np.cumsum(per_rank, axis=0)])  # (k + 1, 3)
    first = np.minimum(above, k)
    end = np.minimum(above + beside + 1, k)
    values: Float64s = (up_to[end] - up_to[first]) / (beside + 1)[:, None]  # (n, 3)
    return values


def compare(
    scores: npt.NDArray[Any],
    target: int,
    popularity: npt.NDArray[Any] | None = None,
    allowed: npt.NDArray[np.bool_] | None = None,
) -> tuple[int, int]:
    """(better, tied) of the item at ``target`` among ``scores`` (n,); itself not counted.

    Equal scores go to the item with more ``popularity`` (n,), if it is given. Items that are not
    ``allowed`` (n,) do not count. A target with the score -inf is NO_CANDIDATE. Raises ValueError
    for NaN, which compares with nothing and would pass for a good rank.
    """
    if np.isnan(scores).any():
        raise ValueError("a score is NaN")
    own = scores[target]
    if own == -np.inf:
        return NO_CANDIDATE, 0
    higher, equal = scores > own, scores == own
    if popularity is not None:
        higher |= equal & (popularity > popularity[target])
        equal &= popularity == popularity[target]
    equal[target] = False
    if allowed is not None:
        higher &= allowed
        equal &= allowed
    return int(higher.sum()), int(equal.sum())


def _discounts(k: int) -> Float64s:
    discounts: Float64s = 1.0 / np.log2(np.arange(2, k + 2))
    return discounts
