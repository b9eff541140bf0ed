"""The ranker: a blend of gradient-boosted regression trees over the features of candidates.

Trained as LambdaMART (Burges, "From RankNet to LambdaRank to LambdaMART", 2010), served from arrays
in NumPy: all candidates go down all trees together, a level at a time.
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, Self

import numpy as np

from rheos.blend import checked_features
from rheos.linear_blend import checked_weights
from rheos.state import Float64s, Int64s

DEEPEST = 64
"""No tree has more levels: a snapshot must not be able to make an answer slow."""


class Trees(NamedTuple):
    """The nodes of T trees one after the other, m in all; a parent stands before its children.

    ``roots`` (T,). A node sends a candidate whose feature number ``features`` (m,) is at most
    ``thresholds`` (m,) to ``left`` (m,), any other to ``right`` (m,), and one of which the feature
    cannot be told to the left where ``unknown_left`` (m,). A leaf is its own left and right, and
    adds its ``values`` (m,) to the score.
    """

    roots: Int64s
    features: Int64s
    thresholds: Float64s
    unknown_left: np.ndarray
    left: Int64s
    right: Int64s
    values: Float64s


class TreeBlend:
    """score = Σ_t (the value of the leaf of tree t that the candidate's features lead to).

    ``weights``, of the layers' z-scores, pick the candidates.
    """

    def __init__(self, weights: Mapping[str, float], features: Sequence[str], trees: Trees) -> None:
        self._weights = checked_weights(weights)
        self._features = checked_features(features)
        self._trees = trees
        self._levels = _checked_depth(trees, len(self._features))
        # Unknown features become -inf in a first set of columns and +inf in a second one, so that
        # one comparison serves nodes that send them left and nodes that send them right.
        self._columns = trees.features + np.where(trees.unknown_left, 0, len(self._features))
        self._children = np.stack([trees.right, trees.left], axis=1).ravel()

    @classmethod
    def load(cls, parameters: Mapping[str, Any], tensors: Mapping[str, np.ndarray]) -> Self:
        found = {name: tensors[f"blend.{name}"] for name in Trees._fields}
        for name in ("roots", "features", "left", "right"):
            if found[name].dtype.kind not in "iu":
                raise ValueError(f"blend: {name} are no whole numbers")
            found[name] = found[name].astype(np.int64)
        return cls(
            parameters["weights"],
            parameters["features"],
            Trees(**found | {"unknown_left": found["unknown_left"].astype(bool)}),
        )

    def parameters(self) -> dict[str, Any]:
        """What ``load`` reads, as a manifest holds it."""
        return {"kind": "trees", "weights": self._weights, "features": self._features}

    def tensors(self) -> dict[str, np.ndarray]:
        """What ``load`` reads, as a snapshot holds it."""
        trees = {name: np.asarray(values) for name, values in self._trees._asdict().items()}
        for name in ("roots", "features", "left", "right"):
            trees[name] = trees[name].astype(np.int32)
        trees["unknown_left"] = trees["unknown_left"].astype(np.uint8)
        return {f"blend.{name}": values for name, values in trees.items()}

    @property
    def weights(self) -> Mapping[str, float]:
        return self._weights

    @property
    def features(self) -> Sequence[str]:
        return self._features

    def score(self, features: Mapping[str, Float64s]) -> Float64s:
        told = np.stack([features[name] for name in self._features], axis=1)  # (n, F)
        unknown = np.isnan(told)
        told = np.hstack([np.where(unknown, -np.inf, told), np.where(unknown, np.inf, told)])
        count, width = told.shape
        table = told.ravel()
        begins = np.repeat(np.arange(count) * width, len(self._trees.roots))
        at = np.tile(self._trees.roots, count)  # (n · T,): where each candidate is in each tree
        for _ in range(self._levels):
            values = table.take(self._columns.take(at) + begins)
            goes_left = values <= self._trees.thresholds.take(at)
            at = self._children.take(2 * at + goes_left)
        leaves = self._trees.values.take(at).reshape(count, len(self._trees.roots))
        sums: Float64s = leaves.sum(axis=1)
        return sums


def _checked_depth(trees: Trees, features: int) -> int:
    """Levels of the deepest tree. Raises ValueError for arrays that are no trees."""
    nodes = len(trees.values)
    for name, values in trees._asdict().items():
        if values.ndim != 1 or (name != "roots" and len(values) != nodes):
            raise ValueError(f"blend: {name} of shape {values.shape}, {nodes} nodes")
    if not (len(trees.roots) and trees.roots.min() >= 0 and trees.roots.max() < nodes):
        raise ValueError(f"blend: a root is none of the {nodes} nodes")
    if not (trees.features.min() >= 0 and trees.features.max() < features):
        raise ValueError(f"blend: a node asks for none of the {features} features")
    if not (np.isfinite(trees.values).all() and np.isfinite(trees.thresholds).all()):
        raise ValueError("blend: a value or a threshold is not finite")
    own = np.arange(nodes)
    leaf = (trees.left == own) & (trees.right == own)
    inner = (np.minimum(trees.left, trees.right) > own) & (
        np.maximum(trees.left, trees.right) < nodes
    )
    if not (leaf | inner).all():  # so there are no cycles either
        raise ValueError(f"blend: node {int((leaf | inner).argmin())} does not lead to later nodes")
    reached = np.unique(trees.roots)
    for levels in range(DEEPEST + 1):
        reached = reached[~leaf[reached]]
        if not len(reached):
            return levels
        reached = np.unique([trees.left[reached], trees.right[reached]])
    raise ValueError(f"blend: a tree has more than {DEEPEST} levels")
