"""New items and the generation in service, without Kafka: queries and swaps under load have tests
of their own with it (tests/integration/test_indexer_hot_swap.py)."""

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from indexer.delta import LEAST_SETTLED
from indexer.hot_swap import HotSwap
from indexer.index import BrokenIndexError, Index
from indexer.live_view import LiveView
from rheos.settings import from_tree
from rheos.snapshot_store import LocalStore
from rheos.state import Float32s, encode_state
from tests.indexer import shop

ITEMS = [f"i{n}" for n in range(20)]
PATIENCE_S = 120.0


class World:
    """Twenty items in each stored generation; many others are taken beside them."""

    def __init__(self, folder: Path) -> None:
        nobody = {"bootstrap": "127.0.0.1:9"}
        settings = from_tree({"data_dir": str(folder), "kafka": nobody})
        self.store = LocalStore(settings.store_dir)
        self.view = LiveView(settings, lambda numbers: self.swap.items_changed(numbers))
        self.swap = HotSwap(settings, self.store, self.view)

    def serve(self, number: int) -> bool:
        return self.swap.load(shop.stored(self.store, ITEMS, shop.vectors(20, number), number))

    def take(self, count: int) -> None:
        """So many new items, each taken with one that the generation knows."""
        for n in range(count):
            state = encode_state(shop.item_state(1, {ITEMS[n % 20]: (1.0, 1.0)}))
            self.view.take("rheos.item-state", f"new{n}".encode(), state, "")
        self.view.tell_changed()

    def scanned(self) -> tuple[int, int]:
        """How many items the generation in service has beside its own, and how many it scans."""
        assert self.swap.current is not None
        delta = self.swap.current.delta
        return len(delta), delta.scanned


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    world = World(tmp_path)
    yield world
    world.swap.close()


def test_many_new_items_have_an_index_before_the_generation_serves(world: World) -> None:
    world.take(LEAST_SETTLED)
    assert world.serve(1)
    assert world.scanned() == (LEAST_SETTLED, 0)


def test_those_that_come_while_it_serves_get_one_too(world: World) -> None:
    assert world.serve(1)
    world.take(LEAST_SETTLED)
    assert world.scanned() == (LEAST_SETTLED, LEAST_SETTLED)
    world.swap.start()
    deadline = time.monotonic() + PATIENCE_S
    while world.scanned()[1] and time.monotonic() < deadline:
        time.sleep(0.05)
    assert world.scanned() == (LEAST_SETTLED, 0)
    assert world.swap.unhealthy() is None


def test_a_generation_whose_index_of_new_items_is_broken_is_refused(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert world.serve(1)
    world.take(LEAST_SETTLED)

    def broken(index: Index, vectors: Float32s) -> None:
        if len(vectors) >= LEAST_SETTLED:
            raise BrokenIndexError("its index finds nothing")

    monkeypatch.setattr(Index, "check", broken)
    assert not world.serve(2)
    assert world.swap.refused is not None
    assert "its index finds nothing" in world.swap.refused.reason
    assert world.swap.current is not None
    assert world.swap.current.name.startswith("1-")
