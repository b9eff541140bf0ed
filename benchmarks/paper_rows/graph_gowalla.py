"""BSPM on Gowalla (Choi et al. 2023, table 3), full ranking.

The row is what serves: the largest item weights, read back as a generation carries them. Beside
stand the exact operator, which they are cut from, and the vectors of a low rank.
"""

from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from scipy import sparse

from benchmarks import graph_splits
from benchmarks.paper_rows.row import PaperRow, at_least
from rheos.generation import Generation
from rheos.snapshot_store import LocalStore
from rheos.state import Float32s
from trainer.fitting import make
from trainer.models.bspm import Bspm
from trainer.models.model import Run

MODEL = Bspm(weights=800, half_steps=1e9, last=10_000)
"""The file has no times, so every item of a history counts alike."""


def train(folder: Path, *, seed: int, threads: int) -> dict[str, Any]:
    data = graph_splits.gowalla().train
    fitted = MODEL.fit(data, Run(seed=seed, threads=threads))
    LocalStore(folder / "snapshots").put(*make(1, MODEL, fitted, data, {}))
    (folder / "seed").write_text(str(seed))
    return {"settings": msgspec.to_builtins(MODEL)}


def evaluate(folder: Path) -> dict[str, Any]:
    split = graph_splits.gowalla()
    users = split.tested()
    # Without training there is nothing to keep of the operator: it is found again.
    operator = MODEL.operator(split.train, int((folder / "seed").read_text()))
    exact = graph_splits.ranking(split, users, lambda batch: operator.scores(split.had[batch]))
    store = LocalStore(folder / "snapshots")
    generation = Generation(store.get(store.names()[0]))
    found = generation.item_weights
    assert found is not None
    shape = (len(found), len(found))
    cut = sparse.csr_array((found.weights, found.targets, found.starts), shape)
    popularity = np.asarray(split.had.sum(axis=0), np.float32)

    def by_vectors(batch: np.ndarray) -> Float32s:
        return generation.encoder.encode(split.histories(batch)) @ generation.item_vectors.T

    served = graph_splits.ranking(split, users, lambda batch: (split.had[batch] @ cut).toarray())
    beside = {
        "exact operator": exact,
        "vectors": graph_splits.ranking(split, users, by_vectors),
        "popularity": graph_splits.ranking(
            split, users, lambda batch: np.tile(popularity, (len(batch), 1))
        ),
    }
    rounded = {
        name: {key: round(value, 4) for key, value in figures.items()}
        for name, figures in beside.items()
    }
    return {**{key: round(value, 4) for key, value in served.items()}, **rounded}


ROW = PaperRow(
    name="graph-gowalla",
    data="gowalla",
    split="Gowalla, the LightGCN paper's split, full ranking",
    model="BSPM, as item weights",
    train=train,
    evaluate=evaluate,
    shortfalls=at_least(recall_20=0.1862, ndcg_20=0.1580),
)
