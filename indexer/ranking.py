"""Ranking: the layers' opinions on one set of candidates become one order. Pure.

Without a blend by the weighted sum of the layers' z-scores (``fuse``); a generation's blend scores
the best of these by their features (``blended``), which are computed here and nowhere else, for
serving and for what blends are trained on.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from rheos.blend import OF_FACTS, OF_LAYERS, SHORTLIST, Blend
from rheos.state import Float64s, Int64s
from rheos.z_scores import z_scores

VECTOR, NEXT, TREND, NEW = "vector", "next", "trend", "new"
ITEM_WEIGHTS, HISTORY = "item_weights", "history"
SOURCES = (VECTOR, ITEM_WEIGHTS, NEXT, HISTORY, TREND, NEW)
"""Where an item of an answer came from; ``history`` is an item that the user had before, ``new``
one too young for the generation."""


class Layer(NamedTuple):
    """One opinion: ``scores`` (n,) of the n candidates, NaN where the layer cannot tell.

    ``name`` leads the names of its features (``z``, ``rank`` and ``share``, as in ``far.z``).
    Several layers may share a source (near and far next-lists are both ``next``). ``weight`` is
    that of the settings.
    """

    name: str
    source: str
    weight: float
    scores: Float64s


class Facts(NamedTuple):
    """What is known of the n candidates and of the asker beside the layers' opinions.

    ``counts`` (n,): interactions. ``trend`` (n,): decayed popularity, up to a common factor.
    ``prices`` (n,): NaN where unknown. Of the asker: ``usual_price``, the geometric mean over the
    recent items (NaN: unknown); how many items the last session and the history hold; and the
    seconds since the last of them (NaN: none).
    """

    counts: Float64s
    trend: Float64s
    prices: Float64s
    usual_price: float
    session: int
    history: int
    idle_s: float


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


def features(layers: Sequence[Layer], facts: Facts, wanted: Sequence[str]) -> dict[str, Float64s]:
    """The features ``wanted`` of n candidates, (n,) each; NaN: cannot be told.

    Of a layer: ``z``, its z-score, 0 where the layer cannot tell; ``rank``, how many candidates it
    puts above this one; ``share`` of its largest score. None of these depends on the unit of the
    layer's scores, which for decayed counts changes with time. ``count`` and ``price`` are
    logarithms. ``age`` is the mean age of an item's interactions (in half-lives of the trend, with
    ages weighed as decay weighs them), told from the youngest candidate's. ``relative_price`` is
    the logarithm of a price's ratio to the asker's usual one. ``session``, ``history`` and ``idle``
    (the logarithm of the seconds since the last event) are the same for all candidates.
    """
    scores_of = {layer.name: layer.scores for layer in layers}
    return {name: _feature(name, scores_of, facts) for name in wanted}


def feature_names(layers: Sequence[str]) -> list[str]:
    """The names of all features that there are with these layers."""
    return [f"{layer}.{kind}" for layer in layers for kind in OF_LAYERS] + list(OF_FACTS)


def _feature(name: str, scores_of: Mapping[str, Float64s], facts: Facts) -> Float64s:
    if name in _OF_FACTS:
        return _OF_FACTS[name](facts)
    layer, _, kind = name.partition(".")
    if layer not in scores_of:  # it has nothing to say of this query
        return np.full(len(facts.counts), 0.0 if kind == "z" else np.nan)
    return _OF_LAYER[kind](scores_of[layer])


def _ranks(scores: Float64s) -> Float64s:
    known = ~np.isnan(scores)
    out = np.full(len(scores), np.nan)
    out[known] = np.searchsorted(np.sort(-scores[known]), -scores[known])
    return out


def _shares(scores: Float64s) -> Float64s:
    largest = float(np.nanmax(np.abs(scores), initial=0.0))
    return scores / largest if largest > 0 else scores


def _ages(facts: Facts) -> Float64s:
    told = (facts.counts > 0) & (facts.trend > 0)
    out = np.full(len(facts.counts), np.nan)
    if told.any():
        ages = np.log2(facts.counts[told]) - np.log2(facts.trend[told])
        out[told] = ages - ages.min()
    return out


def _logarithm(values: Float64s) -> Float64s:
    """Natural logarithms; NaN where there is none."""
    return np.log(np.where(values > 0, values, np.nan))


_OF_LAYER: dict[str, Callable[[Float64s], Float64s]] = {
    "z": z_scores,
    "rank": _ranks,
    "share": _shares,
}
_OF_FACTS: dict[str, Callable[[Facts], Float64s]] = {
    "count": lambda facts: np.log1p(facts.counts),
    "age": _ages,
    "price": lambda facts: _logarithm(facts.prices),
    "relative_price": lambda facts: _logarithm(facts.prices / facts.usual_price),
    "session": lambda facts: np.full(len(facts.counts), float(facts.session)),
    "history": lambda facts: np.full(len(facts.counts), float(facts.history)),
    "idle": lambda facts: np.full(len(facts.counts), np.log1p(np.maximum(0.0, facts.idle_s))),
}


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
    if not len(popularity) or not layers:
        return Ranked(np.zeros(0, np.int64), np.zeros(0), [])
    if len(layers) == 1:
        known = np.flatnonzero(~np.isnan(layers[0].scores))
        places = _best(layers[0].scores, known, popularity, k, id_of_place)
        return Ranked(places, layers[0].scores[places], [layers[0].source] * len(places))
    sums = _weighted(layers)
    places = _best(sums.totals, np.arange(len(popularity)), popularity, k, id_of_place)
    return Ranked(places, sums.totals[places], sums.sources(places))


def blended(
    layers: Sequence[Layer],
    facts: Facts,
    blend: Blend,
    k: int,
    id_of_place: Callable[[int], str],
) -> Ranked:
    """The ``k`` best of n candidates by a blend.

    The sum of the layers' z-scores, weighed by ``blend.weights``, picks SHORTLIST candidates (k,
    if that is more), which the blend scores. Equal scores and sources as for ``fuse``.
    """
    if not len(facts.counts) or not layers:
        return Ranked(np.zeros(0, np.int64), np.zeros(0), [])
    sums = _weighted(
        [layer._replace(weight=blend.weights.get(layer.name, 0.0)) for layer in layers]
    )
    chosen = _at_the_top(sums.totals, max(k, SHORTLIST))
    told = features(layers, facts, blend.features)
    scores = np.full(len(facts.counts), -np.inf)
    scores[chosen] = blend.score({name: values[chosen] for name, values in told.items()})
    places = _best(scores, chosen, facts.counts, k, id_of_place)
    return Ranked(places, scores[places], sums.sources(places))


class _Sums(NamedTuple):
    """Weighted sums of z-scores (n,), and of each candidate the source that gave it most."""

    totals: Float64s
    winners: Int64s
    names: list[str]

    def sources(self, places: Int64s) -> list[str]:
        return [self.names[winner] for winner in self.winners[places]]


def _weighted(layers: Sequence[Layer]) -> _Sums:
    names = list(dict.fromkeys(layer.source for layer in layers))
    given = np.zeros((len(names), len(layers[0].scores)))
    for layer in layers:
        given[names.index(layer.source)] += layer.weight * z_scores(layer.scores)
    return _Sums(given.sum(axis=0), given.argmax(axis=0), names)


def _best(
    scores: Float64s,
    places: Int64s,
    popularity: Float64s,
    k: int,
    id_of_place: Callable[[int], str],
) -> Int64s:
    """The ``k`` of ``places`` with the highest scores, best first."""
    order = sorted(
        places[_at_the_top(scores[places], k)].tolist(),
        key=lambda place: (-scores[place], -popularity[place], id_of_place(place)),
    )[:k]
    return np.array(order, np.int64)


def _at_the_top(values: Float64s, count: int) -> Int64s:
    """The places of the ``count`` highest values and of all that equal the last of them."""
    if len(values) <= count:
        return np.arange(len(values))
    edge = np.partition(values, len(values) - count)[len(values) - count]
    return np.flatnonzero(values >= edge)
