"""The ranker on Online Retail: boosted trees over the layers, held against the fusion of these."""

from benchmarks.paper_rows.retail_blends import FUSION, RANKER, ahead, evaluate, train
from benchmarks.paper_rows.row import PaperRow

ROW = PaperRow(
    name="ranker-online-retail",
    data="online-retail",
    split="Online Retail, prequential: second half, every 7th event, weekly refits",
    model="LambdaMART over 200 candidates, trained on the second quarter",
    train=train,
    evaluate=evaluate,
    shortfalls=lambda figures: ahead(figures, RANKER, (FUSION,)),
)
