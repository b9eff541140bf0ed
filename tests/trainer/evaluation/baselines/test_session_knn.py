"""V-SkNN against a slow one that looks at every session."""

from math import log, sqrt

import numpy as np
import pytest

from trainer.evaluation.baselines.session_knn import SessionKnn

RANDOM = np.random.default_rng(1)
SEQUENCES = [RANDOM.integers(0, 15, RANDOM.integers(1, 7)) for _ in range(60)]
WEIGHTS = {
    "same": lambda step, length: 1.0,
    "linear": lambda step, length: 1 - step / length,
    "division": lambda step, length: 1 / (1 + step),
    "quadratic": lambda step, length: 1 / (1 + step) ** 2,
}


def slow(
    history: list[int], neighbours: int, recent: int, similarity: str, match: str, idf: bool
) -> np.ndarray:
    length = len(history)
    step_of = {item: length - 1 - place for place, item in enumerate(history)}
    sharing = [n for n, row in enumerate(SEQUENCES) if set(row.tolist()) & set(history)]
    found = []
    for number in sharing[-recent:]:
        items = set(SEQUENCES[number].tolist())
        shared = [step_of[item] for item in items & set(history)]
        alike = sum(WEIGHTS[similarity](step, length) for step in shared) / sqrt(len(items))
        found.append((alike, number, WEIGHTS[match](min(shared), length)))
    scores = np.zeros(15)
    for alike, number, weight in sorted(found, reverse=True)[:neighbours]:
        for item in set(SEQUENCES[number].tolist()):
            having = sum(item in row for row in SEQUENCES)
            rarity = log((len(SEQUENCES) + 1) / (having + 1)) if idf else 1.0
            scores[item] += alike * weight * rarity
    return scores


@pytest.mark.parametrize("similarity", sorted(WEIGHTS))
@pytest.mark.parametrize("match", ["linear", "quadratic"])
@pytest.mark.parametrize("idf", [False, True])
def test_scores_are_those_of_the_slow_one(similarity: str, match: str, idf: bool) -> None:
    for neighbours, recent in ((5, 20), (100, 1000)):
        knn = SessionKnn(
            SEQUENCES,
            15,
            neighbours=neighbours,
            recent=recent,
            similarity=similarity,
            match=match,
            idf=idf,
        )
        for history in ([3], [1, 2, 3], [4, 4, 9, 4], [0, 5, 10, 0]):
            expected = slow(history, neighbours, recent, similarity, match, idf)
            assert knn.scores(np.array(history)) == pytest.approx(expected)


def test_nothing_and_items_of_no_session_score_nothing() -> None:
    knn = SessionKnn(SEQUENCES, 16)
    assert not knn.scores(np.zeros(0, np.int64)).any()
    assert not knn.scores(np.array([15])).any()
