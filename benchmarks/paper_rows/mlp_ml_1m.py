"""MLP on MovieLens-1M in the split of its paper, "Neural Collaborative Filtering" (WWW 2017).

Owed is the best of the paper's MLPs, of 64 predictive factors, by fitted vectors. Settings were
chosen on items held out of the training part, the last ones of the users whose times are known.
"""

from pathlib import Path
from typing import Any

from benchmarks.paper_rows import ncf_split
from benchmarks.paper_rows.row import PaperRow, at_least
from trainer.models.mlp import Mlp

MODEL = Mlp(
    mlp_factors=256,
    epochs=10,
    negatives=4,
    batch=2048,
    learning_rate=0.002,
    regularisation=0.0005,
)


def train(folder: Path, *, seed: int, threads: int) -> dict[str, Any]:
    return ncf_split.train(MODEL, folder, seed, threads)


ROW = PaperRow(
    name="mlp-ml-1m",
    data=ncf_split.FOLDER,
    split="ML-1M, one item a user held out, among 99 sampled ones (He et al. 2017)",
    model="mlp, layers of 256, 128 and 64",
    train=train,
    evaluate=ncf_split.evaluate,
    shortfalls=at_least(hr_10=0.692, ndcg_10=0.425),
)
