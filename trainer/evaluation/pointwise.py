"""Metrics of a model that says how likely one (user, item) pair is, against negatives."""

import msgspec
import numpy as np
import numpy.typing as npt

from rheos.state import Float64s


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
