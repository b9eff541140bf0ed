"""NeuMF as a ranker: the whole network on retrieved candidates, in NumPy.

He et al., "Neural Collaborative Filtering" (WWW 2017), section 3.4. Retrieval scores by an inner
product, in which the MLP branch is replaced by its best linear approximation; here it has its say
in full. MLP alone is the same without a GMF branch.
"""

from collections.abc import Mapping
from typing import Any, Self

import numpy as np

from rheos.state import Float32s, Int64s


class NeumfRanker:
    """score = u₀ᵀ v₀ - s + gᵀ MLP(a + b): the GMF branch and the biases, and the MLP branch.

    s (N,) in ``shift`` is the constant of MLP's linear approximation, which the bias in v₀ has.
    v₀ and u₀ are the first ``linear`` numbers of the item's and the user's vector, a the last m of
    the user's, b (N, m) in ``first`` the item's part of MLP's first layer, its bias included.
    ``weights`` and ``biases`` are the further layers' (m_k, m_k+1) and (m_k+1,), all with ReLU;
    ``out`` is g.
    """

    def __init__(
        self,
        item_vectors: Float32s,
        first: Float32s,
        weights: list[Float32s],
        biases: list[Float32s],
        out: Float32s,
        shift: Float32s,
        linear: int,
    ) -> None:
        widths = [first.shape[1], *(weight.shape[1] for weight in weights)]
        fit = first.shape[0] == item_vectors.shape[0] and out.shape == (widths[-1],)
        fit = fit and shift.shape == first.shape[:1]
        fit = fit and linear + first.shape[1] <= item_vectors.shape[1]
        for before, after, weight, row in zip(widths, widths[1:], weights, biases, strict=False):
            fit = fit and weight.shape == (before, after) and row.shape == (after,)
        if not fit:
            raise ValueError("NeuMF ranker: the layers' shapes do not follow on each other")
        self._linear = np.ascontiguousarray(item_vectors[:, :linear])
        self._first = first
        self._layers = list(zip(weights, biases, strict=True))
        self._out = out
        self._shift = shift

    @classmethod
    def load(cls, parameters: Mapping[str, Any], tensors: Mapping[str, Float32s]) -> Self:
        layers = range(parameters["layers"])
        return cls(
            tensors["item_vectors"],
            tensors["ranker.first"],
            [tensors[f"ranker.weight.{layer}"] for layer in layers],
            [tensors[f"ranker.bias.{layer}"] for layer in layers],
            tensors["ranker.out"],
            tensors["ranker.shift"],
            parameters["linear"],
        )

    def score(self, user_vector: Float32s, rows: Int64s) -> Float32s:
        linear, m = self._linear.shape[1], self._first.shape[1]
        hidden = np.maximum(self._first[rows] + user_vector[len(user_vector) - m :], 0.0)  # (n, m)
        for weight, bias in self._layers:
            hidden = np.maximum(hidden @ weight + bias, 0.0)
        scores: Float32s = self._linear[rows] @ user_vector[:linear] + hidden @ self._out
        return scores - self._shift[rows]
