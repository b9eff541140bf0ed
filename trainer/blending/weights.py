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
NEWTON_STEPS, HALVINGS = 20, 10
SEARCHED = 2_500
SEARCH_ROUNDS = 4
STEPS = (-0.4, -0.2, -0.1, -0.05, 0.05, 0.1, 0.2, 0.4)
"""By how much of the largest weight the search moves one."""


def gains(scores: Float64s, examples: Examples) -> Float64s:
    """NDCG@K of each query (Q,) for a target drawn evenly from its relevant items.

    (1 / wanted) Σ 1 / log2(rank + 1) over the relevant items that stand among the first K: what a
    question about the very next item earns on average, where nothing tells which comes next. Equal
    scores stand in any order.
    """
    places, inside = _best(scores, examples.begins, K)
    discounts = 1 / np.log2(np.arange(places.shape[1]) + 2.0)
    found: Float64s = (examples.relevant[places] & inside) @ discounts
    return found / examples.wanted


def weighted(examples: Examples, weights: Mapping[str, float]) -> Float64s:
    """The weighted sums of all candidates' z-scores (n,); layers without an opinion count 0."""
    sums = np.zeros(len(examples.relevant))
    for layer, weight in weights.items():
        if f"{layer}.z" in examples.names:
            sums += weight * examples.column(f"{layer}.z")
    return sums


def shortlisted(examples: Examples, weights: Mapping[str, float]) -> Mask:
    """Which candidates (n,) a blend with these weights scores: of each query the best SHORTLIST."""
    places, inside = _best(weighted(examples, weights), examples.begins, SHORTLIST)
    chosen = np.zeros(len(examples.relevant), bool)
    chosen[places[inside]] = True
    return chosen


def fit_weights(examples: Examples) -> LinearBlend:
    """The weights of the layers' z-scores under which what came stands highest.

    The search begins where ``gains`` are higher: at the best layer alone, or at the weights that
    maximise Σ over queries of the mean log-probability of the relevant candidates, p = softmax(Σ_l
    w_l z_l) over the query's candidates (ListNet: Cao et al., ICML 2007), by Newton's method. From
    there one weight after the other moves as long as that raises the gains. SEARCHED queries,
    evenly spread, are enough for a number a layer.
    """
    examples = examples.every(-(-len(examples) // SEARCHED))
    layers = examples.layers
    z = np.stack([examples.column(f"{layer}.z") for layer in layers], axis=1)
    begins = [*np.eye(len(layers)), _softmax_regression(z, examples)]
    weights = max(begins, key=lambda begin: gains(z @ begin, examples).mean())
    weights = _searched(weights, z, examples)
    return LinearBlend(dict(zip(layers, (weights / np.abs(weights).sum()).tolist(), strict=True)))


def _searched(weights: Float64s, z: Float64s, examples: Examples) -> Float64s:
    """Weights near those given that have higher mean gains."""
    best = float(gains(z @ weights, examples).mean())
    for _ in range(SEARCH_ROUNDS):
        before = best
        for layer in range(len(weights)):
            for step in STEPS:
                moved = weights.copy()
                moved[layer] += step * np.abs(weights).max()
                found = float(gains(z @ moved, examples).mean())
                if found > best:
                    best, weights = found, moved
        if best <= before:
            break
    return weights


def _softmax_regression(z: Float64s, examples: Examples) -> Float64s:
    begins = examples.begins
    lengths = np.diff(begins)
    found = _sums(examples.relevant.astype(np.float64), begins)
    share = np.where(examples.relevant, 1 / np.repeat(np.maximum(found, 1), lengths), 0.0)
    counts = (found > 0).astype(np.float64)  # a query without a relevant candidate teaches nothing
    penalty = RIDGE * max(1.0, float(counts.sum()))  # above 0, where all came from elsewhere too

    def chances(weights: Float64s) -> tuple[float, Float64s]:
        """The loss, and p of all candidates."""
        scores = z @ weights
        scores -= np.repeat(np.maximum.reduceat(scores, begins[:-1]), lengths)
        chance = np.exp(scores)
        total = _sums(chance, begins)
        loss = counts @ np.log(total) - share @ scores + penalty * weights @ weights / 2
        return float(loss), chance * np.repeat(counts / total, lengths)

    weights = np.zeros(z.shape[1])
    loss, chance = chances(weights)
    for _ in range(NEWTON_STEPS):
        means = np.stack([_sums(chance * column, begins) for column in z.T], axis=1)  # (Q, L)
        gradient = z.T @ (share - chance) - penalty * weights
        curvature = (z * chance[:, None]).T @ z - means.T @ means + penalty * np.eye(z.shape[1])
        step = np.linalg.solve(curvature, gradient)
        for _ in range(HALVINGS):
            tried, chance_there = chances(weights + step)
            if tried < loss:
                break
            step = step / 2
        else:
            break
        weights, loss, chance = weights + step, tried, chance_there
        if np.abs(step).max() < 1e-3:
            break
    return weights


def _best(scores: Float64s, begins: Int64s, count: int) -> tuple[Int64s, Mask]:
    """The places of each query's ``count`` best candidates, best first, and which of them are any.

    (Q, count) each, or as many columns as the longest query has candidates.
    """
    places = begins[:-1, None] + np.arange(np.diff(begins).max())
    inside = places < begins[1:, None]
    places = np.where(inside, places, 0)
    descending = np.where(inside, -scores[places], np.inf)
    if count < places.shape[1]:
        top = np.argpartition(descending, count - 1, axis=1)[:, :count]
        descending = np.take_along_axis(descending, top, axis=1)
    else:
        top = np.broadcast_to(np.arange(places.shape[1]), places.shape)
    top = np.take_along_axis(top, np.argsort(descending, axis=1), axis=1)
    return np.take_along_axis(places, top, axis=1), np.take_along_axis(inside, top, axis=1)


def _sums(values: Float64s, begins: Int64s) -> Float64s:
    """Sums over each query's candidates (Q,); no query is without."""
    sums: Float64s = np.add.reduceat(values, begins[:-1])
    return sums
