"""Candidates from what the stream counts: the next-lists of a history's items, and the trend.

Pure: item states in, item numbers and scores out; no clock, no I/O. Sums are forward-decayed, so
a common factor of all scores says when "now" is: scores here are relative, and ranking takes
z-scores of them.
"""

import threading
from collections import OrderedDict
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from indexer.item_numbers import ItemNumbers
from indexer.leaders import Leaders
from rheos import decay
from rheos.settings import Settings
from rheos.state import Float32s, Float64s, History, Int64s, ItemState, decode_item_state

# Which items of a history speak for its next one: those of the session once it has a few, else the
# last ones. After 40 steps a far score has 3 % of its weight left.
SESSION_LEAST, SESSION_MOST, OTHERWISE = 5, 40, 10

NEAR_HALF_STEPS = 2.0
OWN_HALF_STEPS = 1.0  # interactions after which what an own item earns has halved
OWN_FLOOR = 0.05  # of it stays: what is taken again and again, if rarely
TREND_MOST = 1024  # items of the trend that are kept in order
SMOOTHING = 5.0  # interactions added to an item's own: rare neighbours count less


def recent_items(history: History, session_gap_ms: int) -> list[str]:
    """The items of a history that next-lists are taken of, newest first, each once.

    Those turned down (weight not above 0) are passed over.
    """
    session: list[str] = []
    before: list[str] = []
    met: set[str] = set()
    times, weights = history.times_ms.tolist(), history.weights.tolist()
    inside = True
    for place in range(len(history.item_ids) - 1, -1, -1):
        if place + 1 < len(times) and times[place + 1] - times[place] > session_gap_ms:
            inside = False
        count = len(session) + len(before)
        if count >= (SESSION_MOST if inside else OTHERWISE):
            break
        if not inside and len(session) >= SESSION_LEAST:
            break
        item = history.item_ids[place]
        if weights[place] > 0 and item not in met:
            met.add(item)
            (session if inside else before).append(item)
    return session + before


class OwnScores(NamedTuple):
    """Scores (n,) of a history's own items ``numbers`` (n,), which ascend."""

    numbers: Int64s
    scores: Float64s

    def of(self, wanted: Int64s) -> Float64s:
        """Scores of any items; 0 for those that are none of the history's."""
        return _looked_up(self.numbers, self.scores, wanted)


def own_scores(taken: Int64s, weights: Float32s) -> OwnScores:
    """What the items of a history earn where one may be taken again; all arrays (n,), oldest first.

    score(x) = Σ 2^(-age / OWN_HALF_STEPS) + OWN_FLOOR over the interactions with x, the newest of
    all having age 0. ``taken`` are the items' numbers, -1 for none. Items that were turned down (a
    weight not above 0) at their latest are left out.
    """
    taken, weights = taken[::-1], weights[::-1]
    ages = np.arange(len(taken))
    earned = np.where(weights > 0, 0.5 ** (ages / OWN_HALF_STEPS) + OWN_FLOOR, 0.0)
    numbers, latest, places = np.unique(taken, return_index=True, return_inverse=True)
    kept = (numbers >= 0) & (weights[latest] > 0)
    return OwnScores(numbers[kept], _summed(places, earned, len(numbers))[kept])


class NextScores(NamedTuple):
    """Near and far scores (n,) of the items ``numbers`` (n,), which ascend."""

    numbers: Int64s
    near: Float64s
    far: Float64s

    def of(self, wanted: Int64s) -> tuple[Float64s, Float64s]:
        """Near and far scores of any items; 0 for those that stand in no list."""
        return (
            _looked_up(self.numbers, self.near, wanted),
            _looked_up(self.numbers, self.far, wanted),
        )


class _Table(NamedTuple):
    """An item's neighbours, normalised by the item itself: (m,) each."""

    numbers: Int64s
    near: Float64s
    far: Float64s
    epoch: int


class NextLists:
    """What is taken near each item. States are kept encoded and decoded when a query reads them.

    One thread puts, any number reads. ``cached_tables`` bounds the decoded ones: a table of 100
    neighbours takes 2.6 kB.
    """

    def __init__(
        self, settings: Settings, numbers: ItemNumbers, cached_tables: int = 20_000
    ) -> None:
        self._numbers = numbers
        self._far_half_steps = settings.transitions.far_half_steps
        self._far_damping = settings.retrieval.far_damping
        self._near_weight = settings.retrieval.near_weight
        self._far_weight = settings.retrieval.far_weight
        self._states: dict[int, bytes | ItemState] = {}
        self._interactions = np.zeros(1024)
        self._tables: OrderedDict[int, _Table] = OrderedDict()
        self._cached_tables = cached_tables
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return len(self._states)

    def put(self, number: int, state: ItemState | bytes, interactions: int) -> None:
        """Takes an item's state, whole or encoded; ``interactions`` is the state's."""
        if number >= len(self._interactions):
            grown = np.zeros(max(2 * len(self._interactions), number + 1))
            grown[: len(self._interactions)] = self._interactions
            self._interactions = grown
        self._interactions[number] = interactions
        with self._lock:  # a reader must not put an older table back into the cache
            self._states[number] = state
            self._tables.pop(number, None)

    def remove(self, number: int) -> None:
        if number < len(self._interactions):
            self._interactions[number] = 0.0
        with self._lock:
            self._states.pop(number, None)
            self._tables.pop(number, None)

    def interactions(self, wanted: Int64s) -> Float64s:
        """How often each of ``wanted`` (n,) was taken; 0 for those without a state."""
        return _taken(self._interactions, wanted)

    def scores(self, newest_first: Sequence[str]) -> NextScores:
        """Scores of all neighbours of some items. With d = 0 for the newest:

        near(x) = Σ_d 2^(-d/2) near[y_d][x] / √(n_y + 5)
        far(x) = Σ_d 2^(-d/far_half_steps) far[y_d][x] / (√(n_y + 5) (n_x + 5)^far_damping)
        """
        found = self._found(newest_first)
        if found is None:
            return NextScores(np.zeros(0, np.int64), np.zeros(0), np.zeros(0))
        numbers, inverse = np.unique(found.numbers, return_inverse=True)
        popular = (self.interactions(numbers) + SMOOTHING) ** self._far_damping
        return NextScores(
            numbers,
            _summed(inverse, found.near, len(numbers)),
            _summed(inverse, found.far, len(numbers)) / popular,
        )

    def terms(
        self, newest_first: Sequence[str], item_ids: Sequence[str]
    ) -> list[list[tuple[str, float]]]:
        """Per item of ``item_ids``: what each of some items adds to its near and far scores.

        Weighed as ranking weighs these.
        """
        terms: list[list[tuple[str, float]]] = [[] for _ in item_ids]
        found = self._found(newest_first)
        if found is None:
            return terms
        terms_of = {
            self._numbers.get(item): mine for item, mine in zip(item_ids, terms, strict=True)
        }
        terms_of.pop(None, None)
        wanted = np.fromiter(terms_of, np.int64)
        popular = (self.interactions(found.numbers) + SMOOTHING) ** self._far_damping
        added = self._near_weight * found.near + self._far_weight * found.far / popular
        for place in np.flatnonzero(np.isin(found.numbers, wanted)):
            term = (newest_first[found.distances[place]], float(added[place]))
            terms_of[int(found.numbers[place])].append(term)
        return terms

    def neighbours(self, number: int) -> tuple[Int64s, Float64s]:
        """An item's neighbours and how near each is: near and far counts added up, (m,) each."""
        table = self._table(number)
        if table is None:
            return np.zeros(0, np.int64), np.zeros(0)
        return table.numbers, table.near + table.far

    def _found(self, newest_first: Sequence[str]) -> "_Found | None":
        """The tables of some items, one after the other, weighed by distance from the newest."""
        distances, tables = [], []
        for distance, item_id in enumerate(newest_first):
            number = self._numbers.get(item_id)
            table = None if number is None else self._table(number)
            if table is not None:
                distances.append(distance)
                tables.append(table)
        if not tables:
            return None
        epochs = np.array([table.epoch for table in tables])
        scales = decay.shift(epochs.max() - epochs)
        steps = np.array(distances)
        lengths = [len(table.numbers) for table in tables]
        near = np.concatenate([table.near for table in tables])
        far = np.concatenate([table.far for table in tables])
        return _Found(
            np.concatenate([table.numbers for table in tables]),
            near * np.repeat(scales * 0.5 ** (steps / NEAR_HALF_STEPS), lengths),
            far * np.repeat(scales * 0.5 ** (steps / self._far_half_steps), lengths),
            np.repeat(steps, lengths),
        )

    def _table(self, number: int) -> _Table | None:
        with self._lock:
            table = self._tables.get(number)
            if table is not None:
                self._tables.move_to_end(number)
                return table
            state = self._states.get(number)
        if state is None:
            return None
        decoded = decode_item_state(state) if isinstance(state, bytes) else state
        own = np.sqrt(decoded.interactions + SMOOTHING)
        table = _Table(
            self._numbers.add_all(decoded.neighbour_ids),
            np.frombuffer(decoded.near, "<f8") / own,
            np.frombuffer(decoded.far, "<f8") / own,
            decoded.neighbour_epoch,
        )
        with self._lock:
            if self._states.get(number) is state:
                self._tables[number] = table
                if len(self._tables) > self._cached_tables:
                    self._tables.popitem(last=False)
        return table


class _Found(NamedTuple):
    """Neighbours of several items (m,); an item may stand in several tables."""

    numbers: Int64s
    near: Float64s
    far: Float64s
    distances: Int64s


def _taken(values: Float64s, places: Int64s) -> Float64s:
    """``values`` at ``places`` (n,); 0 beyond their ends."""
    inside = (places >= 0) & (places < len(values))
    if inside.all():
        return values[places]
    return np.where(inside, values[np.where(inside, places, 0)], 0.0)


def _looked_up(numbers: Int64s, values: Float64s, wanted: Int64s) -> Float64s:
    """``values`` (n,) of ``numbers`` (n,), which ascend, for any that are ``wanted``; else 0."""
    if not len(numbers):
        return np.zeros(len(wanted))
    place = np.minimum(np.searchsorted(numbers, wanted), len(numbers) - 1)
    found: Float64s = np.where(numbers[place] == wanted, values[place], 0.0)
    return found


def _summed(groups: Int64s, values: Float64s, count: int) -> Float64s:
    return np.bincount(groups, values, count).astype(np.float64, copy=False)


class Trend:
    """Decayed popularity at the half-life that is served. One thread puts, any number reads."""

    def __init__(self, settings: Settings) -> None:
        self._which = settings.trend.serve_half_life
        self._scores = np.zeros(1024)
        self._epoch = 0
        self._leaders: Leaders[int] = Leaders(TREND_MOST, lambda: enumerate(self._scores.tolist()))

    def put(self, number: int, epochs: bytes, popularity: bytes) -> None:
        """Takes the popularity of an item's state, one sum and one epoch per half-life."""
        if number >= len(self._scores):
            grown = np.zeros(max(2 * len(self._scores), number + 1))
            grown[: len(self._scores)] = self._scores
            self._scores = grown
        epoch = int(np.frombuffer(epochs, "<i8")[self._which])
        if epoch > self._epoch:
            moved = float(decay.shift(epoch - self._epoch))
            self._scores = self._scores * moved
            self._leaders.scale(moved)
            self._epoch = epoch
        sum_then = float(np.frombuffer(popularity, "<f8")[self._which])
        score = sum_then * float(decay.shift(self._epoch - epoch))
        self._scores[number] = score
        self._leaders.put(number, score)

    def remove(self, number: int) -> None:
        if number < len(self._scores):
            self._scores[number] = 0.0
            self._leaders.put(number, 0.0)

    def scores(self, wanted: Int64s) -> Float64s:
        """Scores (n,) of the items ``wanted`` (n,); 0 for those that were never taken."""
        return _taken(self._scores, wanted)

    def top(self, depth: int) -> Int64s:
        """The numbers of the items with the highest scores above 0, best first.

        As many as ``depth`` or TREND_MOST, whichever is less.
        """
        return np.array(self._leaders.top(depth), np.int64)

    def everything(self) -> Int64s:
        """All numbers that may have a score."""
        return np.arange(len(self._scores))

    def top_of(self, numbers: Int64s, depth: int) -> Int64s:
        """The same among ``numbers`` only, at a cost that grows with them."""
        return best(numbers, self.scores(numbers), depth)


def best(numbers: Int64s, scores: Float64s, depth: int) -> Int64s:
    """The ``depth`` of ``numbers`` with the highest scores above 0, best first.

    Equal scores at the edge are settled by the smaller place in the arrays.
    """
    if len(scores) > depth:
        edge = np.partition(scores, len(scores) - depth)[len(scores) - depth]
        above = np.flatnonzero(scores > edge)
        equal = np.flatnonzero(scores == edge)[: depth - len(above)]
        places = np.concatenate([above, equal])
    else:
        places = np.arange(len(scores))
    places = places[scores[places] > 0]
    order = np.lexsort((places, -scores[places]))
    chosen: Int64s = numbers[places[order]]
    return chosen
