"""One query: candidates of every source, fused into a list. Reads the live view and one Serving.

Nothing here waits, but for the search of an index that says so (``Index.waits``).
"""

from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from indexer.candidates import TREND_MOST, NextScores, best, recent_items
from indexer.explanation import Reason, explain
from indexer.live_view import LiveView
from indexer.ranking import NEW, NEXT, TREND, VECTOR, Layer, Ranked, allowed, fuse, union
from indexer.serving import Serving
from rheos.settings import Settings
from rheos.state import Float32s, Float64s, History, Int64s

NOBODY = History([], np.zeros(0, np.float32), np.zeros(0, np.int64))

OVER_FETCH = 4  # a search whose answers were mostly filtered is repeated that much deeper
SIMILAR_DEPTH = 4  # inner products prefer long vectors: cosine picks from that many times k


class Wish(NamedTuple):
    """What an asker may choose. ``sources`` are those of indexer.ranking.SOURCES."""

    k: int
    sources: frozenset[str]
    category: str | None = None
    exclude: Sequence[str] = ()
    explain: bool = False


class Chosen(NamedTuple):
    """One item of a list."""

    item_id: str
    score: float
    source: str
    because: list[Reason]


class Choice(NamedTuple):
    """A list and what of the history nothing knows."""

    items: list[Chosen]
    ignored: list[str]


class Retrieval:
    """Recommends from what ``view`` says now and one generation, or none before the first."""

    def __init__(self, settings: Settings, view: LiveView) -> None:
        self._retrieval = settings.retrieval
        self._gap_ms = settings.history.session_gap_s * 1000
        self._view = view

    def recommend(
        self,
        wish: Wish,
        history: History,
        serving: Serving | None,
        user_vector: Float32s | None,
    ) -> Choice:
        """The list for a history. ``user_vector`` (dimensions,) is of ``serving``'s generation."""
        settings, view = self._retrieval, self._view
        seen = history.item_ids if settings.leave_out_seen else []
        filter_ = _Filter(view, wish.category, [*seen, *wish.exclude])
        recent = recent_items(history, self._gap_ms)
        parts: list[Int64s] = []
        vector = None
        if serving is not None and user_vector is not None and user_vector.any():
            vector = user_vector[: serving.generation.dimensions]
            depth = max(settings.vector_depth, wish.k)
            if VECTOR in wish.sources:
                parts.append(filter_.nearest(serving, vector, depth))
            if NEW in wish.sources:
                parts.append(filter_.only(serving.nearest_new(vector)))
        following: NextScores | None = None
        if NEXT in wish.sources:
            following = view.next_lists.scores(recent)
            mask = filter_.mask(following.numbers)
            depth = max(settings.next_depth, wish.k)
            numbers = following.numbers[mask]
            parts.append(best(numbers, following.near[mask], depth))
            parts.append(best(numbers, following.far[mask], depth))
        if TREND in wish.sources:
            parts.append(filter_.trend(max(settings.trend_depth, wish.k)))
        candidates = union(parts)

        layers: list[Layer] = []
        if serving is not None and vector is not None and wish.sources & {VECTOR, NEW}:
            scores = _vector_scores(serving, vector, user_vector, candidates)
            layers.append(Layer(VECTOR, settings.vector_weight, scores))
        if following is not None and len(following.numbers):
            near, far = following.of(candidates)
            layers.append(Layer(NEXT, settings.near_weight, near))
            layers.append(Layer(NEXT, settings.far_weight, far))
        if TREND in wish.sources:
            layers.append(Layer(TREND, settings.trend_weight, view.trend.scores(candidates)))
        ranked = self._fused(layers, candidates, wish.k)
        items = self._chosen(ranked, candidates, serving)
        if wish.explain:
            reasons = explain(
                [item.item_id for item in items],
                history=history,
                recent=recent,
                generation=None if serving is None else serving.generation,
                next_lists=view.next_lists,
            )
            items = [item._replace(because=why) for item, why in zip(items, reasons, strict=True)]
        return Choice(items, self._unknown(history.item_ids, serving))

    def similar(self, wish: Wish, item_id: str, serving: Serving | None) -> list[Chosen]:
        """Items like one: near it in vector space (cosine) and in what is taken near it."""
        view = self._view
        filter_ = _Filter(view, wish.category, [item_id, *wish.exclude])
        number = view.numbers.get(item_id)
        parts: list[Int64s] = []
        vector = None
        if serving is not None and number is not None and VECTOR in wish.sources:
            vector = serving.vector_of(number)
            if vector is not None and vector.any():
                parts.append(filter_.nearest(serving, vector, SIMILAR_DEPTH * wish.k))
                parts.append(filter_.only(serving.nearest_new(vector)))
        following = view.next_lists.scores([item_id] if NEXT in wish.sources else [])
        mask = filter_.mask(following.numbers)
        parts.append(best(following.numbers[mask], following.far[mask], SIMILAR_DEPTH * wish.k))
        candidates = union(parts)
        layers: list[Layer] = []
        if serving is not None and vector is not None:
            layers.append(Layer(VECTOR, 1.0, serving.cosines(vector, candidates)))
        if len(following.numbers):
            layers.append(Layer(NEXT, 1.0, following.of(candidates)[1]))
        return self._chosen(self._fused(layers, candidates, wish.k), candidates, serving)

    def knows(self, item_id: str, serving: Serving | None) -> bool:
        """Whether a catalogue, a state or the generation holds the item."""
        return self._view.catalogue.item(item_id) is not None or not self._unknown(
            [item_id], serving
        )

    def _fused(self, layers: Sequence[Layer], candidates: Int64s, k: int) -> Ranked:
        view = self._view
        return fuse(
            layers,
            view.next_lists.interactions(candidates),
            k,
            lambda place: view.numbers.id_of(int(candidates[place])),
        )

    def _chosen(self, ranked: Ranked, candidates: Int64s, serving: Serving | None) -> list[Chosen]:
        numbers = candidates[ranked.places]
        young = np.zeros(len(numbers), bool) if serving is None else serving.rows(numbers) < 0
        return [
            Chosen(
                self._view.numbers.id_of(number),
                score,
                NEW if source == VECTOR and new else source,
                [],
            )
            for number, score, source, new in zip(
                numbers.tolist(),
                ranked.scores.tolist(),
                ranked.sources,
                young.tolist(),
                strict=True,
            )
        ]

    def _unknown(self, item_ids: Iterable[str], serving: Serving | None) -> list[str]:
        """Those ids that neither the generation nor the stream's counts know, each once."""
        view = self._view
        unknown: list[str] = []
        for item_id in dict.fromkeys(item_ids):
            number = view.numbers.get(item_id)
            if number is not None:
                if view.next_lists.has(number):
                    continue
                if serving is not None and serving.knows(number):
                    continue
            unknown.append(item_id)
        return unknown


class _Filter:
    """The rules of one query, applied to each source's candidates before its depth is cut."""

    def __init__(self, view: LiveView, category: str | None, excluded_ids: Sequence[str]) -> None:
        numbers = map(view.numbers.get, excluded_ids)
        self._excluded = np.array([number for number in numbers if number is not None], np.int64)
        self._available = view.catalogue.available
        self._categories = view.catalogue.categories
        self._trend = view.trend
        self._category: int | None = None
        self._of_category: Int64s | None = None
        if category is not None:
            self._category = view.catalogue.category_code(category)
            if self._category is None:
                self._category = -2  # a category that no item has
            self._of_category = np.flatnonzero(self._categories == self._category)

    def mask(self, numbers: Int64s) -> npt.NDArray[np.bool_]:
        return allowed(
            numbers,
            excluded=self._excluded,
            available=self._available,
            categories=self._categories,
            category=self._category,
        )

    def only(self, numbers: Int64s) -> Int64s:
        kept: Int64s = numbers[self.mask(numbers)]
        return kept

    def nearest(self, serving: Serving, vector: Float32s, depth: int) -> Int64s:
        """The ``depth`` allowed items of the generation nearest to ``vector``.

        In a category exactly, at a cost that grows with it; else by the index, deeper again as
        long as the rules leave too few.
        """
        if self._of_category is not None:
            numbers = self.only(self._of_category)
            numbers = numbers[serving.rows(numbers) >= 0]
            order = np.argsort(-serving.products(vector, numbers), kind="stable")
            return numbers[order[:depth]]
        fetch = depth + len(self._excluded)
        while True:
            numbers = self.only(serving.nearest(vector, fetch))
            if len(numbers) >= depth or fetch >= serving.index.most_k:
                return numbers[:depth]
            fetch *= OVER_FETCH

    def trend(self, depth: int) -> Int64s:
        """The ``depth`` allowed items with the highest trend."""
        if self._of_category is not None:
            return self._trend.top_of(self.only(self._of_category), depth)
        fetch = depth + len(self._excluded)
        found = self._trend.top(fetch)
        numbers = self.only(found)
        if len(numbers) >= depth or len(found) < min(fetch, TREND_MOST):
            return numbers[:depth]
        return self._trend.top_of(self.only(self._trend.everything()), depth)


def _vector_scores(
    serving: Serving, vector: Float32s, user_vector: Float32s | None, candidates: Int64s
) -> Float64s:
    """The vector layer's scores (n,): inner products, or the ranker's where there is one.

    A ranker cannot tell items that the generation does not know: NaN.
    """
    ranker = serving.generation.ranker
    rows = serving.rows(candidates)
    known = rows >= 0
    if ranker is None or user_vector is None or not known.any():
        return serving.products(vector, candidates)
    scores = np.full(len(candidates), np.nan)
    scores[known] = ranker.score(user_vector, rows[known])
    return scores
