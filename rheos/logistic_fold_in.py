"""Logistic fold-in: the encoder of factor models whose scores are log odds (MF, GMF, MLP, NeuMF).

Such a model is fitted with binary cross-entropy of what was taken against items that were not
(He et al., "Neural Collaborative Filtering", WWW 2017, eq. 7; Rendle, Krichene, Zhang & Anderson,
"Neural Collaborative Filtering vs. Matrix Factorization Revisited", RecSys 2020). With the items
fixed that loss is convex in the user's vector, and a few Newton steps minimise it: a folded-in
vector is what training would have made of the same history.
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, Self

import numpy as np
import numpy.typing as npt

from rheos.catalogue import UserAttributes
from rheos.encoder import EncoderContext
from rheos.history_map import damped
from rheos.latest_items import LatestItems, latest_items
from rheos.state import Float32s, History, Int64s

MOST_STEPS = 100
"""A snapshot must not be able to make an answer slow."""
STEEPEST = 0.25
"""The logistic function's steepest slope: with it no step overshoots the taken items' part."""


class LogisticFoldIn:
    """Item vectors are (q, b, 1, y) and user vectors (p, 1, c, a), of d, 1, 1 and m numbers.

    A score is p·q + b + c + y·a. First a = Σ_i s_i e_i A, from the items' features e; then p and c
    minimise, with the shares s_i = |w_i| r_i / Σ|w| r of the latest known items, t_i = 1 where
    w_i > 0 and else 0, and all items weighing ``negatives`` (k) times as much together,

        Σ_i s_i ℓ(z_i, t_i) + k mean_j ℓ(z_j, 0) + λ/2 (1 + k) (|p|² + c²),

    ℓ being the cross-entropy of the logit z, r_i = 2^(-age rank / ``half_steps``). Of all items
    ``anchors`` stand for them, drawn once; a user's own may be among those, as training draws from
    all, too. Each of ``steps`` is Newton's but for a Hessian that does not change: of the anchors
    it takes the mean over the fitted users, ``curvature`` (N,).
    """

    def __init__(
        self,
        context: EncoderContext,
        tensors: Mapping[str, Float32s],
        *,
        factors: int,
        negatives: float,
        regularisation: float,
        steps: int,
        anchors: int,
        half_steps: float,
        last: int,
    ) -> None:
        """``tensors``: encoder.curvature (N,), encoder.start (d + 1,) where p and c begin,
        encoder.features (N, f) and encoder.matrix (f, m). Raises ValueError, KeyError.
        """
        positive = (negatives, regularisation, steps, anchors, half_steps, last)
        if min(positive) <= 0 or factors < 0:
            raise ValueError(f"logistic fold-in: {positive} are above 0, factors not below")
        if steps > MOST_STEPS:
            raise ValueError(f"logistic fold-in: {steps} steps, {MOST_STEPS} at most")
        vectors = context.item_vectors
        self._curvature = tensors["encoder.curvature"]
        self._start = tensors["encoder.start"]
        self._features = tensors["encoder.features"]
        self._matrix = tensors["encoder.matrix"]
        items, width = vectors.shape
        mapped = width - factors - 2
        shapes = (
            self._curvature.shape == (items,),
            self._start.shape == (factors + 1,),
            self._features.shape == (items, self._matrix.shape[0]),
            self._matrix.shape[1] == mapped,
        )
        if not all(shapes):
            raise ValueError(f"logistic fold-in: tensors do not fit {items} items of {width}")
        self._row_of = context.row_of
        self._negatives = negatives
        self._ridge = regularisation * (1.0 + negatives)
        self._steps = steps
        self._half_steps = half_steps
        self._last = last
        self._factors = factors
        # What p and c multiply, and what they do not move.
        ones = np.ones((items, 1), np.float32)
        self._q = np.hstack([vectors[:, :factors], ones])  # (N, d + 1)
        self._b = np.ascontiguousarray(vectors[:, factors])
        self._y = np.ascontiguousarray(vectors[:, factors + 2 :])
        drawn = np.random.default_rng(0).permutation(items)[:anchors]
        self._anchors: Int64s = np.sort(drawn)
        weighed = self._q[self._anchors] * self._curvature[self._anchors, None]
        others = weighed.T @ self._q[self._anchors] / max(1, len(self._anchors))
        eye = np.eye(factors + 1, dtype=np.float32)
        self._fixed = negatives * others + self._ridge * eye  # (d + 1, d + 1)

    @classmethod
    def load(
        cls,
        parameters: Mapping[str, Any],
        tensors: Mapping[str, Float32s],
        context: EncoderContext,
    ) -> Self:
        given = {key: value for key, value in parameters.items() if key != "kind"}
        return cls(context, tensors, **given)

    @property
    def dimensions(self) -> int:
        return self._factors + 2 + int(self._matrix.shape[1])

    @property
    def reads_attributes(self) -> bool:
        return False

    def encode(
        self,
        histories: Sequence[History],
        attributes: Sequence[UserAttributes | None] | None = None,
    ) -> Float32s:
        d = self._factors
        out = np.zeros((len(histories), self.dimensions), np.float32)
        if not histories:
            return out
        latest = latest_items(histories, self._row_of, self._last)
        mean = mean_features(latest, self._half_steps, self._features)
        a = mean @ self._matrix  # (B, m)
        problem = self._problem(latest, a)
        x = self._solve(problem)
        out[:, :d], out[:, d], out[:, d + 1], out[:, d + 2 :] = x[:, :d], 1.0, x[:, d], a
        out[problem.shares.sum(axis=1) == 0] = 0.0
        return out

    def terms(self, history: History, item_ids: Sequence[str]) -> list[list[tuple[str, float]]]:
        return [[] for _ in item_ids]

    def _problem(self, latest: LatestItems, a: Float32s) -> "_Problem":
        """The losses of B users, as arrays."""
        shares = np.abs(damped(latest, (self._half_steps,))[:, :, 0])  # (B, n)
        offsets = a @ self._y[self._anchors].T + self._b[self._anchors]  # (B, M)
        own = np.einsum("bnm,bm->bn", self._y[latest.rows], a) + self._b[latest.rows]
        return _Problem(latest.rows, shares, latest.weights > 0, own, offsets)

    def _solve(self, problem: "_Problem") -> Float32s:
        """(p, c) of each user, (B, d + 1)."""
        own = self._q[problem.rows]  # (B, n, d + 1)
        anchors = self._q[self._anchors]  # (M, d + 1)
        each = self._negatives / max(1, len(anchors))
        weighed = own * (STEEPEST * problem.shares)[:, :, None]
        inverse = np.linalg.inv(self._fixed + np.matmul(weighed.transpose(0, 2, 1), own))
        x = np.repeat(self._start[None, :], len(own), axis=0)
        for _ in range(self._steps):
            z = np.matmul(own, x[:, :, None])[:, :, 0] + problem.own_offsets  # (B, n)
            pull = problem.shares * (_sigmoid(z) - problem.taken)
            push = each * _sigmoid(x @ anchors.T + problem.offsets)  # (B, M)
            gradient = np.matmul(pull[:, None, :], own)[:, 0, :] + push @ anchors
            gradient += self._ridge * x
            x = x - np.matmul(inverse, gradient[:, :, None])[:, :, 0]
        return x


class _Problem(NamedTuple):
    """B users' items: rows, shares, whether taken, offsets of the logits, each (B, n); and of the
    M anchors the offsets, (B, M).
    """

    rows: Int64s
    shares: Float32s
    taken: npt.NDArray[np.bool_]
    own_offsets: Float32s
    offsets: Float32s


def mean_features(latest: LatestItems, half_steps: float, features: Float32s) -> Float32s:
    """Σ_i w_i r_i e_i / Σ|w_i| r_i, the damped mean of the histories' features, (B, f)."""
    shares = damped(latest, (half_steps,))[:, :, 0]  # (B, n)
    means: Float32s = np.matmul(shares[:, None, :], features[latest.rows])[:, 0, :]
    return means


def _sigmoid(z: Float32s) -> Float32s:
    """By tanh, which does not overflow."""
    value: Float32s = 0.5 + 0.5 * np.tanh(0.5 * z)
    return value
