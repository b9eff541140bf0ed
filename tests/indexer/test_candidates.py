"""Next-lists and trend, each held against a slow and obvious reference."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from indexer.candidates import (
    OWN_FLOOR,
    OWN_HALF_STEPS,
    NextLists,
    Trend,
    best,
    own_scores,
    recent_items,
)
from indexer.item_numbers import ItemNumbers
from rheos.settings import Settings
from rheos.state import History, ItemState, encode_state
from tests.indexer import shop

SETTINGS = Settings()
GAP_MS = 30 * 60_000


def history(items: list[str], minutes: list[int], weights: list[float] | None = None) -> History:
    return History(
        items,
        np.array(weights or [1.0] * len(items), np.float32),
        np.array(minutes, np.int64) * 60_000,
    )


def reference_scores(
    states: dict[str, ItemState], newest_first: list[str]
) -> dict[str, tuple[float, float]]:
    """The docstring's formulas, one neighbour at a time."""
    scores: dict[str, tuple[float, float]] = {}
    for distance, item in enumerate(newest_first):
        state = states.get(item)
        if state is None:
            continue
        near_counts = np.frombuffer(state.near, "<f8")
        far_counts = np.frombuffer(state.far, "<f8")
        for place, other in enumerate(state.neighbour_ids):
            own = (state.interactions + 5) ** 0.5
            popular = (states[other].interactions if other in states else 0) + 5
            near, far = scores.get(other, (0.0, 0.0))
            near += 0.5 ** (distance / 2) * near_counts[place] / own
            far_count = far_counts[place] / popular**SETTINGS.retrieval.far_damping
            far += 0.5 ** (distance / 8) * far_count / own
            scores[other] = near, far
    return scores


def lists_of(states: dict[str, ItemState], encoded: bool) -> tuple[NextLists, ItemNumbers]:
    numbers = ItemNumbers()
    lists = NextLists(SETTINGS, numbers, cached_tables=2)
    for item, state in states.items():
        value = encode_state(state) if encoded else state
        lists.put(numbers.add(item), value, state.interactions)
    return lists, numbers


@pytest.mark.parametrize("encoded", [True, False])
def test_next_scores_are_the_formulas_of_the_reference(encoded: bool) -> None:
    rng = np.random.default_rng(3)
    items = [f"i{number}" for number in range(30)]
    states = {
        item: shop.item_state(
            int(rng.integers(1, 200)),
            {
                str(other): (float(rng.random()), float(rng.random()))
                for other in rng.choice(items, 12, replace=False)
            },
        )
        for item in items[:20]
    }
    lists, numbers = lists_of(states, encoded)
    asked = ["i3", "i25", "nowhere", "i7", "i0", "i11"]
    expected = reference_scores(states, asked)
    found = lists.scores(asked)
    assert [numbers.id_of(number) for number in found.numbers] == sorted(
        expected, key=lambda item: numbers.add(item)
    )
    for number, near, far in zip(*found, strict=True):
        assert (near, far) == pytest.approx(expected[numbers.id_of(number)])
    wanted = np.array([numbers.add("i1"), numbers.add("other")])
    near, far = found.of(wanted)
    assert (near[0], far[0]) == pytest.approx(expected.get("i1", (0.0, 0.0)))
    assert (near[1], far[1]) == (0.0, 0.0)


def test_terms_add_up_to_the_weighed_near_and_far_scores() -> None:
    states = {
        "a": shop.item_state(5, {"x": (1.0, 2.0), "y": (0.5, 0.5)}),
        "b": shop.item_state(9, {"x": (3.0, 1.0)}),
        "x": shop.item_state(40),
    }
    lists, numbers = lists_of(states, True)
    found = lists.scores(["b", "a"])
    near, far = found.of(np.array([numbers.add("x")]))
    of_x, of_nothing = lists.terms(["b", "a"], ["x", "nothing"])
    assert [item for item, _ in of_x] == ["b", "a"]
    weights = SETTINGS.retrieval
    expected = weights.near_weight * near[0] + weights.far_weight * far[0]
    assert sum(part for _, part in of_x) == pytest.approx(float(expected))
    assert of_nothing == []


def test_counts_of_an_earlier_epoch_have_halved_64_times() -> None:
    states = {
        "old": shop.item_state(0, {"x": (1.0, 1.0)}, epoch=3),
        "new": shop.item_state(0, {"y": (1.0, 1.0)}, epoch=4),
    }
    lists, numbers = lists_of(states, True)
    near, _ = lists.scores(["old", "new"]).of(numbers.add_all(["x", "y"]))
    assert near[0] / near[1] == pytest.approx(2.0**-64 * 2**0.5)


def test_a_new_state_replaces_a_table_that_was_read_and_a_removed_one_is_gone() -> None:
    lists, numbers = lists_of({"a": shop.item_state(1, {"x": (1.0, 1.0)})}, True)
    number = numbers.add("a")
    assert len(lists.scores(["a"]).numbers) == 1
    later = shop.item_state(2, {"x": (1.0, 1.0), "y": (1.0, 1.0)})
    lists.put(number, encode_state(later), 2)
    assert len(lists.scores(["a"]).numbers) == 2
    lists.remove(number)
    assert len(lists.scores(["a"]).numbers) == 0
    assert lists.interactions(np.array([number, 10**9, -1])).tolist() == [0.0, 0.0, 0.0]


def test_recent_items_are_the_sessions_own_newest_first_and_each_once() -> None:
    items = ["a", "b", "c", "d", "e", "f", "e"]
    minutes = [0, 100, 101, 102, 103, 104, 105]
    assert recent_items(history(items, minutes), GAP_MS) == ["e", "f", "d", "c", "b"]


def test_recent_items_of_a_young_session_go_on_into_the_earlier_one() -> None:
    items = [f"i{number}" for number in range(20)]
    minutes = [*range(18), 100, 101]
    found = recent_items(history(items, minutes), GAP_MS)
    assert found == [f"i{number}" for number in range(19, 9, -1)]


def test_recent_items_pass_over_what_was_turned_down() -> None:
    found = recent_items(history(["a", "b", "c"], [0, 1, 2], [1.0, -1.0, 0.4]), GAP_MS)
    assert found == ["c", "a"]
    assert recent_items(history([], []), GAP_MS) == []


def test_trend_compares_across_epochs_and_forgets_the_removed() -> None:
    trend, numbers = Trend(SETTINGS), ItemNumbers()

    def put(item: str, value: float, epoch: int) -> None:
        state = shop.item_state(1, trend=value, epoch=epoch)
        trend.put(numbers.add(item), state.popularity_epochs, state.popularity)

    put("old", 2.0**70, 1)
    put("late", 2.0, 2)
    put("tiny", 1.0, 1)
    assert [numbers.id_of(number) for number in trend.top(10)] == ["old", "late", "tiny"]
    assert trend.scores(numbers.add_all(["old", "late"])).tolist() == [2.0**6, 2.0]
    trend.remove(numbers.add("old"))
    assert [numbers.id_of(number) for number in trend.top(1)] == ["late"]
    assert trend.top_of(numbers.add_all(["tiny", "nothing"]), 5).tolist() == [numbers.add("tiny")]


@given(st.lists(st.integers(0, 6), max_size=40), st.integers(1, 45))
def test_best_is_the_beginning_of_a_full_sort(values: list[int], depth: int) -> None:
    scores = np.array(values, np.float64)
    numbers = np.arange(100, 100 + len(values))
    order = sorted(range(len(values)), key=lambda place: (-values[place], place))
    expected = [100 + place for place in order[:depth] if values[place] > 0]
    assert best(numbers, scores, depth).tolist() == expected


@given(st.lists(st.tuples(st.integers(-1, 5), st.sampled_from([1.0, 0.4, 0.0, -1.0])), max_size=12))
def test_own_scores_add_up_what_each_taking_is_still_worth(past: list[tuple[int, float]]) -> None:
    expected: dict[int, float] = {}
    latest = dict(past)
    for age, (number, weight) in enumerate(reversed(past)):
        if number >= 0 and weight > 0 and latest[number] > 0:
            worth = 2 ** (-age / OWN_HALF_STEPS) + OWN_FLOOR
            expected[number] = expected.get(number, 0.0) + worth
    found = own_scores(
        np.array([number for number, _ in past], np.int64),
        np.array([weight for _, weight in past], np.float32),
    )
    assert found.numbers.tolist() == sorted(expected)
    assert found.of(np.arange(-1, 9)) == pytest.approx(
        [expected.get(number, 0.0) for number in range(-1, 9)]
    )
