"""Item weights: scores against a plain loop, how a history is read, and hostile snapshots."""

from typing import Any

import numpy as np
import pytest

from rheos.generation import Generation
from rheos.item_weights import ItemWeights
from rheos.snapshot import Manifest, Snapshot, SnapshotError
from rheos.state import History

PARAMETERS = {"session_gap_s": 1800, "half_steps": 4.0, "before": 0.5, "last": 6}
MINUTE_MS = 60_000


def drawn(items: int, each: int, seed: int = 0) -> ItemWeights:
    random = np.random.default_rng(seed)
    targets = [np.sort(random.choice(items, each, replace=False)) for _ in range(items)]
    return ItemWeights(
        each * np.arange(items + 1),
        np.concatenate(targets),
        random.standard_normal(each * items).astype(np.float32),
        PARAMETERS,
    )


def history(*steps: tuple[str, int], weights: list[float] | None = None) -> History:
    """Items and the minute of each."""
    return History(
        [item for item, _ in steps],
        np.array(weights or [1.0] * len(steps), np.float32),
        MINUTE_MS * np.array([minute for _, minute in steps], np.int64),
    )


def slow_shares(past: History, row_of: dict[str, int]) -> dict[int, float]:
    found: dict[int, float] = {}
    inside = True
    for place in reversed(range(len(past.item_ids))):
        if place + 1 < len(past.item_ids):
            gap_ms = past.times_ms[place + 1] - past.times_ms[place]
            inside = inside and gap_ms <= 1000 * PARAMETERS["session_gap_s"]
        row = row_of.get(past.item_ids[place])
        if row is None or row in found or len(found) == PARAMETERS["last"]:
            continue
        recency = 2 ** (-len(found) / PARAMETERS["half_steps"])
        found[row] = past.weights[place] * recency * (1.0 if inside else PARAMETERS["before"])
    return found


@pytest.mark.parametrize("items", [12, 5000])  # with sums over all items, and by sorting
@pytest.mark.parametrize("seed", range(3))
def test_scores_are_what_a_plain_loop_adds_up(items: int, seed: int) -> None:
    weights = drawn(items, each=5, seed=seed)
    random = np.random.default_rng(seed)
    row_of = {f"i{row}": row for row in range(items)}
    drawn_rows = random.integers(min(items, 30), size=12).tolist()
    steps = zip(drawn_rows, np.sort(random.integers(200, size=12)).tolist(), strict=True)
    past = history(
        *((f"i{row}", minute) for row, minute in steps), weights=random.normal(size=12).tolist()
    )
    expected = np.zeros(items)
    for row, share in slow_shares(past, row_of).items():
        for place in range(weights.starts[row], weights.starts[row + 1]):
            expected[weights.targets[place]] += share * weights.weights[place]
    share = weights.read(past, row_of)
    found = weights.scores(share)
    assert (np.diff(found.rows) > 0).all()
    np.testing.assert_allclose(found.of(np.arange(items)), expected, rtol=1e-5, atol=1e-7)
    assert np.isnan(found.of(np.array([-1, 0]))).tolist() == [True, False]
    told = weights.terms(share, range(items))
    for row in range(items):
        assert sum(part for _, part in told[row]) == pytest.approx(expected[row], abs=1e-6)
        assert {source for source, _ in told[row]} <= set(share.rows.tolist())


def test_a_history_is_read_newest_first_and_earlier_sessions_count_less() -> None:
    row_of = {name: row for row, name in enumerate("abcd")}
    past = history(("d", 0), ("a", 100), ("b", 110), ("a", 120), ("unknown", 121), ("c", 121))
    share = drawn(4, each=2).read(past, row_of)
    assert share.rows.tolist() == [2, 0, 1, 3]
    recency = 2.0 ** (-np.arange(4) / PARAMETERS["half_steps"])
    np.testing.assert_allclose(share.shares, recency * [1, 1, 1, PARAMETERS["before"]])


def test_only_so_many_items_are_read() -> None:
    row_of = {str(row): row for row in range(20)}
    past = history(*((str(row), row) for row in range(20)))
    assert drawn(20, each=2).read(past, row_of).rows.tolist() == [19, 18, 17, 16, 15, 14]


def test_nothing_known_scores_nothing() -> None:
    weights = drawn(4, each=2)
    for past in (history(), history(("unheard of", 0))):
        share = weights.read(past, {"a": 0})
        assert len(weights.scores(share).rows) == 0
        assert not weights.scores(share).of(np.array([0, 1])).any()
        assert weights.terms(share, [0, -1]) == [[], []]


def test_a_snapshot_gives_back_what_was_stored() -> None:
    weights = drawn(9, each=3)
    again = ItemWeights.load(weights.parameters, weights.tensors())
    for name, tensor in weights.tensors().items():
        np.testing.assert_array_equal(again.tensors()[name], tensor)
    assert weights.tensors()["item_weights.targets"].dtype == np.int32
    assert len(again) == 9


def test_items_without_weights_are_no_trouble() -> None:
    weights = ItemWeights(
        np.array([0, 0, 2, 2]), np.array([0, 2]), np.ones(2, np.float32), PARAMETERS
    )
    share = weights.read(history(("a", 0), ("b", 1), ("c", 2)), {"a": 0, "b": 1, "c": 2})
    assert weights.scores(share).rows.tolist() == [0, 2]


@pytest.mark.parametrize(
    ("changed", "text"),
    [
        ({"targets": np.array([0, 1, 2, 9])}, "none of the 3 items"),
        ({"targets": np.array([0, 1, 2, -1])}, "none of the 3 items"),
        ({"targets": np.array([0, 1, 2])}, "bounds"),
        ({"targets": np.zeros((2, 2), np.int64)}, "one row each"),
        ({"starts": np.array([0, 3, 2, 4])}, "bounds"),
        ({"starts": np.array([1, 2, 3, 4])}, "bounds"),
        ({"starts": np.array([0, 2, 3, 5])}, "bounds"),
        ({"starts": np.zeros(0, np.int64)}, "one row each"),
        ({"weights": np.ones(3, np.float32)}, "bounds"),
        ({"weights": np.array([1, np.nan, 1, 1], np.float32)}, "not finite"),
        ({"weights": np.array([1, np.inf, 1, 1], np.float32)}, "not finite"),
    ],
)
def test_broken_tensors_are_refused(changed: dict[str, np.ndarray], text: str) -> None:
    right = {
        "starts": np.array([0, 2, 3, 4]),
        "targets": np.array([0, 1, 2, 0]),
        "weights": np.ones(4, np.float32),
    }
    ItemWeights(**right, parameters=PARAMETERS)
    tensors = {f"item_weights.{name}": value for name, value in (right | changed).items()}
    with pytest.raises(ValueError, match=text):
        ItemWeights.load(PARAMETERS, tensors)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("session_gap_s", 0),
        ("half_steps", 0.0),
        ("half_steps", float("nan")),
        ("before", -0.1),
        ("before", "much"),
        ("last", 0),
        ("last", True),
    ],
)
def test_wrong_parameters_are_named(name: str, value: Any) -> None:
    with pytest.raises(ValueError, match=name):
        ItemWeights.load(PARAMETERS | {name: value}, drawn(3, each=2).tensors())
    without = {key: kept for key, kept in PARAMETERS.items() if key != name}
    with pytest.raises(KeyError, match=name):
        ItemWeights.load(without, drawn(3, each=2).tensors())


def generation_of(tensors: dict[str, np.ndarray], parameters: dict[str, Any]) -> Generation:
    manifest = Manifest(
        number=1,
        model="test",
        dimensions=2,
        items=3,
        interactions=1,
        created_ms=0,
        window={},
        parameters={},
        metrics={},
        encoder={"kind": "fold_in", "alpha": 1.0, "regularisation": 1.0},
        item_weights=parameters,
        software={},
    )
    whole = {"item_vectors": np.ones((3, 2), np.float32), "popularity": np.ones(3, np.float32)}
    return Generation(Snapshot("1-00000000", manifest, ["a", "b", "c"], whole | tensors))


def test_a_generation_with_broken_weights_is_refused() -> None:
    right = drawn(3, each=2).tensors()
    assert generation_of(right, PARAMETERS).item_weights is not None
    outside = right | {"item_weights.targets": np.full(6, 3, np.int32)}
    of_others = drawn(4, each=2).tensors()
    without = {name: tensor for name, tensor in right.items() if not name.endswith("starts")}
    for tensors in (outside, of_others, without):
        with pytest.raises(SnapshotError, match="item weights"):
            generation_of(tensors, PARAMETERS)
    with pytest.raises(SnapshotError, match="last"):
        generation_of(right, PARAMETERS | {"last": "all"})
