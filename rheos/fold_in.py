"""Fold-in: the encoder of a factor model, a weighted ridge regression on fixed item vectors.

Hu, Koren & Volinsky, "Collaborative Filtering for Implicit Feedback Datasets" (ICDM 2008):
eq. 4 solves the user's vector, section 5 takes a score apart into the history's terms.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Self

import numpy as np

from rheos.catalogue import UserAttributes
from rheos.encoder import EncoderContext
from rheos.latest_items import latest_items
from rheos.state import Float32s, History, Int64s


class FoldIn:
    """x = (YᵀY + Yᵀ D Y + λI)⁻¹ Yᵀ c over the latest ``last`` distinct known items of a history.

    Dᵢᵢ = α|wᵢ|rᵢ; the target is 1 with confidence cᵢ = 1 + Dᵢᵢ where wᵢ > 0 and 0 where wᵢ < 0
    (confidences are never negative: a negative one makes the matrix indefinite). The recency
    factor is rᵢ = 2^(-age rank / ``half_steps``) + ``floor``.
    """

    def __init__(
        self,
        context: EncoderContext,
        *,
        alpha: float,
        regularisation: float,
        half_steps: float = 1.5,
        floor: float = 0.005,
        last: int = 20,
    ) -> None:
        if not (alpha > 0 and regularisation > 0 and half_steps > 0 and floor >= 0 and last > 0):
            raise ValueError("fold-in: alpha, regularisation, half_steps and last are above 0")
        self.parameters = {
            "kind": "fold_in",
            "alpha": alpha,
            "regularisation": regularisation,
            "half_steps": half_steps,
            "floor": floor,
            "last": last,
        }
        self._row_of = context.row_of
        self._alpha = alpha
        self._last = last
        self._recency = (0.5 ** (np.arange(last) / half_steps) + floor).astype(np.float32)
        vectors = context.item_vectors.astype(np.float64)
        gram = vectors.T @ vectors + regularisation * np.eye(vectors.shape[1])
        # Z = Y (YᵀY + λI)⁻¹: with it each user costs a system of her items, not of d (push-through
        # identity): x = Zᵀ (I + D Y Zᵀ)⁻¹ c.
        self._solved = np.linalg.solve(gram, vectors.T).T.astype(np.float32)  # (N, d)
        self._vectors = context.item_vectors

    @classmethod
    def load(
        cls,
        parameters: Mapping[str, Any],
        tensors: Mapping[str, Float32s],
        context: EncoderContext,
    ) -> Self:
        return cls(context, **{key: parameters[key] for key in parameters if key != "kind"})

    @property
    def dimensions(self) -> int:
        return int(self._vectors.shape[1])

    @property
    def reads_attributes(self) -> bool:
        return False

    def encode(
        self,
        histories: Sequence[History],
        attributes: Sequence[UserAttributes | None] | None = None,
    ) -> Float32s:
        out = np.zeros((len(histories), self.dimensions), np.float32)
        if not histories:
            return out
        rows, weights, known = self._padded(histories)
        solved = self._solved[rows]  # (B, n, d)
        coefficients = self._coefficients(rows, weights, known, solved)
        np.matmul(coefficients[:, None, :], solved, out=out[:, None, :])
        return out

    def terms(self, history: History, item_ids: Sequence[str]) -> list[list[tuple[str, float]]]:
        rows, weights, known = self._padded([history])
        solved = self._solved[rows]
        coefficients = self._coefficients(rows, weights, known, solved)[0]  # (n,)
        name_of = {self._row_of[item]: item for item in history.item_ids if item in self._row_of}
        out: list[list[tuple[str, float]]] = []
        for item in item_ids:
            row = self._row_of.get(item)
            if row is None:
                out.append([])
                continue
            parts = (solved[0] @ self._vectors[row]) * coefficients  # (n,)
            out.append(
                [
                    (name_of[int(source)], float(part))
                    for source, part, real in zip(rows[0], parts, known[0], strict=True)
                    if real
                ]
            )
        return out

    def _coefficients(
        self, rows: Int64s, weights: Float32s, known: np.ndarray, solved: Float32s
    ) -> Float32s:
        """(I + D Y Zᵀ)⁻¹ c, (B, n); 0 for padding."""
        confidence = self._alpha * np.abs(weights)  # D, (B, n)
        target = np.where(weights > 0, 1.0 + confidence, 0.0) * known  # c, (B, n)
        kernel = np.matmul(self._vectors[rows], solved.transpose(0, 2, 1))  # Y Zᵀ, (B, n, n)
        system = confidence[:, :, None] * kernel
        diagonal = np.arange(system.shape[1])
        system[:, diagonal, diagonal] += 1.0
        solution: Float32s = np.linalg.solve(system, target[:, :, None])[:, :, 0]
        return solution.astype(np.float32, copy=False)

    def _padded(self, histories: Sequence[History]) -> tuple[Int64s, Float32s, np.ndarray]:
        """Rows, weights and a mask, each (B, n); the weights are damped by recency."""
        rows, weights, known = latest_items(histories, self._row_of, self._last)
        return rows, weights * self._recency[: rows.shape[1]], known
