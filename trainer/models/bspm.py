"""BSPM: a graph filter in closed form, without any training.

Choi, Hong, Park & Cho, "Blurring-Sharpening Process Models for Collaborative Filtering" (SIGIR
2023): the operator is in ``trainer.models.blurring``.
"""

from collections.abc import Mapping
from typing import Annotated, ClassVar

import numpy as np
import torch
from msgspec import Meta, Struct
from threadpoolctl import threadpool_limits

from rheos.item_weights import ItemWeights
from rheos.state import Float32s
from trainer.data_set import DataSet
from trainer.device import torch_threads
from trainer.models.blurring import Blurring
from trainer.models.interaction_graph import graph_of
from trainer.models.low_rank import low_rank
from trainer.models.model import Capability, Fitted, Run
from trainer.search_space import Range

BLOCK_CELLS = 1 << 24
"""Numbers of the operator that stand in memory at once, a few times over: 64 MB of float32."""


class Bspm(Struct, frozen=True, forbid_unknown_fields=True):
    """Scores a history by the items' graph: smoothed, then sharpened, and never trained.

    A pair is an edge of the graph where its mean weight is above 0. What serves is the operator's
    largest weights of each item, and beside them its best approximation of low rank as vectors.
    """

    rank: Annotated[
        int, Meta(ge=1, le=4096, description="Singular vectors of the ideal low-pass filter.")
    ] = 448
    low_pass: Annotated[float, Meta(ge=0, description="β: what that filter counts.")] = 0.2
    sharpening: Annotated[
        float, Meta(ge=0, le=2.78, description="T: how long the sharpening lasts.")
    ] = 2.5
    weights: Annotated[
        int, Meta(ge=1, le=10_000, description="Weights kept per item, the largest by size.")
    ] = 200
    factors: Annotated[
        int, Meta(ge=1, le=1024, description="Length d of the vectors, which approximate.")
    ] = 128
    half_steps: Annotated[
        float, Meta(gt=0, description="Items after which a history's weight halves.")
    ] = 8.0
    last: Annotated[
        int, Meta(ge=1, le=10_000, description="Latest distinct items that are read of a history.")
    ] = 100

    name: ClassVar[str] = "bspm"
    can: ClassVar[frozenset[Capability]] = frozenset(
        {"item_vectors", "fold_in", "explain", "item_weights"}
    )
    space: ClassVar[Mapping[str, Range]] = {
        "rank": Range(64, 1024, log=True),
        "low_pass": Range(0.0, 1.0),
        "sharpening": Range(0.5, 2.7),
        "half_steps": Range(1.0, 50.0, log=True),
    }

    def fit(self, data: DataSet, run: Run) -> Fitted:
        graph = graph_of(data)
        with threadpool_limits(max(1, run.threads)), torch_threads(run.threads):
            operator = self.operator(data, run.seed)
            run.progress("fit", 1, 3)
            items = graph.item_count
            found = low_rank(
                operator.times, operator.times_transposed, items, self.factors, run.seed
            )
            run.progress("fit", 2, 3)
            features, vectors = found.factors()
            weights = self._item_weights(operator, items)
            run.progress("fit", 3, 3)
        matrix = np.eye(features.shape[1], dtype=np.float32)[None]
        return Fitted(
            data.item_ids,
            vectors,
            {"kind": "history_map", "half_steps": [self.half_steps], "last": self.last},
            None,
            {"encoder.features": features, "encoder.matrix": matrix},
            np.asarray(graph.means() @ features, np.float32),
            weights,
        )

    def operator(self, data: DataSet, seed: int) -> Blurring:
        """The operator itself, which nothing is cut off from."""
        return Blurring(
            graph_of(data),
            rank=self.rank,
            low_pass=self.low_pass,
            sharpening=self.sharpening,
            seed=seed,
        )

    def _item_weights(self, operator: Blurring, items: int) -> ItemWeights:
        """The largest of each row of S, which is what a history of that item alone scores."""
        kept = min(self.weights, items)
        targets = np.empty((items, kept), np.int64)
        values = np.empty((items, kept), np.float32)
        size = max(1, BLOCK_CELLS // items)
        for begin in range(0, items, size):
            own = np.arange(begin, min(begin + size, items))
            alone = np.zeros((items, len(own)), np.float32)
            alone[own, own - begin] = 1
            scores: Float32s = operator.times_transposed(alone).T  # (B, N)
            scores[own - begin, own] = 0  # a history does not recommend its own items
            # torch's selection is many times as fast as NumPy's.
            top = torch.from_numpy(np.abs(scores)).topk(kept, dim=1, sorted=False).indices
            targets[own] = np.sort(top.numpy(), axis=1)
            values[own] = np.take_along_axis(scores, targets[own], 1)
        return ItemWeights(
            np.arange(0, (items + 1) * kept, kept, dtype=np.int64),
            targets.ravel(),
            values.ravel(),
            {"session_gap_s": 1, "half_steps": self.half_steps, "before": 1.0, "last": self.last},
        )
