"""NeuMF on MovieLens-1M in the split of its paper, "Neural Collaborative Filtering" (WWW 2017).

Owed is what He et al. reach with pre-training and 32 predictive factors. Settings were chosen on
items held out of the training part, the last ones of the users
whose times are known; the test items chose none of them.
"""

from pathlib import Path
from typing import Any

from benchmarks.paper_rows import ncf_split
from benchmarks.paper_rows.row import PaperRow, at_least
from trainer.models.neumf import NeuMF

MODEL = NeuMF(factors=192)


def train(folder: Path, *, seed: int, threads: int) -> dict[str, Any]:
    return ncf_split.train(MODEL, folder, seed, threads)


ROW = PaperRow(
    name="neumf-ml-1m",
    data=ncf_split.FOLDER,
    split="ML-1M, one item a user held out, among 99 sampled ones (He et al. 2017)",
    model="neumf",
    train=train,
    evaluate=ncf_split.evaluate,
    shortfalls=at_least(hr_10=0.726, ndcg_10=0.445),
)
