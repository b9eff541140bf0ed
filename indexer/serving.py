"""What serves one generation: everything of an answer that must belong together."""

import numpy as np

from indexer.candidates import NextLists
from indexer.delta import Delta
from indexer.index import Index, Kind
from indexer.item_numbers import ItemNumbers
from indexer.live_catalogue import LiveCatalogue
from rheos.generation import Generation
from rheos.item_weights import Scores
from rheos.state import Float32s, Float64s, History, Int64s


class Serving:
    """A generation with its index and delta. A query takes one reference and keeps to it.

    ``numbers_of_rows`` (N,) tells the generation's rows as item numbers; ``rows`` goes back.
    """

    def __init__(
        self,
        generation: Generation,
        numbers: ItemNumbers,
        next_lists: NextLists,
        catalogue: LiveCatalogue,
        kind: Kind,
    ) -> None:
        self.generation = generation
        self.numbers_of_rows: Int64s = numbers.add_all(generation.item_ids)
        # All of the generation's items have a number now, so a higher number is none of them.
        self._row_of_number = np.full(len(numbers), -1, np.int64)
        self._row_of_number[self.numbers_of_rows] = np.arange(len(generation.item_ids))
        self.delta = Delta(generation, self._row_of_number, numbers, next_lists, catalogue)
        self.index = Index(generation.item_vectors, kind)

    @property
    def name(self) -> str:
        return self.generation.name

    def rows(self, numbers: Int64s) -> Int64s:
        """The generation's rows (n,) of items; -1 for those that it does not know."""
        inside = (numbers >= 0) & (numbers < len(self._row_of_number))
        if inside.all():
            rows: Int64s = self._row_of_number[numbers]
            return rows
        return np.where(inside, self._row_of_number[np.where(inside, numbers, 0)], np.int64(-1))

    def nearest(self, vector: Float32s, depth: int) -> Int64s:
        """Numbers of the ``depth`` items with the highest inner products with ``vector`` (d,).

        From the index only, best first; fewer where the index holds or returns fewer.
        """
        _, found = self.index.search(vector[None, :], depth)
        rows = found[0]
        numbers: Int64s = self.numbers_of_rows[rows[rows >= 0]]
        return numbers

    def nearest_new(self, vector: Float32s, depth: int) -> Int64s:
        """Numbers of the ``depth`` best items of the delta, best first; perhaps fewer."""
        return self.delta.nearest(vector, depth)

    def item_scores(self, history: History) -> Scores | None:
        """What the generation's item weights say after a history; None if they say nothing."""
        weights = self.generation.item_weights
        if weights is None:
            return None
        scores = weights.scores(weights.read(history, self.generation.row_of))
        return scores if len(scores.rows) else None

    def products(self, vector: Float32s, numbers: Int64s) -> Float64s:
        """Inner products (n,) of ``vector`` (d,) with items, of the delta too; NaN elsewhere."""
        out = np.full(len(numbers), np.nan)
        rows = self.rows(numbers)
        known = rows >= 0
        out[known] = self.generation.item_vectors[rows[known]] @ vector
        if not known.all():
            out[~known] = self.delta.products(vector, numbers[~known])
        return out

    def cosines(self, vector: Float32s, numbers: Int64s) -> Float64s:
        """Cosines (n,) of the angles between ``vector`` (d,) and items; NaN for unknown ones."""
        rows = self.rows(numbers)
        lengths = np.full(len(numbers), np.nan)
        known = rows >= 0
        lengths[known] = np.linalg.norm(self.generation.item_vectors[rows[known]], axis=1)
        for place in np.flatnonzero(~known).tolist():
            other = self.delta.vector(int(numbers[place]))
            if other is not None:
                lengths[place] = np.linalg.norm(other)
        whole = lengths * np.linalg.norm(vector)
        cosines = self.products(vector, numbers) / np.where(whole > 0, whole, 1.0)
        return np.where(whole == 0, 0.0, cosines)

    def knows(self, number: int) -> bool:
        """Whether the generation itself holds an item."""
        return number < len(self._row_of_number) and bool(self._row_of_number[number] >= 0)

    def vector_of(self, number: int) -> Float32s | None:
        """An item's vector (d,), known or derived, or None."""
        if not self.knows(number):
            return self.delta.vector(number)
        vector: Float32s = self.generation.item_vectors[self._row_of_number[number]]
        return vector

    def close(self) -> None:
        self.index.close()
