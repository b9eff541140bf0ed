"""Blends: sums of z-scores, and trees against a walk down each of them; hostile arrays."""

from typing import Any

import numpy as np
import pytest

from rheos.linear_blend import LinearBlend
from rheos.tree_blend import DEEPEST, TreeBlend, Trees

NAN = float("nan")
FEATURES = ["far.z", "far.rank", "count"]


def grown(random: np.random.Generator, trees: int, splits: int) -> Trees:
    """Trees of random splits; a leaf that is split gets its children at the end."""
    rows: list[list[Any]] = []
    roots = []
    for _ in range(trees):
        roots.append(len(rows))
        leaves = [len(rows)]
        rows.append([0, 0.0, False, len(rows), len(rows), random.normal()])
        for _ in range(splits):
            place = leaves.pop(int(random.integers(len(leaves))))
            children = [len(rows), len(rows) + 1]
            rows += [[0, 0.0, False, child, child, random.normal()] for child in children]
            leaves += children
            rows[place] = [
                int(random.integers(len(FEATURES))),
                float(np.round(random.normal(), 1)),
                bool(random.random() < 0.5),
                *random.permutation(children).tolist(),
                0.0,
            ]
    columns = [np.array(column) for column in zip(*rows, strict=True)]
    return Trees(np.array(roots), *columns)


def slow_score(trees: Trees, candidate: list[float]) -> float:
    total = 0.0
    for root in trees.roots.tolist():
        at = root
        while trees.left[at] != at:
            value = candidate[trees.features[at]]
            if value != value:
                goes_left = bool(trees.unknown_left[at])
            else:
                goes_left = value <= trees.thresholds[at]
            at = int(trees.left[at] if goes_left else trees.right[at])
        total += trees.values[at]
    return total


@pytest.mark.parametrize("seed", range(5))
def test_trees_score_as_a_walk_down_each_of_them_does(seed: int) -> None:
    random = np.random.default_rng(seed)
    trees = grown(random, trees=7, splits=12)
    told = np.round(random.normal(size=(60, len(FEATURES))), 1)  # equal to thresholds now and then
    told[random.random(told.shape) < 0.2] = NAN
    told[0] = [np.inf, -np.inf, NAN]
    blend = TreeBlend({"far": 1.0}, FEATURES, trees)
    found = blend.score({name: told[:, place] for place, name in enumerate(FEATURES)})
    assert found == pytest.approx([slow_score(trees, row) for row in told.tolist()], abs=1e-12)


def test_trees_survive_the_trip_through_a_snapshot() -> None:
    random = np.random.default_rng(3)
    blend = TreeBlend({"far": 1.0, "near": -0.5}, FEATURES, grown(random, 5, 9))
    again = TreeBlend.load(blend.parameters(), blend.tensors())
    features = {name: random.normal(size=20) for name in FEATURES}
    np.testing.assert_array_equal(blend.score(features), again.score(features))
    assert dict(again.weights) == {"far": 1.0, "near": -0.5}
    assert list(again.features) == FEATURES


def test_no_candidates_have_no_scores() -> None:
    blend = TreeBlend({"far": 1.0}, FEATURES, grown(np.random.default_rng(1), 2, 3))
    assert blend.score({name: np.zeros(0) for name in FEATURES}).shape == (0,)
    assert LinearBlend({"far": 1.0}).score({"far.z": np.zeros(0)}).shape == (0,)


def stump(**changes: Any) -> dict[str, np.ndarray]:
    """The tensors of one split with two leaves, with ``changes``."""
    tensors = {
        "roots": np.array([0]),
        "features": np.array([1, 0, 0]),
        "thresholds": np.array([0.5, 0.0, 0.0]),
        "unknown_left": np.array([1, 0, 0], np.uint8),
        "left": np.array([1, 1, 2]),
        "right": np.array([2, 1, 2]),
        "values": np.array([0.0, -1.0, 1.0]),
    } | {name: np.array(values) for name, values in changes.items()}
    return {f"blend.{name}": values for name, values in tensors.items()}


PARAMETERS = {"kind": "trees", "weights": {"far": 1.0}, "features": FEATURES}


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"left": [0, 1, 2]}, "node 0 does not lead to later nodes"),  # a cycle of one
        ({"left": [1, 0, 2]}, "node 1 does not lead to later nodes"),  # a longer one
        ({"right": [3, 1, 2]}, "node 0 does not lead to later nodes"),
        ({"right": [-1, 1, 2]}, "node 0 does not lead to later nodes"),
        ({"features": [3, 0, 0]}, "none of the 3 features"),
        ({"features": [-1, 0, 0]}, "none of the 3 features"),
        ({"features": [0.5, 0.0, 0.0]}, "no whole numbers"),
        ({"thresholds": [NAN, 0.0, 0.0]}, "not finite"),
        ({"thresholds": [np.inf, 0.0, 0.0]}, "not finite"),
        ({"values": [0.0, NAN, 1.0]}, "not finite"),
        ({"roots": [3]}, "a root is none of the 3 nodes"),
        ({"roots": [-1]}, "a root is none of the 3 nodes"),
        ({"roots": np.zeros(0, int)}, "a root is none of the 3 nodes"),
        ({"roots": [[0]]}, "roots of shape"),
        ({"values": [0.0, 1.0]}, "of shape"),
        ({"thresholds": [[0.5], [0.0], [0.0]]}, "of shape"),
    ],
)
def test_arrays_that_are_no_trees_are_refused(changes: dict[str, Any], text: str) -> None:
    assert TreeBlend.load(PARAMETERS, stump()).score(dict.fromkeys(FEATURES, np.ones(2))).any()
    with pytest.raises(ValueError, match=text):
        TreeBlend.load(PARAMETERS, stump(**changes))


def test_a_tree_that_would_take_for_ever_is_refused() -> None:
    levels = DEEPEST + 1
    inner = np.arange(levels)
    leaves = np.arange(levels, 2 * levels + 1)
    left = np.r_[inner + levels, leaves]
    right = np.r_[inner + 1, leaves]
    nodes = len(left)
    zeros = np.zeros(nodes)
    tensors = stump(
        features=np.zeros(nodes, int),
        thresholds=zeros,
        unknown_left=np.zeros(nodes, np.uint8),
        left=left,
        right=right,
        values=zeros,
    )
    with pytest.raises(ValueError, match="more than 64 levels"):
        TreeBlend.load(PARAMETERS, tensors)


@pytest.mark.parametrize("feature", ["far.luck", "luck", "far", ".z", "far.z.z", "z", "", "count."])
def test_features_that_nobody_can_compute_are_refused(feature: str) -> None:
    with pytest.raises(ValueError, match="no feature"):
        TreeBlend.load({**PARAMETERS, "features": ["far.z", feature, "count"]}, stump())


@pytest.mark.parametrize("weights", [{}, {"far": NAN}, {"far": float("inf")}, {"far": "much"}])
def test_wild_weights_are_refused(weights: dict[str, Any]) -> None:
    with pytest.raises(ValueError):
        LinearBlend.load({"weights": weights}, {})
    with pytest.raises(ValueError):
        TreeBlend.load({**PARAMETERS, "weights": weights}, stump())


def test_a_linear_blend_adds_up_weighed_z_scores() -> None:
    blend = LinearBlend({"far": 2.0, "trend": -0.5})
    assert list(blend.features) == ["far.z", "trend.z"]
    features = {"far.z": np.array([1.0, 0.0]), "trend.z": np.array([1.0, 4.0])}
    assert blend.score(features).tolist() == [1.5, -2.0]
    again = LinearBlend.load(blend.parameters(), blend.tensors())
    assert again.score(features).tolist() == [1.5, -2.0]
