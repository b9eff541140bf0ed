"""Item→item weights: for each item those that are taken with it, as a model learned them."""

from collections.abc import Mapping
from typing import Any, Self

import numpy as np

from rheos.state import Float32s, Int64s


class ItemWeights:
    """The strongest weights of each item, in compressed sparse rows.

    Item i points at ``targets[starts[i]:starts[i + 1]]`` with ``weights`` of the same places;
    ``starts`` (N + 1,), ``targets`` and ``weights`` (n,). ``parameters`` say how a history is read,
    and travel in the manifest.
    """

    def __init__(
        self, starts: Int64s, targets: Int64s, weights: Float32s, parameters: Mapping[str, Any]
    ) -> None:
        items = len(starts) - 1
        fit = starts[0] == 0 and starts[-1] == len(targets) and (np.diff(starts) >= 0).all()
        if items < 0 or not fit or len(weights) != len(targets):
            raise ValueError("item weights: the rows' bounds do not follow on each other")
        if len(targets) and not (targets.min() >= 0 and targets.max() < items):
            raise ValueError(f"item weights: a target is none of the {items} items")
        self.starts = starts
        self.targets = targets
        self.weights = weights
        self.parameters = dict(parameters)

    def __len__(self) -> int:
        return len(self.starts) - 1

    @classmethod
    def load(cls, parameters: Mapping[str, Any], tensors: Mapping[str, np.ndarray]) -> Self:
        return cls(
            tensors["item_weights.starts"].astype(np.int64),
            tensors["item_weights.targets"].astype(np.int64),
            tensors["item_weights.weights"],
            parameters,
        )

    def tensors(self) -> dict[str, np.ndarray]:
        """What ``load`` reads, as a snapshot holds it."""
        return {
            "item_weights.starts": self.starts.astype(np.int64),
            "item_weights.targets": self.targets.astype(np.int32),
            "item_weights.weights": self.weights.astype(np.float32),
        }
