"""History map: an encoder for models whose user vectors no closed formula gives.

A fitted linear map takes means of the history's item features, one mean a recency, to the vector:

    u = Σ_s [ Σ_i c_is e_i / Σ_i |c_is| ] A_s ,      c_is = w_i 2^(-age rank of i / half_steps_s)

over the latest distinct known items i, e_i being item i's features. Everything is linear in the
items, so a retrieval score falls apart into one term an item.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Self

import numpy as np

from rheos.catalogue import UserAttributes
from rheos.encoder import EncoderContext
from rheos.latest_items import LatestItems, latest_items
from rheos.state import Float32s, History


def damped(latest: LatestItems, half_steps: Sequence[float]) -> Float32s:
    """c_is / Σ|c_is|, (B, n, S); 0 for padding, and everywhere where all weights are 0."""
    age = np.arange(latest.rows.shape[1])[:, None]
    recency = 0.5 ** (age / np.asarray(half_steps, np.float64))  # (n, S)
    share = latest.weights[:, :, None] * recency.astype(np.float32)  # (B, n, S)
    total = np.abs(share).sum(axis=1, keepdims=True)
    shares: Float32s = np.divide(share, total, out=np.zeros_like(share), where=total > 0)
    return shares


class HistoryMap:
    """``features`` (N, f) per item; ``matrix`` (S, f, dimensions) per recency of ``half_steps``."""

    def __init__(
        self,
        context: EncoderContext,
        features: Float32s,
        matrix: Float32s,
        *,
        half_steps: Sequence[float],
        last: int,
    ) -> None:
        if not (half_steps and min(half_steps) > 0 and last > 0):
            raise ValueError("history map: half_steps and last are above 0")
        items, retrieval = context.item_vectors.shape
        if features.shape[0] != items or matrix.shape[:2] != (len(half_steps), features.shape[1]):
            raise ValueError(
                f"history map: features {features.shape} and matrix {matrix.shape} do not fit"
                f" {items} items and {len(half_steps)} recencies"
            )
        if matrix.shape[2] < retrieval:
            raise ValueError(
                f"history map: vectors of {matrix.shape[2]}, item vectors of {retrieval}"
            )
        self._row_of = context.row_of
        self._item_vectors = context.item_vectors
        self._features = features
        self._matrix = matrix
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
            tensors["encoder.features"],
            tensors["encoder.matrix"],
            half_steps=parameters["half_steps"],
            last=parameters["last"],
        )

    @property
    def dimensions(self) -> int:
        return int(self._matrix.shape[2])

    @property
    def reads_attributes(self) -> bool:
        return False

    def encode(
        self,
        histories: Sequence[History],
        attributes: Sequence[UserAttributes | None] | None = None,
    ) -> Float32s:
        latest = latest_items(histories, self._row_of, self._last)
        shares = damped(latest, self._half_steps)
        features = self._features[latest.rows]  # (B, n, f)
        means = np.matmul(shares.transpose(0, 2, 1), features)  # (B, S, f)
        steps, width, dimensions = self._matrix.shape
        flat = means.reshape(len(histories), steps * width)
        vectors: Float32s = flat @ self._matrix.reshape(steps * width, dimensions)
        return vectors

    def terms(self, history: History, item_ids: Sequence[str]) -> list[list[tuple[str, float]]]:
        latest = latest_items([history], self._row_of, self._last)
        name_of = {self._row_of[item]: item for item in history.item_ids if item in self._row_of}
        rows = latest.rows[0][latest.known[0]]
        shares = damped(latest, self._half_steps)[0][latest.known[0]]  # (n, S)
        retrieval = self._item_vectors.shape[1]
        # What each item of the history adds to the vector: (n, d).
        parts = np.einsum(
            "ns,nf,sfd->nd", shares, self._features[rows], self._matrix[:, :, :retrieval]
        )
        told: list[list[tuple[str, float]]] = []
        for item in item_ids:
            row = self._row_of.get(item)
            scores = [] if row is None else (parts @ self._item_vectors[row]).tolist()
            told.append(
                [(name_of[int(source)], score) for source, score in zip(rows, scores, strict=False)]
            )
        return told
