"""The delta: vectors of items that the generation does not know yet, searchable at once.

Mutable and exact, beside the immutable index. What is many and stays as it is moves into an index
of its own, which is exact too: FAISS compares 200,000 items in half of the time that NumPy takes
(benchmarks/new_items.py).
"""

import threading
import weakref
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from indexer.candidates import SMOOTHING, NextLists
from indexer.index import Index
from indexer.item_numbers import ItemNumbers
from indexer.live_catalogue import LiveCatalogue
from rheos.catalogue import Item, decode_item
from rheos.generation import Generation
from rheos.state import Float32s, Float64s, Int64s

AT_ONCE = 64
"""Items derived at once. Between two parts another thread has its turn: a change of one item does
not wait for the whole catalogue."""

LEAST_SETTLED = 4_000
"""So many items are scanned in 0.1 ms (d = 64): fewer are worth no index."""
MOST_SCANNED = 0.25
"""Share of the settled items that may be scanned before all are settled again: each item then
stands in a few builds at most, however many come."""


@dataclass(frozen=True, eq=False)
class _Settled:
    """Items that stand in an index, by its rows: numbers (n,), vectors (n, d)."""

    numbers: Int64s
    vectors: Float32s
    index: Index


class Delta:
    """Vectors derived from content or neighbours, for one generation. Safe from any thread.

    An item whose record tells the generation's content encoder anything has its vector from there,
    from the first record on. Any other has it from its neighbours, as soon as it has some:

    v_x = Σ_y w_xy v_y / Σ_y w_xy over the neighbours y of x that the generation knows, with
    w_xy = (near_xy + far_xy) / √(n_y + 5): what is taken near everything says little.
    ``row_of_number`` gives a known item's row by its number, -1 otherwise.

    A vector that changes after it was settled is scanned again, and its row of the index passed
    over.
    """

    def __init__(
        self,
        generation: Generation,
        row_of_number: Int64s,
        numbers: ItemNumbers,
        next_lists: NextLists,
        catalogue: LiveCatalogue,
    ) -> None:
        self._content = generation.content
        self._vectors_of = generation.item_vectors
        self._row_of_number = row_of_number
        self._id_of = numbers.id_of
        self._next_lists = next_lists
        self._catalogue = catalogue
        self._lock = threading.Lock()
        self._deriving = threading.Lock()
        self._settling = threading.Lock()
        self._record_of: dict[int, bytes] = {}  # what a vector was derived from, while it is so
        # The scanned part: by place. An item that stands here counts, wherever else it stands.
        self._place_of = _Places()
        self._count = 0
        self._numbers = np.zeros(16, np.int64)
        self._vectors = np.zeros((16, generation.dimensions), np.float32)
        # The settled part: by row. ``_outdated`` of its items are scanned, with newer vectors.
        self._settled: _Settled | None = None
        self._row_of = _Places()
        self._outdated = 0
        self._put_since: set[int] | None = None  # while an index is built

    def __len__(self) -> int:
        with self._lock:
            return self._count + self._settled_count() - self._outdated

    @property
    def scanned(self) -> int:
        """How many items a search compares one by one."""
        return self._count

    def refresh(self, numbers: Iterable[int]) -> None:
        """Derives the vectors of those of ``numbers`` that the generation does not know, again."""
        known = len(self._row_of_number)
        new = [number for number in numbers if number >= known or self._row_of_number[number] < 0]
        for start in range(0, len(new), AT_ONCE):
            with self._deriving:  # what is read last is put last
                self._refresh(new[start : start + AT_ONCE])

    def nearest(self, query: Float32s, depth: int) -> Int64s:
        """Numbers of the ``depth`` items with the highest inner products with ``query`` (d,), best
        first. A few less where rows of the index are outdated.
        """
        settled, known, known_scores = self._nearest_settled(query, depth)
        with self._lock:
            while self._settled is not settled:  # an index was made meanwhile, of some scanned ones
                settled, known, known_scores = self._nearest_settled(query, depth)
            fresh = self._place_of.of(known) < 0
            numbers = self._numbers[: self._count].copy()
            scores = (self._vectors[: self._count] @ query).astype(np.float64)
        if settled is not None and 0 < len(known) < len(settled.numbers):
            # Below what was fetched there may be better rows than what is scanned.
            above = scores >= known_scores[-1]
            numbers, scores = numbers[above], scores[above]
        numbers = np.concatenate([known[fresh], numbers])
        scores = np.concatenate([known_scores[fresh], scores])
        if len(numbers) > depth:
            best = np.argpartition(-scores, depth)[:depth]
            numbers, scores = numbers[best], scores[best]
        order = np.argsort(-scores, kind="stable")
        nearest: Int64s = numbers[order]
        return nearest

    def products(self, query: Float32s, wanted: Int64s) -> Float64s:
        """Inner products (n,) of ``query`` (d,) with the items ``wanted`` (n,); NaN for those that
        do not stand here.
        """
        out = np.full(len(wanted), np.nan)
        with self._lock:
            if self._settled is not None:
                rows = self._row_of.of(wanted)
                out[rows >= 0] = self._settled.vectors[rows[rows >= 0]] @ query
            places = self._place_of.of(wanted)
            out[places >= 0] = self._vectors[places[places >= 0]] @ query
        return out

    def vector(self, number: int) -> Float32s | None:
        """The derived vector (d,) of an item, or None if it does not stand here."""
        with self._lock:
            return self._vector(number)

    def settle(self) -> bool:
        """Moves what is scanned into the index, where that is much; says whether it did.

        Blocks while the index is built; derivations and searches go on meanwhile. Raises
        BrokenIndexError, MemoryError: all then stays as it is.
        """
        with self._settling:
            if self._count < max(LEAST_SETTLED, MOST_SCANNED * self._settled_count()):
                return False
            with self._lock:
                numbers = self._numbers[: self._count].copy()
                vectors = self._vectors[: self._count].copy()
                if self._settled is not None:
                    kept = self._place_of.of(self._settled.numbers) < 0
                    numbers = np.concatenate([self._settled.numbers[kept], numbers])
                    vectors = np.concatenate([self._settled.vectors[kept], vectors])
                self._put_since = set()
            try:
                settled = _Settled(numbers, vectors, Index(vectors, "flat"))
                # With the last query that searches it: only a thread frees a GPU's memory.
                weakref.finalize(settled, settled.index.close)
                settled.index.check(vectors)
            except BaseException:
                self._put_since = None
                raise
            with self._lock:
                left = np.array(sorted(self._put_since), np.int64)
                self._put_since = None
                self._vectors = self._vectors[self._place_of.of(left)]
                self._numbers, self._count = left, len(left)
                self._place_of = _Places(left)
                self._settled, self._row_of = settled, _Places(numbers)
                self._outdated = int((self._row_of.of(left) >= 0).sum())
        return True

    def _nearest_settled(
        self, query: Float32s, depth: int
    ) -> tuple[_Settled | None, Int64s, Float64s]:
        """What is settled, and of it the ``depth`` nearest, best first: numbers (m,), scores."""
        settled = self._settled
        if settled is None:
            return None, np.zeros(0, np.int64), np.zeros(0)
        scores, rows = settled.index.search(query[None, :], depth)
        found = rows[0] >= 0
        return settled, settled.numbers[rows[0][found]], scores[0][found].astype(np.float64)

    def _settled_count(self) -> int:
        return 0 if self._settled is None else len(self._settled.numbers)

    def _refresh(self, new: Sequence[int]) -> None:
        left = new if self._content is None else self._of_content(new)
        for number in left:
            vector = self._of_neighbours(number)
            if vector is not None:
                self._put(number, vector)

    def _of_content(self, new: Sequence[int]) -> list[int]:
        """Puts those of ``new`` that content tells something of, and returns the others."""
        assert self._content is not None
        left: list[int] = []
        changed: list[tuple[int, bytes, Item]] = []
        for number in new:
            record = self._catalogue.item_record(self._id_of(number))
            if record is not None and self._record_of.get(number) is record:
                continue
            self._record_of.pop(number, None)
            item = None if record is None else decode_item(record)
            if record is None or item is None or item.deleted:
                left.append(number)
            else:
                changed.append((number, record, item))
        vectors = self._content.encode([item for _, _, item in changed])
        for (number, record, _), vector in zip(changed, vectors, strict=True):
            if vector.any():
                self._record_of[number] = record
                self._put(number, vector)
            else:
                left.append(number)
        return left

    def _of_neighbours(self, number: int) -> Float32s | None:
        neighbours, weights = self._next_lists.neighbours(number)
        inside = neighbours < len(self._row_of_number)
        rows = np.full(len(neighbours), -1)
        rows[inside] = self._row_of_number[neighbours[inside]]
        known = (rows >= 0) & (weights > 0)
        if not known.any():
            return None
        weights = weights[known] / np.sqrt(
            self._next_lists.interactions(neighbours[known]) + SMOOTHING
        )
        vector: Float32s = (weights @ self._vectors_of[rows[known]]) / weights.sum()
        return vector.astype(np.float32)

    def _vector(self, number: int) -> Float32s | None:
        """Under the lock."""
        place, row = self._place_of.get(number), self._row_of.get(number)
        found: Float32s | None = None
        if place >= 0:
            found = self._vectors[place].copy()
        elif row >= 0 and self._settled is not None:
            found = self._settled.vectors[row].copy()
        return found

    def _put(self, number: int, vector: Float32s) -> None:
        with self._lock:
            before = self._vector(number)
            if before is not None and np.array_equal(before, vector):
                return  # a row of the index that still holds stays in use
            place = self._place_of.get(number)
            if place < 0:
                place = self._count
                if place == len(self._numbers):
                    room = max(16, place)
                    self._numbers = np.concatenate([self._numbers, np.zeros(room, np.int64)])
                    grown = np.zeros((room, self._vectors.shape[1]), np.float32)
                    self._vectors = np.concatenate([self._vectors, grown])
                self._numbers[place] = number
                self._place_of.put(number, place)
                self._count += 1
                self._outdated += self._row_of.get(number) >= 0
            self._vectors[place] = vector
            if self._put_since is not None:
                self._put_since.add(number)


class _Places:
    """Where items stand, by number; -1 for those that stand nowhere."""

    def __init__(self, numbers: Int64s | None = None) -> None:
        self._places = np.zeros(0, np.int64)
        if numbers is not None and len(numbers):
            self._places = np.full(int(numbers.max()) + 1, -1, np.int64)
            self._places[numbers] = np.arange(len(numbers))

    def get(self, number: int) -> int:
        return int(self._places[number]) if 0 <= number < len(self._places) else -1

    def of(self, numbers: Int64s) -> Int64s:
        """The places (n,) of items (n,)."""
        inside = (numbers >= 0) & (numbers < len(self._places))
        places = np.full(len(numbers), -1, np.int64)
        places[inside] = self._places[numbers[inside]]
        return places

    def put(self, number: int, place: int) -> None:
        if number >= len(self._places):
            grown = np.full(max(2 * len(self._places), number + 1), -1, np.int64)
            grown[: len(self._places)] = self._places
            self._places = grown
        self._places[number] = place
