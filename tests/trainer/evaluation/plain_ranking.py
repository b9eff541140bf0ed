"""Accuracy of one ranking by the textbook, one place after the other: what metrics are held to."""

import math

from trainer.evaluation.metrics import Accuracy


def of_ranking(ranked, relevant, k):
    """``ranked`` ids (best first, distinct) against the ``relevant`` ones.

    Fewer than k ids count as if irrelevant ones followed.
    """
    hits, precisions, gain = 0, [], 0.0
    for place, item in enumerate(ranked[:k], 1):
        if item in relevant:
            hits += 1
            precisions.append(hits / place)
            gain += 1 / math.log2(place + 1)
    ideal = sum(1 / math.log2(place + 1) for place in range(1, min(k, len(relevant)) + 1))
    return Accuracy(
        hit_rate=float(hits > 0),
        recall=hits / len(relevant),
        precision=hits / k,
        f1=2 * hits / (k + len(relevant)),
        mrr=precisions[0] if hits else 0.0,
        map=sum(precisions) / len(relevant),
        ndcg=gain / ideal,
        cases=1,
    )
