"""Ranking: the layers' opinions on one set of candidates become one order. Pure."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from rheos.state import Float64s, Int64s

VECTOR, NEXT, TREND, NEW = "vector", "next", "trend", "new"
SOURCES = (VECTOR, NEXT, TREND, NEW)
"""Where an item of an answer came from; ``new`` is an item too young for the generation."""


class Layer(NamedTuple):
    """One opinion: ``scores`` (n,) of the n candidates, NaN where the layer cannot tell.

    Several layers may share a source (near and far next-lists are both ``next``).
    """

    source: str
    weight: float
    scores: Float64s


class Ranked(NamedTuple):
    """The best candidates: places in the arrays given, best first, with scores and sources."""

    places: Int64s
    scores: Float64s
    sources: list[str]


def union(parts: Sequence[Int64s]) -> Int64s:
    """All candidates of several lists, ascending, each once."""
    return np.unique(np.concatenate(parts)) if parts else np.zeros(0, np.int64)


def allowed(
    count: int,
    *,
    excluded: Int64s,
    available: npt.NDArray[np.bool_],
    categories: npt.NDArray[np.int32],
    category: int | None,
) -> npt.NDArray[np.bool_]:
    """Which of the numbers 0 … count-1 an answer may hold: those that no rule leaves out.

    ``excluded`` may hold -1, for an id without a number. ``available`` and ``categories`` are
    indexed by number; one beyond their end is available and of no category. Costs a byte's copy
    per item: 0.05 ms for a million.
    """
    mask = np.ones(count, bool)
    known = min(count, len(available))
    mask[:known] = available[:known]
    if category is not None:
        known = min(count, len(categories))
        mask[:known] &= categories[:known] == category
        mask[known:] = False
    mask[excluded[(excluded >= 0) & (excluded < count)]] = False
    return mask


def z_scores(scores: Float64s) -> Float64s:
    """(s - mean) / standard deviation over those that are numbers; 0 for the others and for
    scores that are all alike."""
    known = ~np.isnan(scores)
    if not known.all():
        out = np.zeros(len(scores))
        out[known] = z_scores(scores[known])
        return out
    if not len(scores):
        return scores
    centred = scores - scores.mean()
    spread = float(np.sqrt(centred @ centred / len(scores)))
    return centred / spread if spread > 0 else np.zeros(len(scores))


def fuse(
    layers: Sequence[Layer],
    popularity: Float64s,
    k: int,
    id_of_place: Callable[[int], str],
) -> Ranked:
    """The ``k`` best of n candidates by the weighted sum of the layers' z-scores.

    ``popularity`` (n,) settles equal scores, then the item's id does, so the order never depends
    on how the candidates were found. An item's source is that of the layers that gave it most. One
    layer alone keeps its own scores (candidates that it cannot tell are left out).
    """
    count = len(popularity)
    if not count or not layers:
        return Ranked(np.zeros(0, np.int64), np.zeros(0), [])
    if len(layers) == 1:
        known = np.flatnonzero(~np.isnan(layers[0].scores))
        totals = layers[0].scores
        names = [layers[0].source]
        winners = np.zeros(count, np.int64)
    else:
        known = np.arange(count)
        names = list(dict.fromkeys(layer.source for layer in layers))
        given = np.zeros((len(names), count))
        for layer in layers:
            given[names.index(layer.source)] += layer.weight * z_scores(layer.scores)
        totals = given.sum(axis=0)
        winners = given.argmax(axis=0)
    if len(known) > k:
        values = totals[known]
        edge = np.partition(values, len(values) - k)[len(values) - k]
        known = known[values >= edge]
    order = sorted(
        known.tolist(),
        key=lambda place: (-totals[place], -popularity[place], id_of_place(place)),
    )[:k]
    places = np.array(order, np.int64)
    return Ranked(places, totals[places], [names[winners[place]] for place in order])
