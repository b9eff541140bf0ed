"""Full-ranking accuracy of a generation, through the path that serves it.

Encoder on the history, inner product with all item vectors, then the ranker, if there is one, on
what retrieval reached; what the user had is left out.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import numpy as np

from rheos.generation import Generation
from rheos.state import Float32s, History, Int64s
from trainer.evaluation import metrics
from trainer.evaluation.metrics import Accuracy

_AT_ONCE = 256  # (256, items) float32 scores: 100 MB for 100,000 items

_MISSED = (metrics.NO_CANDIDATE, 0)


class Case(NamedTuple):
    """What a user did, oldest first, and the item that came next."""

    history: History
    target: str


def accuracy(
    generation: Generation,
    cases: Sequence[Case],
    k: int,
    *,
    depth: int,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Accuracy:
    """Mean accuracy at ``k`` over the cases; NaN everywhere if any score is not finite.

    ``depth`` candidates are retrieved for the ranker. A target that the generation does not know,
    that retrieval leaves behind, or that stands in the history itself is a miss.
    """
    better: list[int] = []
    tied: list[int] = []
    for part in _parts(cases):
        users = generation.encoder.encode([case.history for case in part])  # (B, dimensions)
        scores = users[:, : generation.dimensions] @ generation.item_vectors.T  # (B, N)
        if not (np.isfinite(users).all() and np.isfinite(scores).all()):
            return metrics.undefined(len(cases))
        for case, user, own in zip(part, users, scores, strict=True):
            own[_rows(generation, case.history.item_ids)] = -np.inf
            final = own if generation.ranker is None else _ranked(generation, user, own, depth)
            if np.isnan(final).any():
                return metrics.undefined(len(cases))
            row = generation.row_of.get(case.target)
            above, beside = metrics.compare(final, row) if row is not None else _MISSED
            better.append(above)
            tied.append(beside)
        progress(len(better), len(cases))
    return metrics.of_targets(better, tied, k)


def _ranked(generation: Generation, user: Float32s, scores: Float32s, depth: int) -> Float32s:
    """The ranker's scores (N,) of the ``depth`` best of ``scores``; -inf for all others."""
    assert generation.ranker is not None
    depth = min(depth, len(scores))
    rows: Int64s = np.argpartition(-scores, depth - 1)[:depth]
    rows = rows[scores[rows] > -np.inf]
    final = np.full(len(scores), -np.inf, np.float32)
    final[rows] = generation.ranker.score(user, rows)
    return final


def _rows(generation: Generation, item_ids: Sequence[str]) -> list[int]:
    return [generation.row_of[item_id] for item_id in item_ids if item_id in generation.row_of]


def _parts(cases: Sequence[Case]) -> Iterator[Sequence[Case]]:
    for start in range(0, len(cases), _AT_ONCE):
        yield cases[start : start + _AT_ONCE]
