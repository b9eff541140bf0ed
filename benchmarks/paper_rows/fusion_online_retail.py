"""Fusion on Online Retail: learned weights of the layers, held against each layer alone."""

from benchmarks.paper_rows.retail_blends import FUSION, PARTS, ahead, evaluate, train
from benchmarks.paper_rows.row import PaperRow

ROW = PaperRow(
    name="fusion-online-retail",
    data="online-retail",
    split="Online Retail, prequential: second half, every 7th event, weekly refits",
    model="linear blend, weights learned on the second quarter",
    train=train,
    evaluate=evaluate,
    shortfalls=lambda figures: ahead(figures, FUSION, PARTS),
)
