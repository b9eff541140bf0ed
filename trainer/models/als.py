"""Implicit ALS: matrix factorisation of confidence-weighted preferences.

Hu, Koren & Volinsky, "Collaborative Filtering for Implicit Feedback Datasets" (ICDM 2008). The
linear system of each row is solved by a few conjugate gradient steps from the last solution, as in
Takács, Pilászy & Tikk, "Applications of the Conjugate Gradient Method for Implicit Feedback
Collaborative Filtering" (RecSys 2011).
"""

from collections import deque
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Annotated, ClassVar, NamedTuple

import numpy as np
from msgspec import Meta, Struct
from threadpoolctl import threadpool_limits

from rheos.encoder import EncoderContext
from rheos.fold_in import FoldIn
from rheos.state import Float32s, Int32s, Int64s
from trainer.data_set import DataSet, Pairs, pairs
from trainer.models.model import Capability, Fitted, Run
from trainer.search_space import Range

BLOCK_PAIRS = 4096
"""Pairs solved at once, padding included: their (4096, 64) float32 factors fill 1 MB of cache."""


class Als(Struct, frozen=True, forbid_unknown_fields=True):
    """Minimises Σ c_ui (p_ui - x_uᵀ y_i)² + λ(Σ|x_u|² + Σ|y_i|²) over all users and items (eq. 3).

    c_ui = α r_ui for the pairs in the data and 1 for all others, r_ui = |w̄_ui| (1 + ln(1 + n_ui))
    of n_ui interactions of mean weight w̄_ui, and p_ui = 1 if w̄_ui > 0, else 0.
    """

    factors: Annotated[int, Meta(ge=1, le=1024, description="Length d of the vectors.")] = 64
    iterations: Annotated[int, Meta(ge=1, le=1000, description="Sweeps over users and items.")] = 15
    warm_iterations: Annotated[
        int, Meta(ge=1, le=1000, description="Sweeps where a fit starts from the last one.")
    ] = 10
    regularisation: Annotated[float, Meta(gt=0, description="λ of eq. 3.")] = 0.05
    alpha: Annotated[float, Meta(gt=0, description="α: how much more a taken item counts.")] = 20.0
    cg_steps: Annotated[
        int, Meta(ge=1, le=1000, description="Conjugate gradient steps per row and sweep.")
    ] = 3
    half_steps: Annotated[
        float, Meta(gt=0, description="Fold-in: items after which a history's weight halves.")
    ] = 1.5
    floor: Annotated[
        float, Meta(ge=0, description="Fold-in: what recency leaves of the oldest items.")
    ] = 0.005
    last: Annotated[
        int, Meta(ge=1, le=1000, description="Fold-in: latest distinct items that it reads.")
    ] = 20

    name: ClassVar[str] = "als"
    can: ClassVar[frozenset[Capability]] = frozenset(
        {"item_vectors", "fold_in", "explain", "warm_start"}
    )
    space: ClassVar[Mapping[str, Range]] = {
        "factors": Range(16, 256, log=True),
        "regularisation": Range(1e-3, 1.0, log=True),
        "alpha": Range(1.0, 100.0, log=True),
        "half_steps": Range(0.5, 20.0, log=True),
    }

    def fit(self, data: DataSet, run: Run) -> Fitted:
        found = pairs(data)
        if not (found.mean_weights > 0).any():
            raise ValueError("als: no interaction has a weight above 0")
        random = np.random.default_rng(run.seed)
        scale = 1.0 / self.factors
        X = random.normal(0, scale, (len(data.user_ids), self.factors)).astype(np.float32)
        Y = random.normal(0, scale, (len(data.item_ids), self.factors)).astype(np.float32)
        sweeps = self.iterations
        if run.start is not None:
            run.start.carry("user.X", data.user_ids, X)
            run.start.carry("item.Y", data.item_ids, Y)
            sweeps = self.warm_iterations
        extra, wanted = self._confidences(found)
        order = np.argsort(found.items, kind="stable")
        by_user = _blocks(found.users, found.items, extra, wanted, len(X))
        by_item = _blocks(
            found.items[order], found.users[order], extra[order], wanted[order], len(Y)
        )
        # The threads are ours, over blocks: BLAS' own would only get in their way.
        with threadpool_limits(1), ThreadPoolExecutor(max(1, run.threads)) as pool:
            for sweep in range(sweeps):
                self._sweep(X, Y, by_user, pool)
                self._sweep(Y, X, by_item, pool)
                run.progress("fit", sweep + 1, sweeps)
        encoder = FoldIn(
            EncoderContext({}, Y),
            alpha=self.alpha,
            regularisation=self.regularisation,
            half_steps=self.half_steps,
            floor=self.floor,
            last=self.last,
        )
        keep = {"user.X": X, "item.Y": Y}
        return Fitted(data.item_ids, Y, encoder.parameters, None, {}, X, keep=keep)

    def _confidences(self, found: Pairs) -> tuple[Float32s, Float32s]:
        """c - 1 and c p of each pair."""
        strength = np.abs(found.mean_weights) * (1.0 + np.log1p(found.counts))
        # A confidence below the 1 of the pairs that are not in the data would make c - 1 negative.
        extra = np.maximum(self.alpha * strength - 1.0, 0.0).astype(np.float32)
        return extra, np.where(found.mean_weights > 0, extra + 1.0, 0.0).astype(np.float32)

    def _sweep(
        self, X: Float32s, Y: Float32s, blocks: "list[_Block]", pool: ThreadPoolExecutor
    ) -> None:
        """Moves each row of X towards the minimum with Y fixed; rows are independent."""
        gram = Y.T @ Y + self.regularisation * np.eye(Y.shape[1], dtype=np.float32)

        def solve(block: _Block) -> None:
            X[block.rows] = _conjugate_gradient(X[block.rows], Y, gram, block, self.cg_steps)

        deque(pool.map(solve, blocks), maxlen=0)


class _Block(NamedTuple):
    """Rows with about as many pairs each, padded to the longest.

    ``rows`` (B,) into X; ``others`` (B, n) into Y; ``extra`` (B, n) is c - 1 and ``wanted`` (B, n)
    is c p, both 0 for padding.
    """

    rows: Int64s
    others: Int64s
    extra: Float32s
    wanted: Float32s


def _blocks(
    rows: Int32s, others: Int32s, extra: Float32s, wanted: Float32s, count: int
) -> list[_Block]:
    """Blocks of all rows; the pairs are sorted by row. A row without pairs gets an empty one."""
    begins = np.searchsorted(rows, np.arange(count + 1))
    lengths = np.diff(begins)
    order = np.argsort(lengths, kind="stable")
    made = []
    start = 0
    while start < count:
        # Lengths ascend, so a block of B rows is as wide as its last row is long.
        end = start + 1
        while end < count and (end + 1 - start) * max(1, lengths[order[end]]) <= BLOCK_PAIRS:
            end += 1
        picked = order[start:end]
        width = max(1, int(lengths[order[end - 1]]))
        place = begins[picked][:, None] + np.arange(width)  # (B, n)
        real = np.arange(width) < lengths[picked][:, None]
        place = np.where(real, place, 0)
        made.append(
            _Block(
                picked, others[place].astype(np.int64), extra[place] * real, wanted[place] * real
            )
        )
        start = end
    return made


def _conjugate_gradient(
    x: Float32s, Y: Float32s, gram: Float32s, block: _Block, steps: int
) -> Float32s:
    """x after ``steps`` towards (YᵀY + λI + Yᵤᵀ (Cᵤ - I) Yᵤ) x = Yᵤᵀ Cᵤ pᵤ (eq. 4), (B, d)."""
    Yu = Y[block.others]  # (B, n, d)

    def times(vectors: Float32s) -> Float32s:
        scores = np.matmul(Yu, vectors[:, :, None])[:, :, 0] * block.extra  # (B, n)
        product: Float32s = vectors @ gram
        product += np.matmul(scores[:, None, :], Yu)[:, 0, :]
        return product

    r = np.matmul(block.wanted[:, None, :], Yu)[:, 0, :] - times(x)
    p = r.copy()
    squared = np.einsum("bd,bd->b", r, r)
    for _ in range(steps):
        Ap = times(p)
        curvature = np.einsum("bd,bd->b", p, Ap)
        # Solved rows have r = 0, so p = 0: they stay.
        step = np.divide(squared, curvature, out=np.zeros_like(squared), where=curvature > 0)
        x = x + step[:, None] * p
        r -= step[:, None] * Ap
        before, squared = squared, np.einsum("bd,bd->b", r, r)
        turn = np.divide(squared, before, out=np.zeros_like(squared), where=before > 0)
        p = r + turn[:, None] * p
    return x
