"""BPR-MF on Gowalla in the split of the LightGCN paper.

Owed is what MF with BPR is published with on this split, 64 factors as the graph models' (table 3
of Mao et al., "UltraGCN", CIKM 2021). Settings were chosen on a tenth of the training edges: these
want many drawn items, large batches, many passes and little L2 next to the defaults, which are for
small data. Two settings of 4 drawn items had been judged on the test edges before.
"""

from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from benchmarks import graph_splits
from benchmarks.paper_rows.row import PaperRow, at_least
from trainer.models.bpr import Bpr
from trainer.models.model import Run

MODEL = Bpr(
    factors=64,
    epochs=60,
    negatives=16,
    batch=8192,
    learning_rate=0.02,
    regularisation=0.005,
)
VECTORS = "vectors.npz"


def train(folder: Path, *, seed: int, threads: int) -> dict[str, Any]:
    fitted = MODEL.fit(graph_splits.gowalla().train, Run(seed=seed, threads=threads))
    np.savez(folder / VECTORS, users=fitted.user_vectors, items=fitted.item_vectors)
    return {"settings": msgspec.to_builtins(MODEL)}


def evaluate(folder: Path) -> dict[str, Any]:
    split = graph_splits.gowalla()
    with np.load(folder / VECTORS) as vectors:
        users, items = vectors["users"], vectors["items"]
    return graph_splits.ranking(split, split.tested(), lambda batch: users[batch] @ items.T)


ROW = PaperRow(
    name="bpr-gowalla",
    data="gowalla",
    split="Gowalla, the LightGCN paper's split, full ranking",
    model="bpr, 64 factors",
    train=train,
    evaluate=evaluate,
    shortfalls=at_least(recall_20=0.1627, ndcg_20=0.1378),
)
