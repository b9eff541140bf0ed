"""Accuracy of a ranking at k, for one relevant item or several, with ties at their expected value.

Let h be the relevant items among the first k, R all relevant ones, rel(i) whether the item at rank
i is one. Of one case, with binary relevance:

- hit rate: 1 if h > 0;
- recall h / R, precision h / k, F1 = 2 h / (k + R), their harmonic mean (Herlocker et al. 2004,
  "Evaluating collaborative filtering recommender systems", section 4.1);
- reciprocal rank: 1 / the rank of the first relevant item, 0 if that is beyond k (Voorhees 1999,
  "The TREC-8 question answering track report");
- average precision at k: 1/R sum over i <= k of rel(i) h(i) / i (Buckley & Voorhees 2000; the cut
  and the division by R as in trec_eval's map_cut); its mean over cases is MAP;
- NDCG: sum over i <= k of rel(i) / log2(i + 1), divided by the same sum of the ideal ranking, which
  has min(k, R) relevant items on top (Järvelin & Kekäläinen 2002).

Where scores tie, a value is the mean over all orders of the tied items (McSherry & Najork 2008,
"Computing information retrieval performance measures efficiently in the presence of tied scores"),
so that a model that gives every item the same score earns what a random order would, and not more.
"""

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
    precision: float
    f1: float
    mrr: float
    map: float
    ndcg: float
    cases: int


MEASURES = Accuracy._fields[:-1]
"""The measures, in the order of the columns of an array of values."""


def mean(values: Float64s) -> Accuracy:
    """The mean of ``values`` (n, measures), a row a case."""
    if not len(values):
        return undefined(0)
    return Accuracy._make([*values.mean(axis=0).tolist(), len(values)])


def undefined(cases: int) -> Accuracy:
    """Of ``cases`` cases that cannot be judged: there are none, or scores are not finite."""
    return Accuracy._make([*[np.nan] * len(MEASURES), cases])


def of_scores(scores: npt.NDArray[Any], relevant: npt.NDArray[Any], total: int, k: int) -> Float64s:
    """Expected values (measures,) of one case with several relevant items.

    ``scores`` (N,) are all items'; -inf: not among the candidates, which is missed at every k.
    ``relevant`` are the distinct places of the relevant items in ``scores``, ``total`` how many
    relevant items there are, those without a place included. Raises ValueError for k < 1, for NaN
    or infinity, or when nothing is relevant.

    The items down to the k-th best, and all that tie with it, fall into groups of equal scores. A
    group of n items, r of them relevant, begins after c others, H of them relevant. At the j-th of
    its places, i = c + j, an item is relevant with probability r/n, and given that it is, H + (j -
    1) (r - 1)/(n - 1) + 1 relevant items are expected up to it (McSherry & Najork, section 3).
    """
    if k < 1 or total < 1 or len(relevant) > total:
        raise ValueError(f"accuracy at k={k} with {total} relevant items is not defined")
    if not (scores < np.inf).all():
        raise ValueError("a score is NaN or infinite")
    is_relevant = np.zeros(len(scores), bool)
    is_relevant[relevant] = True
    depth = min(k, len(scores))
    least = np.partition(scores, -depth)[-depth] if depth else np.inf
    reached = np.flatnonzero((scores >= least) & (scores > -np.inf))
    if not is_relevant[reached].any():
        return np.zeros(len(MEASURES))
    reached = reached[np.argsort(-scores[reached], kind="stable")]
    ordered = scores[reached]
    group = np.cumsum(np.r_[False, ordered[1:] != ordered[:-1]])  # (reached,)
    sizes = np.bincount(group)
    hits = np.bincount(group, weights=is_relevant[reached])
    begins = np.cumsum(sizes) - sizes
    earlier = np.cumsum(hits) - hits

    ranks = np.arange(1, min(k, len(reached)) + 1)  # i
    at = group[: len(ranks)]
    n, r, j = sizes[at], hits[at], ranks - begins[at]
    chance = r / n
    expected_hits = float(chance.sum())
    up_to = earlier[at] + (j - 1) * (r - 1) / np.maximum(n - 1, 1) + 1
    first = int(np.argmax(hits > 0))
    # The group is reached, so that its places are all there: no later one can hold the first hit.
    hit_rate, reciprocal = _first_hit(int(begins[first]), int(sizes[first]), int(hits[first]), k)
    return np.array(
        [
            hit_rate,
            expected_hits / total,
            expected_hits / k,
            2 * expected_hits / (k + total),
            reciprocal,
            float((chance * up_to / ranks).sum()) / total,
            float((chance * _discounts(len(ranks))).sum() / _discounts(min(k, total)).sum()),
        ]
    )


def _first_hit(before: int, size: int, relevant: int, k: int) -> tuple[float, float]:
    """Probability of a hit by rank k, and the expected reciprocal rank of the first one.

    The first relevant item is one of ``relevant`` among ``size`` in random order, after ``before``
    others.
    """
    none_yet, hit_rate, reciprocal = 1.0, 0.0, 0.0
    for j in range(min(size - relevant + 1, k - before)):
        here = none_yet * relevant / (size - j)
        hit_rate += here
        reciprocal += here / (before + j + 1)
        none_yet -= here
    return hit_rate, reciprocal


def of_targets(better: npt.ArrayLike, tied: npt.ArrayLike, k: int) -> Accuracy:
    """The mean over cases with one target each, from how the target's score compares.

    ``better`` (n,): the other items with a higher score than the target. ``tied`` (n,): the other
    items with the same score; the target is equally likely to stand at any place among them.
    """
    return mean(expected_values(better, tied, k))


def expected_values(better: npt.ArrayLike, tied: npt.ArrayLike, k: int) -> Float64s:
    """Expected values (n, measures) of n cases with one target each.

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
    hit, reciprocal, gain = ((up_to[end] - up_to[first]) / (beside + 1)[:, None]).T  # (n,) each
    # With one relevant item recall is the hit rate, and average precision the reciprocal rank.
    values: Float64s = np.stack(
        [hit, hit, hit / k, 2 * hit / (k + 1), reciprocal, reciprocal, gain], axis=1
    )
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
