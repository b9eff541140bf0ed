"""Metrics of a model that says how likely one (user, item) pair is, against negatives."""

from collections.abc import Callable, Iterable, Mapping, Sequence

import msgspec
import numpy as np
import numpy.typing as npt

from rheos.state import Float32s, Float64s, History, Int64s


class Pointwise(msgspec.Struct, frozen=True):
    """Over ``cases`` pairs. ``accuracy`` and ``log_loss`` are NaN where scores are no logits."""

    auc: float
    accuracy: float
    log_loss: float
    cases: int


def of_labels(scores: npt.ArrayLike, labels: npt.ArrayLike, *, logits: bool) -> Pointwise:
    """Of pairs with ``scores`` (n,), whose ``labels`` (n,) say which were interactions.

    AUC is the probability that an interaction has the higher score than a negative, ties counting
    half (Hanley & McNeil 1982): by ranks R over P positives and N negatives, (sum of the positives'
    R - P (P + 1) / 2) / (P N). Where scores are ``logits``, accuracy is the share of pairs on the
    right side of probability 1/2 (a logit of 0 is right half of the time), and log loss the mean of
    log(1 + exp(-score)) of interactions and log(1 + exp(score)) of negatives (He et al. 2017, eq.
    7).

    NaN where a class has no pair. Raises ValueError for scores that are not finite.
    """
    values: Float64s = np.asarray(scores, np.float64).reshape(-1)
    positive: npt.NDArray[np.bool_] = np.asarray(labels, bool).reshape(-1)
    if len(values) != len(positive):
        raise ValueError(f"{len(values)} scores, {len(positive)} labels")
    if not np.isfinite(values).all():
        raise ValueError("a score is not finite")
    count = len(values)
    positives, negatives = int(positive.sum()), int((~positive).sum())
    if not positives or not negatives:
        return Pointwise(np.nan, np.nan, np.nan, count)
    _, place, sizes = np.unique(values, return_inverse=True, return_counts=True)
    ends = np.cumsum(sizes)
    ranks = (ends - (sizes - 1) / 2)[place]  # from 1, the mean over ties
    auc = (ranks[positive].sum() - positives * (positives + 1) / 2) / (positives * negatives)
    if not logits:
        return Pointwise(float(auc), np.nan, np.nan, count)
    right = np.where(values == 0, 0.5, (values > 0) == positive)
    loss = np.logaddexp(0.0, np.where(positive, -values, values))
    return Pointwise(float(auc), float(right.mean()), float(loss.mean()), count)


def against_negatives(
    wanted: Iterable[Sequence[str]],
    histories: Sequence[History],
    row_of: Mapping[str, int],
    score: Callable[[int, Int64s], Float32s],
    seed: int,
) -> tuple[Float64s, Int64s]:
    """Scores and labels (n,) of each case's ``wanted`` items, and of as many drawn ones.

    ``score`` takes a case's place and rows and gives their scores. Negatives are drawn uniformly
    from the items with a row that are neither in the case's history nor wanted; the same for all
    recommenders with the same rows. Cases without a history and items without a row are left out.
    """
    random = np.random.default_rng(seed)
    scores: list[Float32s] = []
    labels: list[Int64s] = []
    for place, (items, history) in enumerate(zip(wanted, histories, strict=True)):
        rows = np.array([row_of[item] for item in items if item in row_of], np.int64)
        if not history.item_ids or not len(rows):
            continue
        free = np.ones(len(row_of), bool)
        free[rows] = False
        free[[row_of[item] for item in history.item_ids if item in row_of]] = False
        others = np.flatnonzero(free)
        drawn = random.choice(others, min(len(others), len(rows)), replace=False, shuffle=False)
        scores.append(score(place, np.concatenate([rows, drawn])))
        labels.append(np.repeat([1, 0], [len(rows), len(drawn)]))
    if not scores:
        return np.zeros(0), np.zeros(0, np.int64)
    return np.concatenate(scores).astype(np.float64), np.concatenate(labels)
