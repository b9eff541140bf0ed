"""Fusion weights: a softmax regression on recorded queries, then a search by the metric itself."""

from collections.abc import Mapping

import numpy as np

from rheos.blend import SHORTLIST
from rheos.linear_blend import LinearBlend
from rheos.state import Float64s, Int64s
from trainer.blending.examples import Examples
from trainer.data_set import Mask

K = 20
RIDGE = 1e-3
NEWTON_STEPS = 12
SEARCH_ROUNDS = 3
FACTORS = (0.5, 0.8, 1.25, 2.0)


def gains(scores: Float64s, examples: Examples) -> Float64s:
    """NDCG@K of each query (Q,) for a target drawn evenly from its relevant items.

    (1 / wanted) Σ 1 / log2(rank + 1) over the relevant items that stand among the first K: what a
    question about the very next item earns on average, where nothing tells which comes next. Equal
    scores stand in the order of the candidates.
    """
    order, rank = _ranked(scores, examples.begins)
    counted = examples.relevant[order] & (rank < K)
    gain = np.where(counted, 1 / np.log2(rank + 2.0), 0.0)
    return _sums(gain, examples.begins) / examples.wanted


def weighted(examples: Examples, weights: Mapping[str, float]) -> Float64s:
    """The weighted sums of all candidates' z-scores (n,); layers without an opinion count 0."""
    sums = np.zeros(len(examples.relevant))
    for layer, weight in weights.items():
        if f"{layer}.z" in examples.names:
            sums += weight * examples.column(f"{layer}.z")
    return sums


def shortlisted(examples: Examples, weights: Mapping[str, float]) -> Mask:
    """Which candidates (n,) a blend with these weights scores: of each query the best SHORTLIST."""
    order, rank = _ranked(weighted(examples, weights), examples.begins)
    chosen = np.zeros(len(order), bool)
    chosen[order[rank < SHORTLIST]] = True
    return chosen


def fit_weights(examples: Examples) -> LinearBlend:
    """The weights of the layers' z-scores under which what came stands highest.

    First those that maximise Σ over queries of the mean log-probability of the relevant candidates,
    p = softmax(Σ_l w_l z_l) over the query's candidates (ListNet: Cao et al., ICML 2007), by
    Newton's method. From there one weight after the other moves as long as that raises ``gains``.
    """
    layers = examples.layers
    z = np.stack([examples.column(f"{layer}.z") for layer in layers], axis=1)
    weights = _softmax_regression(z, examples)
    best = float(gains(z @ weights, examples).mean())
    for _ in range(SEARCH_ROUNDS):
        before = best
        for layer in range(len(layers)):
            for tried in (*(weights[layer] * np.array(FACTORS)), 0.0, -0.2 * weights[layer]):
                moved = weights.copy()
                moved[layer] = tried
                found = float(gains(z @ moved, examples).mean())
                if found > best:
                    best, weights = found, moved
        if best <= before:
            break
    return LinearBlend(dict(zip(layers, (weights / np.abs(weights).sum()).tolist(), strict=True)))


def _softmax_regression(z: Float64s, examples: Examples) -> Float64s:
    begins = examples.begins
    lengths = np.diff(begins)
    found = _sums(examples.relevant.astype(np.float64), begins)
    share = np.where(examples.relevant, 1 / np.repeat(np.maximum(found, 1), lengths), 0.0)
    counts = (found > 0).astype(np.float64)  # a query without a relevant candidate teaches nothing
    weights = np.zeros(z.shape[1])
    for _ in range(NEWTON_STEPS):
        scores = z @ weights
        scores -= np.repeat(np.maximum.reduceat(scores, begins[:-1]), lengths)
        chance = np.exp(scores)
        chance *= np.repeat(counts / _sums(chance, begins), lengths)
        means = np.stack([_sums(chance * column, begins) for column in z.T], axis=1)  # (Q, L)
        gradient = z.T @ (share - chance) - RIDGE * len(counts) * weights
        curvature = (z * chance[:, None]).T @ z - means.T @ means
        curvature += RIDGE * len(counts) * np.eye(z.shape[1])
        step = np.linalg.solve(curvature, gradient)
        weights = weights + step
        if np.abs(step).max() < 1e-4:
            break
    return weights


def _ranked(scores: Float64s, begins: Int64s) -> tuple[Int64s, Int64s]:
    """The candidates (n,) by query and then by score, and the rank of each in its query, from 0."""
    query = np.repeat(np.arange(len(begins) - 1), np.diff(begins))
    order = np.lexsort((-scores, query))
    return order, np.arange(len(scores)) - begins[query]


def _sums(values: Float64s, begins: Int64s) -> Float64s:
    """Sums over each query's candidates (Q,); no query is without."""
    sums: Float64s = np.add.reduceat(values, begins[:-1])
    return sums
