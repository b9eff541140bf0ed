"""Item-kNN against the formula of its docstring, pair by pair."""

import numpy as np
import pytest

from trainer.evaluation.baselines.item_knn import ItemKnn

RANDOM = np.random.default_rng(0)
SEQUENCES = [RANDOM.integers(0, 12, RANDOM.integers(1, 9)) for _ in range(40)]


def similarity(x: int, y: int, shrink: float) -> float:
    both = sum(x in row and y in row for row in SEQUENCES)
    having = [sum(item in row for row in SEQUENCES) + shrink for item in (x, y)]
    return 0.0 if x == y else both / (having[0] * having[1]) ** 0.5


def test_scores_are_the_formulas() -> None:
    knn = ItemKnn(SEQUENCES, 12, neighbours=4, shrink=3.0, half_steps=2.0)
    history = np.array([5, 1, 1, 7])
    expected = np.zeros(12)
    for place, item in enumerate(history):
        near = np.array([similarity(item, other, 3.0) for other in range(12)])
        near[near < np.sort(near)[-4]] = 0.0
        expected += near * 0.5 ** ((len(history) - 1 - place) / 2.0)
    assert knn.scores(history) == pytest.approx(expected)


def test_no_history_scores_nothing() -> None:
    assert not ItemKnn(SEQUENCES, 12).scores(np.zeros(0, np.int64)).any()
