"""One query: candidates of every source, fused into a list. Reads the live view and one Serving.

Nothing here waits, but for the search of an index that says so (``Index.waits``).
"""

from collections.abc import Callable, Sequence
from itertools import compress
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from indexer.candidates import (
    TREND_MOST,
    NextScores,
    OwnScores,
    best,
    own_scores,
    recent_items,
)
from indexer.explanation import Reason, explain
from indexer.live_view import LiveView
from indexer.ranking import (
    HISTORY,
    ITEM_WEIGHTS,
    NEW,
    NEXT,
    SOURCES,
    TREND,
    VECTOR,
    Facts,
    Layer,
    Ranked,
    allowed,
    blended,
    fuse,
    union,
)
from indexer.serving import Serving
from rheos.blend import Blend
from rheos.generation import Generation
from rheos.settings import Settings
from rheos.state import Float32s, Float64s, History, Int64s

NEXT_LAYERS = ("near", "far")

OVER_FETCH = 4  # a search whose answers were mostly filtered is repeated that much deeper
NEW_DEPTH, MOST_NEW_DEPTH = 100, 1_600
"""So many items that the generation does not know are candidates; where most are filtered, so many
are looked at: all of a catalogue's discontinued ones may be new to the model."""


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


class Gathered(NamedTuple):
    """What an answer is made of: candidates (n,), item numbers that ascend, and their layers.

    ``recent`` are the history's items that next-lists were taken of, newest first; ``taken`` the
    numbers of all of its items, -1 for those that have none.
    """

    candidates: Int64s
    layers: list[Layer]
    recent: list[str]
    taken: Int64s


def layer_names(generation: Generation) -> list[str]:
    """The layers that ``gather`` may give with ``every_layer``."""
    ranker = [] if generation.ranker is None else ["ranker"]
    item_weights = [] if generation.item_weights is None else ["item_weights"]
    return ["vector", *ranker, *item_weights, *NEXT_LAYERS, "own", "trend"]


class Retrieval:
    """Recommends from what ``view`` says now and one generation, or none before the first."""

    def __init__(self, settings: Settings, view: LiveView) -> None:
        self._retrieval = settings.retrieval
        self._weights = settings.retrieval.weights()
        self._gap_ms = settings.history.session_gap_s * 1000
        self._view = view

    def recommend(
        self,
        wish: Wish,
        history: History,
        serving: Serving | None,
        user_vector: Float32s | None,
    ) -> Choice:
        """The list for a history. ``user_vector`` (dimensions,) is of ``serving``'s generation.

        A generation's blend ranks it, unless the asker takes some of the sources only.
        """
        generation = None if serving is None else serving.generation
        blend = None
        if generation is not None and wish.sources.issuperset(SOURCES):
            blend = generation.blend
        gathered = self.gather(wish, history, serving, user_vector, every_layer=blend is not None)
        if blend is None:
            ranked = self._fused(gathered.layers, gathered.candidates, wish.k)
        else:
            ranked = self.blended(gathered, history, blend, wish.k)
        items = self._chosen(ranked, gathered.candidates, serving)
        if wish.explain:
            reasons = explain(
                [item.item_id for item in items],
                history=history,
                recent=gathered.recent,
                generation=generation,
                next_lists=self._view.next_lists,
            )
            items = [item._replace(because=why) for item, why in zip(items, reasons, strict=True)]
        known = self._known(gathered.taken, serving)
        ignored = [] if known.all() else list(compress(history.item_ids, (~known).tolist()))
        return Choice(items, list(dict.fromkeys(ignored)))

    def gather(
        self,
        wish: Wish,
        history: History,
        serving: Serving | None,
        user_vector: Float32s | None,
        *,
        every_layer: bool,
    ) -> Gathered:
        """The candidates of a history and what each layer thinks of them.

        ``every_layer``, as blends read them: also those to which the settings give no weight, and
        the inner products beside the ranker's scores.
        """
        settings, view = self._retrieval, self._view
        recent = recent_items(history, self._gap_ms)
        following: NextScores | None = None
        if NEXT in wish.sources:
            following = view.next_lists.scores(recent)
        # After the lists were read, which gives numbers to items that only they name; and the count
        # before the ids: an item that gets its number in between is left out, not let in unseen.
        count = len(view.numbers)
        taken = self._numbered(history.item_ids)
        seen = taken if settings.leave_out_seen else taken[:0]
        left_out = np.concatenate([seen, self._numbered(wish.exclude)])
        filter_ = _Filter(view, wish.category, count, left_out)
        parts: list[Int64s] = []
        vector = None
        if serving is not None and user_vector is not None and user_vector.any():
            vector = user_vector[: serving.generation.dimensions]
            depth = max(settings.vector_depth, wish.k)
            if VECTOR in wish.sources:
                parts.append(filter_.nearest(serving, vector, depth))
            if NEW in wish.sources:
                parts.append(filter_.nearest_new(serving, vector))
        together = None
        if serving is not None and ITEM_WEIGHTS in wish.sources:
            together = serving.item_scores(history)
        if serving is not None and together is not None:
            depth = max(settings.item_weights_depth, wish.k)
            numbers = filter_.only(serving.numbers_of_rows[together.rows])
            parts.append(best(numbers, together.of(serving.rows(numbers)), depth))
        if following is not None:
            depth = max(settings.next_depth, wish.k)
            numbers = filter_.only(following.numbers)
            for name, scores in zip(NEXT_LAYERS, following.of(numbers), strict=True):
                if every_layer or self._weights[name] > 0:
                    parts.append(best(numbers, scores, depth))
        own: OwnScores | None = None
        if HISTORY in wish.sources and not settings.leave_out_seen:
            own = own_scores(taken, history.weights)
            parts.append(filter_.only(own.numbers))
        if TREND in wish.sources:
            parts.append(filter_.trend(max(settings.trend_depth, wish.k)))
        candidates = union(parts)

        layers: list[Layer] = []

        def add(name: str, source: str, scores: Float64s) -> None:
            layers.append(Layer(name, source, self._weights[name], scores))

        if serving is not None and vector is not None and wish.sources & {VECTOR, NEW}:
            told = _vector_scores(serving, vector, user_vector, candidates)
            if not every_layer:  # the last word alone: the ranker's, where there is one
                told = dict([told.popitem()])
            for name, scores in told.items():
                add(name, VECTOR, scores)
        if serving is not None and together is not None:
            add("item_weights", ITEM_WEIGHTS, together.of(serving.rows(candidates)))
        if following is not None and len(following.numbers):
            for name, scores in zip(NEXT_LAYERS, following.of(candidates), strict=True):
                if every_layer or self._weights[name] > 0:
                    add(name, NEXT, scores)
        if own is not None and len(own.numbers):
            add("own", HISTORY, own.of(candidates))
        if TREND in wish.sources:
            add("trend", TREND, view.trend.scores(candidates))
        return Gathered(candidates, layers, recent, taken)

    def blended(self, gathered: Gathered, history: History, blend: Blend, k: int) -> Ranked:
        """The ``k`` best of gathered candidates by a blend."""
        facts, id_of_place = self.facts(gathered, history), self._id_of(gathered.candidates)
        return blended(gathered.layers, facts, blend, k, id_of_place)

    def facts(self, gathered: Gathered, history: History) -> Facts:
        """What a blend may know of gathered candidates beside the layers."""
        view, candidates = self._view, gathered.candidates
        paid = view.catalogue.prices_of(self._numbered(gathered.recent))
        paid = paid[paid > 0]
        times_ms = history.times_ms
        gaps = np.flatnonzero(np.diff(times_ms) > self._gap_ms)
        return Facts(
            counts=view.next_lists.interactions(candidates),
            trend=view.trend.scores(candidates),
            prices=view.catalogue.prices_of(candidates),
            usual_price=float(np.exp(np.log(paid).mean())) if len(paid) else np.nan,
            session=len(times_ms) - (int(gaps[-1]) + 1 if len(gaps) else 0),
            history=len(times_ms),
            idle_s=(view.now_ms() - int(times_ms[-1])) / 1000 if len(times_ms) else np.nan,
        )

    def similar(self, wish: Wish, item_id: str, serving: Serving | None) -> list[Chosen]:
        """Items like one: near it in vector space (cosine) and in what is taken near it.

        As deep as recommendations: inner products prefer long vectors, of which cosine then picks;
        and z-scores of as many candidates for any ``k`` are the same.
        """
        view, settings = self._view, self._retrieval
        following = view.next_lists.scores([item_id] if NEXT in wish.sources else [])
        count = len(view.numbers)
        filter_ = _Filter(view, wish.category, count, self._numbered([item_id, *wish.exclude]))
        number = view.numbers.get(item_id)
        parts: list[Int64s] = []
        vector = None
        if serving is not None and number is not None and VECTOR in wish.sources:
            vector = serving.vector_of(number)
            if vector is not None and vector.any():
                depth = max(settings.vector_depth, wish.k)
                parts.append(filter_.nearest(serving, vector, depth))
                parts.append(filter_.nearest_new(serving, vector))
        numbers = filter_.only(following.numbers)
        parts.append(best(numbers, following.of(numbers)[1], max(settings.next_depth, wish.k)))
        candidates = union(parts)
        layers: list[Layer] = []
        if serving is not None and vector is not None:
            layers.append(Layer("cosine", VECTOR, 1.0, serving.cosines(vector, candidates)))
        if len(following.numbers):
            layers.append(Layer("far", NEXT, 1.0, following.of(candidates)[1]))
        return self._chosen(self._fused(layers, candidates, wish.k), candidates, serving)

    def knows(self, item_id: str, serving: Serving | None) -> bool:
        """Whether a catalogue, a state or the generation holds the item."""
        if self._view.catalogue.item(item_id) is not None:
            return True
        return bool(self._known(self._numbered([item_id]), serving)[0])

    def _fused(self, layers: Sequence[Layer], candidates: Int64s, k: int) -> Ranked:
        view = self._view
        if len(layers) == 1 and layers[0].source != VECTOR and len(candidates):
            # Counts are told from a landmark of their own: shares of the best say more.
            alone = layers[0]
            layers = [alone._replace(scores=alone.scores / max(alone.scores.max(), 1e-300))]
        popularity = view.next_lists.interactions(candidates)
        return fuse(layers, popularity, k, self._id_of(candidates))

    def _id_of(self, candidates: Int64s) -> Callable[[int], str]:
        """Gives the id of a candidate by its place."""
        return lambda place: self._view.numbers.id_of(int(candidates[place]))

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

    def _numbered(self, item_ids: Sequence[str]) -> Int64s:
        """The numbers (n,) of ids; -1 for those that have none."""
        numbers = map(self._view.numbers.get, item_ids)
        return np.array([-1 if number is None else number for number in numbers], np.int64)

    def _known(self, numbers: Int64s, serving: Serving | None) -> npt.NDArray[np.bool_]:
        """Which of ``numbers`` (n,) the stream's counts or the generation know."""
        known = self._view.next_lists.interactions(numbers) > 0
        if serving is not None:
            known |= serving.rows(numbers) >= 0
        return known


class _Filter:
    """The rules of one query, applied to each source's candidates before its depth is cut."""

    def __init__(self, view: LiveView, category: str | None, count: int, excluded: Int64s) -> None:
        self._trend = view.trend
        self._excluded = len(excluded)
        code = None
        if category is not None:
            known = view.catalogue.category_code(category)
            code = -2 if known is None else known  # a category that no item has
        self._allowed = allowed(
            count,
            excluded=excluded,
            available=view.catalogue.available,
            categories=view.catalogue.categories,
            category=code,
        )
        self._of_category = None if code is None else np.flatnonzero(self._allowed)

    def only(self, numbers: Int64s) -> Int64s:
        """Those of ``numbers`` (n,) that the rules allow, in their order."""
        # An item numbered since this query began is left for the next one.
        numbers = numbers[numbers < len(self._allowed)]
        kept: Int64s = numbers[self._allowed[numbers]]
        return kept

    def nearest(self, serving: Serving, vector: Float32s, depth: int) -> Int64s:
        """The ``depth`` allowed items of the generation nearest to ``vector``.

        In a category exactly, at a cost that grows with it; else by the index, deeper again as
        long as the rules leave too few.
        """
        if self._of_category is not None:
            numbers = self._of_category[serving.rows(self._of_category) >= 0]
            order = np.argsort(-serving.products(vector, numbers), kind="stable")
            return numbers[order[:depth]]
        fetch = depth + self._excluded
        while True:
            numbers = self.only(serving.nearest(vector, fetch))
            if len(numbers) >= depth or fetch >= serving.index.most_k:
                return numbers[:depth]
            fetch *= OVER_FETCH

    def nearest_new(self, serving: Serving, vector: Float32s) -> Int64s:
        """The NEW_DEPTH allowed items nearest to ``vector`` of those that only its delta has.

        Exactly where the category leaves few; else deeper again, as far as MOST_NEW_DEPTH.
        """
        if self._of_category is not None:
            numbers = self._of_category[serving.rows(self._of_category) < 0]
            if len(numbers) * MOST_NEW_DEPTH < len(serving.delta) * NEW_DEPTH:
                products = serving.products(vector, numbers)
                numbers, products = numbers[~np.isnan(products)], products[~np.isnan(products)]
                return numbers[np.argsort(-products, kind="stable")[:NEW_DEPTH]]
        fetch = NEW_DEPTH
        while True:
            numbers = self.only(serving.nearest_new(vector, fetch))
            if len(numbers) >= NEW_DEPTH or fetch >= min(len(serving.delta), MOST_NEW_DEPTH):
                return numbers[:NEW_DEPTH]
            fetch *= OVER_FETCH

    def trend(self, depth: int) -> Int64s:
        """The ``depth`` allowed items with the highest trend."""
        if self._of_category is not None:
            return self._trend.top_of(self._of_category, depth)
        fetch = depth + self._excluded
        found = self._trend.top(fetch)
        numbers = self.only(found)
        if len(numbers) >= depth or len(found) < min(fetch, TREND_MOST):
            return numbers[:depth]
        return self._trend.top_of(self.only(self._trend.everything()), depth)


def _vector_scores(
    serving: Serving, vector: Float32s, user_vector: Float32s | None, candidates: Int64s
) -> dict[str, Float64s]:
    """Scores (n,) by layer: ``vector``, the inner products, and ``ranker``, where there is one.

    A ranker cannot tell items that the generation does not know: such an item gets the ranker's
    score at its own rank among the inner products.
    """
    products = serving.products(vector, candidates)
    ranker = serving.generation.ranker
    rows = serving.rows(candidates)
    known = rows >= 0
    if ranker is None or user_vector is None or not known.any():
        return {"vector": products}
    scores = np.full(len(candidates), np.nan)
    scores[known] = ranker.score(user_vector, rows[known])
    young = ~known & ~np.isnan(products)
    if young.any():
        rank = np.searchsorted(np.sort(products[known]), products[young])
        ascending = np.sort(scores[known])
        scores[young] = ascending[np.minimum(rank, len(ascending) - 1)]
    return {"vector": products, "ranker": scores}
