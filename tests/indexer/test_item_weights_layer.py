"""The item weights of a generation as a source of answers."""

import numpy as np
import pytest

from indexer.ranking import ITEM_WEIGHTS, SOURCES, VECTOR
from indexer.retrieval import Wish
from rheos.item_weights import ItemWeights
from rheos.settings import from_tree
from rheos.state import History
from tests.indexer.test_retrieval import ITEMS, World, history, ids


def weights_of(points: dict[int, dict[int, float]]) -> ItemWeights:
    """Rows that point at others; all other rows at nothing."""
    rows = [points.get(row, {}) for row in range(len(ITEMS))]
    return ItemWeights(
        np.cumsum([0, *map(len, rows)]),
        np.array([target for row in rows for target in row], np.int64),
        np.array([weight for row in rows for weight in row.values()], np.float32),
        {"session_gap_s": 1800, "half_steps": 1e9, "before": 0.5, "last": 40},
    )


POINTS = {
    1: {10: 2.0, 11: 1.0, 12: -1.0, 2: 5.0},
    2: {10: 1.0, 11: 3.0, 12: 0.5, 1: 5.0},
}


def test_alone_it_orders_by_the_sum_of_what_the_latest_items_say() -> None:
    world = World(item_weights=weights_of(POINTS))
    found = world.ask(history("i001", "i002"), ITEM_WEIGHTS)
    assert [(item.item_id, item.source) for item in found.items] == [
        ("i011", "item_weights"),
        ("i010", "item_weights"),
    ]
    # Counts and weights are told as shares of the best: 4 and 3 here.
    assert [item.score for item in found.items] == pytest.approx([1.0, 0.75])
    assert ids(world.ask(history("i001"), ITEM_WEIGHTS)) == ["i002", "i010", "i011"]


def test_items_that_the_rules_leave_out_do_not_come_back_by_it() -> None:
    world = World(item_weights=weights_of(POINTS))
    found = world.ask(history("i001", "i002"), ITEM_WEIGHTS, exclude=("i011",))
    assert ids(found) == ["i010"]
    assert ids(world.ask(history("i001"), ITEM_WEIGHTS, category="nothing")) == []


def test_its_share_of_the_whole_list_is_a_setting() -> None:
    points = {1: {300: 1.0}}
    for weight, there in ((50.0, True), (0.0, False)):
        settings = from_tree({"retrieval": {"item_weights_weight": weight, "vector_weight": 1.0}})
        found = World(settings, weights_of(points)).ask(history("i001"), k=20)
        firsts = {item.item_id: item.source for item in found.items[:1]}
        assert (firsts == {"i300": "item_weights"}) == there


def test_a_generation_without_weights_answers_as_before() -> None:
    asked = history("i001", "i002")
    assert World().ask(asked, ITEM_WEIGHTS).items == []
    assert World().ask(asked) == World().ask(asked, *SOURCES[:1], *SOURCES[2:])
    assert World(item_weights=weights_of(POINTS)).ask(history(), ITEM_WEIGHTS).items == []
    without = World(item_weights=weights_of({}))
    assert without.ask(asked) == World().ask(asked)


def test_items_that_the_generation_does_not_know_are_no_trouble() -> None:
    world = World(item_weights=weights_of(POINTS))
    world.item_state("fresh", 5, {"i001": (1.0, 1.0)})
    world.serving.delta.refresh(range(len(world.view.numbers)))
    found = world.ask(history("i001", "fresh"), k=400)
    assert np.isfinite([item.score for item in found.items]).all()
    assert ids(world.ask(history("fresh"), ITEM_WEIGHTS)) == []


def test_reasons_name_the_items_whose_weights_gave_the_score() -> None:
    world = World(item_weights=weights_of(POINTS))
    asked = history("i001", "i002")
    vector = world.generation.encoder.encode([asked])[0]
    wish = Wish(2, frozenset({ITEM_WEIGHTS}), explain=True)
    found = world.retrieval.recommend(wish, asked, world.serving, vector).items
    told = [
        [(r.item_id, r.share) for r in item.because if r.source == ITEM_WEIGHTS] for item in found
    ]
    assert told == [
        [("i002", pytest.approx(0.75)), ("i001", pytest.approx(0.25))],
        [("i001", pytest.approx(2 / 3)), ("i002", pytest.approx(1 / 3))],
    ]
    # Of the vector there are reasons too, whatever source the list is made of.
    assert {r.source for item in found for r in item.because} >= {VECTOR}


def test_a_history_that_is_disliked_recommends_nothing() -> None:
    world = World(item_weights=weights_of({1: {10: 1.0, 11: 2.0}}))
    disliked = History(["i001"], np.array([-1.0], np.float32), np.zeros(1, np.int64))
    assert ids(world.ask(disliked, ITEM_WEIGHTS)) == []


def test_weights_as_large_as_can_be_stored_still_give_finite_scores() -> None:
    largest = float(np.finfo(np.float32).max)
    world = World(item_weights=weights_of({1: {10: largest, 11: -largest}, 2: {10: largest}}))
    for sources in ((), (ITEM_WEIGHTS,)):
        found = world.ask(history("i001", "i002"), *sources)
        assert found.items[0].item_id == "i010"
        assert np.isfinite([item.score for item in found.items]).all()
