"""Items that the generation does not know: derived vectors, searchable at once."""

import numpy as np
import pytest

from indexer.candidates import NextLists
from indexer.item_numbers import ItemNumbers
from indexer.serving import Serving
from rheos.settings import Settings
from rheos.state import ItemState
from tests.indexer import shop


class Shop:
    """Five items in the generation; others come later."""

    def __init__(self) -> None:
        self.numbers = ItemNumbers()
        self.lists = NextLists(Settings(), self.numbers)
        self.vectors = shop.vectors(5)
        generation = shop.generation([f"i{n}" for n in range(5)], self.vectors)
        self.serving = Serving(generation, self.numbers, self.lists, "flat")

    def put(self, item: str, state: ItemState) -> int:
        number = self.numbers.add(item)
        self.lists.put(number, state, state.interactions)
        self.serving.delta.refresh([number])
        return number


def test_a_new_items_vector_is_the_weighted_mean_of_its_known_neighbours() -> None:
    one = Shop()
    one.put("i0", shop.item_state(4))
    one.put("i1", shop.item_state(20))
    number = one.put("x", shop.item_state(1, {"i0": (1.0, 1.0), "i1": (0.0, 3.0), "y": (9, 9)}))
    weights = np.array([2.0 / 3.0, 3.0 / 5.0])  # (near + far) / √(n + 5)
    expected = (weights[:, None] * one.vectors[:2]).sum(0) / weights.sum()
    vector = one.serving.delta.vector(number)
    assert vector is not None
    np.testing.assert_allclose(vector, expected, rtol=1e-5)
    assert one.serving.nearest_new(expected.astype(np.float32)).tolist() == [number]
    products = one.serving.products(vector, np.array([number, 0, 10_000]))
    np.testing.assert_allclose(products[:2], [vector @ vector, one.vectors[0] @ vector], rtol=1e-5)
    assert np.isnan(products[2])


def test_known_items_and_items_without_known_neighbours_never_stand_in_it() -> None:
    one = Shop()
    one.put("i0", shop.item_state(4, {"i1": (1.0, 1.0)}))
    one.put("lonely", shop.item_state(1))
    one.put("y", shop.item_state(1, {"z": (1.0, 1.0)}))
    assert len(one.serving.delta) == 0


def test_a_changed_state_moves_the_vector_in_its_place() -> None:
    one = Shop()
    number = one.put("x", shop.item_state(1, {"i0": (1.0, 1.0)}))
    first = one.serving.delta.vector(number)
    one.put("x", shop.item_state(1, {"i3": (1.0, 1.0)}))
    second = one.serving.delta.vector(number)
    assert first is not None
    assert second is not None
    np.testing.assert_allclose(first, one.vectors[0], rtol=1e-6)
    np.testing.assert_allclose(second, one.vectors[3], rtol=1e-6)
    assert len(one.serving.delta) == 1


def test_it_grows_and_gives_the_best_of_many_first() -> None:
    one = Shop()
    for count in range(250):
        one.put(f"new{count}", shop.item_state(1, {f"i{count % 5}": (1.0, 1.0)}))
    query = one.vectors[2]
    found = one.serving.nearest_new(query)
    scores = one.serving.products(query, found)
    assert len(found) == 100
    assert (np.diff(scores) <= 1e-6).all()
    assert scores[0] == pytest.approx(max(one.vectors @ query), rel=1e-5)
