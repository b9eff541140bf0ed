"""The user tower of a two-tower model, in NumPy: history and attributes → vector.

Covington, Adams & Sargin, "Deep Neural Networks for YouTube Recommendations" (RecSys 2016),
section 3: what was watched is averaged, what is known of the user stands beside it.

    x = [mean_s of the history's embeddings, one a recency s]; a vector of its own without a history
    u = x S + relu(x W + f + b) O + o ,      f = Σ weight · row of the user's features
"""

from collections.abc import Mapping, Sequence
from typing import Any, Self

import numpy as np

from rheos.catalogue import UserAttributes
from rheos.encoder import EncoderContext
from rheos.features import Features
from rheos.history_map import damped
from rheos.latest_items import latest_items
from rheos.state import Float32s, History


class TwoTowerEncoder:
    """``history`` (N, h) embeds the items of a history, ``table`` (F, m) the user's features.

    ``nothing`` (1, S h) is x where a history has no weight, ``first`` W (S h, m), ``bias`` b (m,),
    ``skip`` S (S h, d), ``out`` O (m, d), ``out_bias`` o (d,). The vectors cannot be taken apart:
    ``terms`` are empty.
    """

    def __init__(
        self,
        context: EncoderContext,
        features: Features,
        tensors: Mapping[str, Float32s],
        *,
        half_steps: Sequence[float],
        last: int,
    ) -> None:
        if not (half_steps and min(half_steps) > 0 and last > 0):
            raise ValueError("two-tower encoder: half_steps and last are above 0")
        self._history = tensors["encoder.history"]
        self._table = tensors["encoder.table"]
        self._first, self._bias = tensors["encoder.first"], tensors["encoder.bias"]
        self._nothing, self._skip = tensors["encoder.nothing"], tensors["encoder.skip"]
        self._out, self._out_bias = tensors["encoder.out"], tensors["encoder.out_bias"]
        items, d = context.item_vectors.shape
        if self._history.ndim != 2:
            raise ValueError(f"two-tower encoder: history has {self._history.ndim} dimensions")
        hidden, wide = len(self._bias), len(half_steps) * self._history.shape[1]
        shapes = {
            "history": (self._history.shape[0], items),
            "table": (self._table.shape, (features.size, hidden)),
            "first": (self._first.shape, (wide, hidden)),
            "nothing": (self._nothing.shape, (1, wide)),
            "skip": (self._skip.shape, (wide, d)),
            "out": (self._out.shape, (hidden, d)),
            "out_bias": (self._out_bias.shape, (d,)),
        }
        for name, (found, wanted) in shapes.items():
            if found != wanted:
                raise ValueError(f"two-tower encoder: {name} is {found}, not {wanted}")
        self._features = features
        self._row_of = context.row_of
        self._half_steps = tuple(half_steps)
        self._last = last

    @classmethod
    def load(
        cls,
        parameters: Mapping[str, Any],
        tensors: Mapping[str, Float32s],
        context: EncoderContext,
    ) -> Self:
        return cls(
            context,
            Features.load(parameters["features"]),
            tensors,
            half_steps=parameters["half_steps"],
            last=parameters["last"],
        )

    @property
    def dimensions(self) -> int:
        return len(self._out_bias)

    @property
    def reads_attributes(self) -> bool:
        return self._features.size > 0

    def encode(
        self,
        histories: Sequence[History],
        attributes: Sequence[UserAttributes | None] | None = None,
    ) -> Float32s:
        bags = self._features.encode([None] * len(histories) if attributes is None else attributes)
        latest = latest_items(histories, self._row_of, self._last)
        shares = damped(latest, self._half_steps).transpose(0, 2, 1)  # (B, S, n)
        means = np.matmul(shares, self._history[latest.rows])  # (B, S, h)
        x = means.reshape(len(histories), self._first.shape[0])
        x[~shares.any(axis=(1, 2))] = self._nothing
        hidden = np.maximum(x @ self._first + bags.sums(self._table) + self._bias, 0.0)  # (B, m)
        vectors: Float32s = x @ self._skip + hidden @ self._out + self._out_bias
        vectors[~(latest.known.any(axis=1) | bags.known)] = 0.0
        return vectors

    def terms(self, history: History, item_ids: Sequence[str]) -> list[list[tuple[str, float]]]:
        return [[] for _ in item_ids]
