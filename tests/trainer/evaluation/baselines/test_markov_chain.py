"""The Markov chain on sequences whose chances are known."""

import numpy as np
import pytest

from trainer.evaluation.baselines.markov_chain import MarkovChain

SEQUENCES = [np.array(rows) for rows in ([0, 1, 2], [0, 1, 0, 2], [3])]


def test_chances_are_counts_backed_off_to_popularity() -> None:
    popularity = np.array([3, 2, 2, 1]) / 8
    after = {0: np.array([0, 2, 1, 0]), 1: np.array([1, 0, 1, 0]), 3: np.zeros(4)}
    chain = MarkovChain(SEQUENCES, 4, back_off=2.0)
    for last, counts in after.items():
        expected = (counts + 2.0 * popularity) / (counts.sum() + 2.0)
        assert chain.scores(np.array([2, last])) == pytest.approx(expected)


def test_steps_further_on_count_less() -> None:
    chain = MarkovChain([np.array([0, 1, 2, 3])], 4, window=2, back_off=1e-9)
    scores = chain.scores(np.array([0]))
    assert scores[1] == pytest.approx(2 * scores[2])
    assert scores[3] == pytest.approx(0, abs=1e-6)


def test_only_the_last_item_counts_and_nothing_gives_popularity() -> None:
    chain = MarkovChain(SEQUENCES, 4)
    assert chain.scores(np.array([2, 3, 0])) == pytest.approx(chain.scores(np.array([0])))
    assert chain.scores(np.zeros(0, np.int64)) == pytest.approx(np.array([3, 2, 2, 1]) / 8)
