"""The ranker: LambdaMART on recorded queries, by LightGBM; ``rheos.tree_blend`` serves it."""

from collections.abc import Mapping, Sequence
from typing import Any

import lightgbm
import numpy as np

from rheos.tree_blend import TreeBlend, Trees
from trainer.blending.examples import Examples

TREES = 120
PARAMETERS: Mapping[str, Any] = {
    "objective": "lambdarank",
    "learning_rate": 0.06,
    "num_leaves": 24,
    "max_depth": 7,
    "min_data_in_leaf": 100,
    "lambda_l2": 5.0,
    "feature_fraction": 0.7,
    "bagging_fraction": 0.7,
    "bagging_freq": 1,
    "lambdarank_truncation_level": 30,
    "deterministic": True,
    "force_row_wise": True,
    "verbosity": -1,
}


def fit_trees(
    examples: Examples, weights: Mapping[str, float], *, seed: int, threads: int
) -> TreeBlend:
    """A ranker of the candidates of ``examples``, which ``weights`` have picked."""
    data = lightgbm.Dataset(
        examples.features,
        examples.relevant.astype(np.int32),
        group=np.diff(examples.begins),
        feature_name=[name.replace(".", "_") for name in examples.names],
        free_raw_data=False,
    )
    parameters = {**PARAMETERS, "seed": seed, "num_threads": threads}
    booster = lightgbm.train(parameters, data, num_boost_round=TREES)
    return blend_of(booster, weights, examples.names)


def blend_of(
    booster: lightgbm.Booster, weights: Mapping[str, float], features: Sequence[str]
) -> TreeBlend:
    """A booster's trees as a blend, whose scores are ``booster.predict``'s."""
    nodes = _Nodes()
    roots = [nodes.add(tree["tree_structure"]) for tree in booster.dump_model()["tree_info"]]
    splits, thresholds, unknown_left, left, right, values = zip(*nodes.rows, strict=True)
    trees = Trees(
        np.array(roots, np.int64),
        np.array(splits, np.int64),
        np.array(thresholds, np.float64),
        np.array(unknown_left, bool),
        np.array(left, np.int64),
        np.array(right, np.int64),
        np.array(values, np.float64),
    )
    return TreeBlend(weights, features, trees)


class _Nodes:
    """Nodes in the order of ``Trees``: feature, threshold, unknown left, left, right, value."""

    def __init__(self) -> None:
        self.rows: list[tuple[int, float, bool, int, int, float]] = []

    def add(self, node: Mapping[str, Any]) -> int:
        """Adds a node with all below it; gives back its place."""
        place = len(self.rows)
        if "leaf_value" in node:
            self.rows.append((0, 0.0, False, place, place, node["leaf_value"]))
            return place
        self.rows.append((0, 0.0, False, 0, 0, 0.0))  # its children stand after it
        left, right = self.add(node["left_child"]), self.add(node["right_child"])
        # Where a feature was never missing in training, LightGBM takes a missing one for 0.
        seen = node["missing_type"] == "NaN"
        unknown_left = node["default_left"] if seen else node["threshold"] >= 0
        self.rows[place] = (
            *(node["split_feature"], node["threshold"], unknown_left),
            *(left, right, 0.0),
        )
        return place
