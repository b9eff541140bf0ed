"""Fusion: a blend that adds up the layers' z-scores, with weights learned on recorded answers."""

import math
from collections.abc import Mapping, Sequence
from typing import Any, Self

import numpy as np

from rheos.state import Float64s


def checked_weights(weights: Mapping[str, Any]) -> dict[str, float]:
    """Layers' weights as a manifest holds them. Raises ValueError for none, or a wild one."""
    found = {name: float(weight) for name, weight in weights.items()}
    if not found or not all(map(math.isfinite, found.values())):
        raise ValueError(f"blend: weights {found} are not finite numbers, one a layer")
    return found


class LinearBlend:
    """score = Σ_l w_l z_l over the layers l; z_l is 0 where l cannot tell."""

    def __init__(self, weights: Mapping[str, float]) -> None:
        self._weights = checked_weights(weights)
        self._features = [f"{layer}.z" for layer in self._weights]

    @classmethod
    def load(cls, parameters: Mapping[str, Any], tensors: Mapping[str, np.ndarray]) -> Self:
        return cls(parameters["weights"])

    def parameters(self) -> dict[str, Any]:
        """What ``load`` reads, as a manifest holds it."""
        return {"kind": "linear", "weights": self._weights}

    def tensors(self) -> dict[str, np.ndarray]:
        """None: the manifest holds everything."""
        return {}

    @property
    def weights(self) -> Mapping[str, float]:
        return self._weights

    @property
    def features(self) -> Sequence[str]:
        return self._features

    def score(self, features: Mapping[str, Float64s]) -> Float64s:
        weights = np.array(list(self._weights.values()))
        sums: Float64s = weights @ np.stack([features[name] for name in self._features])
        return sums
