"""Items that the generation does not know: derived vectors, searchable at once."""

from collections.abc import Sequence

import numpy as np
import pytest

from indexer.candidates import NextLists
from indexer.delta import LEAST_SETTLED
from indexer.index import BrokenIndexError, Index
from indexer.item_numbers import ItemNumbers
from indexer.live_catalogue import LiveCatalogue
from indexer.serving import Serving
from rheos.catalogue import Item, encode_record
from rheos.settings import Settings
from rheos.state import Float32s, Int64s, ItemState
from tests.indexer import shop

FIRST = np.eye(shop.DIMENSIONS, dtype=np.float32)[0]


class PriceContent:
    """Tells the price as the vector's first number; of an item without one it tells nothing."""

    def __init__(self) -> None:
        self.read: list[str] = []

    def encode(self, items: Sequence[Item]) -> Float32s:
        self.read += [item.item_id for item in items]
        vectors = np.zeros((len(items), shop.DIMENSIONS), np.float32)
        vectors[:, 0] = [item.price or 0.0 for item in items]
        return vectors


class Shop:
    """Five items in the generation; others come later."""

    def __init__(self, content: PriceContent | None = None) -> None:
        self.numbers = ItemNumbers()
        self.lists = NextLists(Settings(), self.numbers)
        self.vectors = shop.vectors(5)
        generation = shop.generation([f"i{n}" for n in range(5)], self.vectors)
        generation.content = content
        self.catalogue = LiveCatalogue(self.numbers)
        self.serving = Serving(generation, self.numbers, self.lists, self.catalogue, "flat")

    def put(self, item: str, state: ItemState) -> int:
        number = self.numbers.add(item)
        self.lists.put(number, state, state.interactions)
        self.serving.delta.refresh([number])
        return number

    def know(self, item: Item) -> int:
        self.catalogue.put_item(item.item_id, encode_record(item))
        number = self.numbers.add(item.item_id)
        self.serving.delta.refresh([number])
        return number

    def first(self, number: int) -> float | None:
        """The first number of an item's vector in the delta."""
        vector = self.serving.delta.vector(number)
        return None if vector is None else float(vector[0])


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
    assert one.serving.nearest_new(expected.astype(np.float32), 100).tolist() == [number]
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
    found = one.serving.nearest_new(query, 100)
    scores = one.serving.products(query, found)
    assert len(found) == 100
    assert (np.diff(scores) <= 1e-6).all()
    assert scores[0] == pytest.approx(max(one.vectors @ query), rel=1e-5)


def test_a_new_item_has_its_vector_from_its_record_before_any_event() -> None:
    one = Shop(PriceContent())
    number = one.know(Item(item_id="x", price=7.0))
    assert one.first(number) == 7.0
    assert one.serving.nearest_new(FIRST, 100).tolist() == [number]


def test_its_record_says_more_than_its_neighbours_and_a_changed_one_counts_at_once() -> None:
    one = Shop(PriceContent())
    number = one.know(Item(item_id="x", price=7.0))
    one.put("x", shop.item_state(3, {"i0": (1.0, 1.0)}))
    assert one.first(number) == 7.0
    one.know(Item(item_id="x", price=9.0))
    assert one.first(number) == 9.0
    assert len(one.serving.delta) == 1


def test_a_record_is_read_once_however_often_the_items_state_changes() -> None:
    content = PriceContent()
    one = Shop(content)
    one.know(Item(item_id="x", price=7.0))
    for count in range(5):
        one.put("x", shop.item_state(count, {"i0": (1.0, 1.0)}))
    assert content.read == ["x"]


def test_a_record_that_tells_nothing_leaves_the_item_to_its_neighbours() -> None:
    one = Shop(PriceContent())
    number = one.know(Item(item_id="x", title="no price"))
    assert len(one.serving.delta) == 0
    one.put("x", shop.item_state(1, {"i0": (1.0, 1.0)}))
    assert one.first(number) == pytest.approx(float(one.vectors[0, 0]))
    deleted = one.know(Item(item_id="y", price=5.0, deleted=True))
    assert one.first(deleted) is None


def test_items_of_the_generation_are_not_read_again() -> None:
    content = PriceContent()
    one = Shop(content)
    one.know(Item(item_id="i3", price=7.0))
    assert content.read == []
    assert len(one.serving.delta) == 0


def test_a_whole_catalogue_is_derived_in_parts() -> None:
    one = Shop(PriceContent())
    numbers = []
    for count in range(150):
        item = Item(item_id=f"x{count}", price=1.0 + count)
        one.catalogue.put_item(item.item_id, encode_record(item))
        numbers.append(one.numbers.add(item.item_id))
    one.serving.delta.refresh(range(len(one.numbers)))
    assert [one.first(number) for number in numbers] == [1.0 + count for count in range(150)]


SETTLED = LEAST_SETTLED + 7


class Crowd(Shop):
    """Thousands of items that only their records tell of, each with a random price."""

    def __init__(self) -> None:
        super().__init__(PriceContent())
        self.prices = np.random.default_rng(0).permutation(SETTLED) + 1.0
        self.young = np.zeros(SETTLED, np.int64)
        for n, price in enumerate(self.prices.tolist()):
            item = Item(item_id=f"x{n}", price=price)
            self.catalogue.put_item(item.item_id, encode_record(item))
            self.young[n] = self.numbers.add(item.item_id)
        self.serving.delta.refresh(range(len(self.numbers)))

    def dearest(self, depth: int) -> list[float]:
        """The prices of the items found for a query that wants the dearest, best first."""
        found = self.serving.nearest_new(FIRST, depth)
        return self.serving.products(FIRST, found).tolist()


@pytest.fixture
def crowd() -> Crowd:
    return Crowd()


def test_many_items_move_into_an_index_and_are_found_as_before(crowd: Crowd) -> None:
    delta, best = crowd.serving.delta, sorted(crowd.prices.tolist(), reverse=True)
    assert crowd.dearest(20) == best[:20]
    assert delta.scanned == len(delta) == SETTLED
    assert delta.settle()
    assert delta.scanned == 0
    assert len(delta) == SETTLED
    assert crowd.dearest(20) == best[:20]
    assert crowd.serving.products(FIRST, crowd.young).tolist() == crowd.prices.tolist()
    assert crowd.first(int(crowd.young[3])) == crowd.prices[3]
    assert not delta.settle()  # nothing is left to be moved


def test_few_items_are_scanned() -> None:
    one = Shop(PriceContent())
    one.know(Item(item_id="x", price=7.0))
    assert not one.serving.delta.settle()
    assert one.serving.delta.scanned == 1


def test_a_settled_item_counts_by_its_latest_record(crowd: Crowd) -> None:
    delta = crowd.serving.delta
    delta.settle()
    dearest, cheap = int(crowd.prices.argmax()), int(crowd.prices.argmin())
    crowd.know(Item(item_id=f"x{dearest}", price=0.5))
    crowd.know(Item(item_id=f"x{cheap}", price=1e6))
    best = sorted(crowd.prices.tolist(), reverse=True)
    assert crowd.dearest(4)[:3] == [1e6, *best[1:3]]
    assert crowd.first(int(crowd.young[dearest])) == 0.5
    assert len(delta) == SETTLED
    assert delta.scanned == 2


def test_a_record_that_is_written_again_as_it_was_stays_in_the_index(crowd: Crowd) -> None:
    crowd.serving.delta.settle()
    crowd.know(Item(item_id="x0", price=float(crowd.prices[0])))
    assert crowd.serving.delta.scanned == 0


def test_items_that_come_later_are_found_beside_the_index_and_settle_once_they_are_many(
    crowd: Crowd,
) -> None:
    delta = crowd.serving.delta
    delta.settle()
    newest = crowd.know(Item(item_id="newest", price=1e7))
    assert crowd.serving.nearest_new(FIRST, 1).tolist() == [newest]
    assert len(delta) == SETTLED + 1
    assert not delta.settle()
    crowd.know(Item(item_id="x0", price=2e6))  # an older row of it is in the index
    for n in range(LEAST_SETTLED):
        item = Item(item_id=f"later{n}", price=1e-3)
        crowd.catalogue.put_item(item.item_id, encode_record(item))
    delta.refresh(range(len(crowd.numbers)))
    assert delta.settle()
    assert delta.scanned == 0
    assert len(delta) == SETTLED + 1 + LEAST_SETTLED
    assert crowd.dearest(2) == [1e7, 2e6]


def test_what_changes_while_an_index_is_built_is_not_lost(
    crowd: Crowd, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Slow(Index):
        def check(self, vectors: Float32s) -> None:
            crowd.know(Item(item_id="x0", price=3e6))
            crowd.know(Item(item_id="newest", price=4e6))
            super().check(vectors)

    monkeypatch.setattr("indexer.delta.Index", Slow)
    assert crowd.serving.delta.settle()
    assert crowd.serving.delta.scanned == 2
    assert len(crowd.serving.delta) == SETTLED + 1
    assert crowd.dearest(2) == [4e6, 3e6]


def test_an_index_that_finds_wrongly_is_not_used(
    crowd: Crowd, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Wrong(Index):
        def search(self, queries: Float32s, k: int) -> tuple[Float32s, Int64s]:
            scores, rows = super().search(queries, k)
            return scores + 1.0 + scores.max(), rows

    best = crowd.dearest(5)
    monkeypatch.setattr("indexer.delta.Index", Wrong)
    with pytest.raises(BrokenIndexError, match="differently"):
        crowd.serving.delta.settle()
    assert crowd.serving.delta.scanned == SETTLED
    assert crowd.dearest(5) == best
    monkeypatch.undo()
    assert crowd.serving.delta.settle()


def test_settled_items_agree_with_scanned_ones_after_any_changes(crowd: Crowd) -> None:
    draw, delta = np.random.default_rng(1), crowd.serving.delta
    prices = dict(enumerate(crowd.prices.tolist()))
    for _ in range(3):
        delta.settle()
        for n in draw.integers(0, SETTLED + 500, 1_500).tolist():
            prices[n] = float(draw.integers(1, 1 << 20))
            crowd.know(Item(item_id=f"x{n}", price=prices[n]))
        # Rows that are outdated are passed over, so that a little fewer may be found.
        found = crowd.dearest(400)
        best = sorted(prices.values(), reverse=True)
        assert len(found) > 100
        assert found == best[: len(found)]
        assert len(delta) == len(prices)
