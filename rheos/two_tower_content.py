"""The item tower of a two-tower model without the item's own embedding, in NumPy.

    z = Σ weight · row of the item's features ,      v = z + relu(z W + b) O

In training the own embedding, which is added to z, is left out at random; so z alone is worth
something, and an item without events has a vector of the same space.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Self

import numpy as np

from rheos.catalogue import Item
from rheos.features import Features
from rheos.state import Float32s


class TwoTowerContent:
    """``table`` (F, d) embeds the features; ``first`` W (d, m), ``bias`` b (m,), ``out`` O (m, d).

    An item of which no feature is known gets zeros.
    """

    def __init__(self, features: Features, tensors: Mapping[str, Float32s]) -> None:
        self._features = features
        self._table = tensors["content.table"]
        self._first, self._bias = tensors["content.first"], tensors["content.bias"]
        self._out = tensors["content.out"]
        d, hidden = self._first.shape
        shapes = {
            "first": (d, tensors["item_vectors"].shape[1]),
            "table": (self._table.shape, (features.size, d)),
            "bias": (self._bias.shape, (hidden,)),
            "out": (self._out.shape, (hidden, d)),
        }
        for name, (found, wanted) in shapes.items():
            if found != wanted:
                raise ValueError(f"two-tower content: {name} is {found}, not {wanted}")

    @classmethod
    def load(cls, parameters: Mapping[str, Any], tensors: Mapping[str, Float32s]) -> Self:
        return cls(Features.load(parameters["features"]), tensors)

    def encode(self, items: Sequence[Item]) -> Float32s:
        bags = self._features.encode(items)
        z = bags.sums(self._table)
        vectors: Float32s = z + np.maximum(z @ self._first + self._bias, 0.0) @ self._out
        vectors[~bags.known] = 0.0
        return vectors
