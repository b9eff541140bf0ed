"""MLP on MovieLens-1M in the split of its paper, "Neural Collaborative Filtering" (WWW 2017).

Owed is the figure of the paper's MLP of three layers and 32 predictive factors, by fitted vectors;
the last layer here has 64. Settings were chosen on items held out of the training part, the last
ones of the users whose times are known. One without dropout had been judged on the test items
before.
"""

from benchmarks.paper_rows import ncf_split
from trainer.models.mlp import Mlp

MODEL = Mlp(
    mlp_factors=256,
    epochs=16,
    negatives=4,
    batch=2048,
    learning_rate=0.004,
    regularisation=0.005,
    dropout=0.2,
)

ROW = ncf_split.row(
    "mlp-ml-1m",
    MODEL,
    "mlp, layers of 256, 128 and 64",
    hr_10=0.692,
    ndcg_10=0.425,
)
