"""NeuMF as a ranker: the whole network on retrieved candidates, in NumPy.

He et al., "Neural Collaborative Filtering" (WWW 2017), section 3.4. The user's vector is the GMF
branch's p and what the user adds to the MLP branch's first layer; the item's part of that layer,
its bias included, is computed once for all items.
"""

from collections.abc import Mapping
from typing import Any, Self

import numpy as np

from rheos.state import Float32s, Int64s


class NeumfRanker:
    """score = pᵀ(h ⊙ q) + gᵀ MLP(a + b) + bias, with the user's (p, a) and the item's (h ⊙ q, b).

    ``item_vectors`` (N, d) are h ⊙ q, ``first`` (N, m) the items' b; ``weights`` and ``biases`` are
    the further layers' (m_k, m_k+1) and (m_k+1,), all with ReLU; ``out`` is g.
    """

    def __init__(
        self,
        item_vectors: Float32s,
        first: Float32s,
        weights: list[Float32s],
        biases: list[Float32s],
        out: Float32s,
        bias: float,
    ) -> None:
        widths = [first.shape[1], *(weight.shape[1] for weight in weights)]
        fit = first.shape[0] == item_vectors.shape[0] and out.shape == (widths[-1],)
        for before, after, weight, row in zip(widths, widths[1:], weights, biases, strict=False):
            fit = fit and weight.shape == (before, after) and row.shape == (after,)
        if not fit:
            raise ValueError("NeuMF ranker: the layers' shapes do not follow on each other")
        self._item_vectors = item_vectors
        self._first = first
        self._layers = list(zip(weights, biases, strict=True))
        self._out = out
        self._bias = np.float32(bias)

    @classmethod
    def load(cls, parameters: Mapping[str, Any], tensors: Mapping[str, Float32s]) -> Self:
        layers = range(parameters["layers"])
        return cls(
            tensors["item_vectors"],
            tensors["ranker.first"],
            [tensors[f"ranker.weight.{layer}"] for layer in layers],
            [tensors[f"ranker.bias.{layer}"] for layer in layers],
            tensors["ranker.out"],
            parameters["bias"],
        )

    def score(self, user_vector: Float32s, rows: Int64s) -> Float32s:
        d = self._item_vectors.shape[1]
        hidden = np.maximum(self._first[rows] + user_vector[d:], 0.0)  # (n, m)
        for weight, bias in self._layers:
            hidden = np.maximum(hidden @ weight + bias, 0.0)
        scores: Float32s = self._item_vectors[rows] @ user_vector[:d] + hidden @ self._out
        return scores + self._bias
