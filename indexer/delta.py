"""The delta: vectors of items that the generation does not know yet, searchable at once.

Small, mutable and exact, beside the immutable index.
"""

import threading
from collections.abc import Iterable, Sequence

import numpy as np

from indexer.candidates import SMOOTHING, NextLists
from indexer.item_numbers import ItemNumbers
from indexer.live_catalogue import LiveCatalogue
from rheos.catalogue import Item, decode_item
from rheos.generation import Generation
from rheos.state import Float32s, Float64s, Int64s

AT_ONCE = 64
"""Items derived at once. Between two parts another thread has its turn: a change of one item does
not wait for the whole catalogue."""


class Delta:
    """Vectors derived from content or neighbours, for one generation. Safe from any thread.

    An item whose record tells the generation's content encoder anything has its vector from there,
    from the first record on. Any other has it from its neighbours, as soon as it has some:

    v_x = Σ_y w_xy v_y / Σ_y w_xy over the neighbours y of x that the generation knows, with
    w_xy = (near_xy + far_xy) / √(n_y + 5): what is taken near everything says little.
    ``row_of_number`` gives a known item's row by its number, -1 otherwise.
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
        self._record_of: dict[int, bytes] = {}  # what a vector was derived from, while it is so
        self._place_of: dict[int, int] = {}
        self._numbers = np.zeros(16, np.int64)
        self._vectors = np.zeros((16, generation.dimensions), np.float32)

    def __len__(self) -> int:
        return len(self._place_of)

    def refresh(self, numbers: Iterable[int]) -> None:
        """Derives the vectors of those of ``numbers`` that the generation does not know, again."""
        known = len(self._row_of_number)
        new = [number for number in numbers if number >= known or self._row_of_number[number] < 0]
        for start in range(0, len(new), AT_ONCE):
            with self._deriving:  # what is read last is put last
                self._refresh(new[start : start + AT_ONCE])

    def numbers(self) -> Int64s:
        """The items that stand here (m,)."""
        with self._lock:
            return self._numbers[: len(self._place_of)].copy()

    def scores(self, query: Float32s) -> tuple[Int64s, Float64s]:
        """Numbers (m,) and inner products (m,) with ``query`` (d,)."""
        with self._lock:
            count = len(self._place_of)
            products = self._vectors[:count] @ query
            return self._numbers[:count].copy(), products.astype(np.float64)

    def vector(self, number: int) -> Float32s | None:
        """The derived vector (d,) of an item, or None if it does not stand here."""
        with self._lock:
            place = self._place_of.get(number)
            return None if place is None else self._vectors[place].copy()

    def _refresh(self, new: Sequence[int]) -> None:
        left = new if self._content is None else self._of_content(new)
        for number in left:
            vector = self._of_neighbours(number)
            if vector is not None:
                with self._lock:
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
                with self._lock:
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

    def _put(self, number: int, vector: Float32s) -> None:
        place = self._place_of.get(number)
        if place is None:
            place = len(self._place_of)
            if place == len(self._numbers):
                self._numbers = np.concatenate([self._numbers, np.zeros_like(self._numbers)])
                self._vectors = np.concatenate([self._vectors, np.zeros_like(self._vectors)])
            self._numbers[place] = number
            self._place_of[number] = place
        self._vectors[place] = vector
