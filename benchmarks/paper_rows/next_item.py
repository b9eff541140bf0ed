"""What the two sequence rows share: next items to predict, who predicts them, and how well.

Items are numbers 0 … N - 1, their ids the same as text. A predictor gives every item's score (N,)
after a history; equal scores count at their expected place.
"""

import itertools
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple, Protocol

import numpy as np

from rheos.generation import Generation
from rheos.state import Float64s, History, Int64s
from trainer import data_set
from trainer.data_set import DataSet
from trainer.evaluation import metrics
from trainer.evaluation.metrics import Accuracy


class Predictor(Protocol):
    def scores(self, history: Int64s) -> Float64s:
        """Every item's score (N,) after a history, oldest first."""


class Case(NamedTuple):
    """``history``: item numbers, oldest first; ``target`` came next."""

    history: Int64s
    target: int


class Served:
    """A generation, by its encoder and item vectors: what the live path retrieves by.

    An item that the generation does not know stands behind all others.
    """

    def __init__(self, generation: Generation, items: int) -> None:
        self._generation = generation
        self._items = items
        self._numbers = np.array([int(item_id) for item_id in generation.item_ids], np.int64)

    def scores(self, history: Int64s) -> Float64s:
        [vector] = self._generation.encoder.encode([as_history(history)])
        scores = np.full(self._items, -np.inf)
        scores[self._numbers] = self._generation.item_vectors @ vector
        return scores


def as_history(history: Int64s) -> History:
    """A history as an encoder reads it, each interaction of weight 1, a second after the other."""
    return History(
        [str(item) for item in history.tolist()],
        np.ones(len(history), np.float32),
        np.arange(len(history), dtype=np.int64) * 1000,
    )


def as_data_set(sequences: Sequence[Int64s], times_ms: Sequence[Int64s]) -> DataSet:
    """Sequences as a model's data set, a user each; equal times are shuffled there once more."""
    lengths = [len(sequence) for sequence in sequences]
    users = np.repeat(np.arange(len(sequences)), lengths)
    return data_set.of_interactions(
        [f"{user:06d}" for user in users.tolist()],
        [str(item) for item in np.concatenate(sequences).tolist()],
        np.concatenate(times_ms),
    )


def accuracy(
    predictor: Predictor, cases: Iterable[Case], k: int, *, leave_out_seen: bool
) -> Accuracy:
    """Over a ranking of all items; those of the history left out where nobody takes one twice."""
    better, tied = [], []
    for case in cases:
        scores = predictor.scores(case.history)
        if leave_out_seen:
            scores = scores.copy()
            scores[case.history] = -np.inf
        above, beside = metrics.compare(scores, case.target)
        better.append(above)
        tied.append(beside)
    return metrics.of_targets(better, tied, k)


def combinations(**choices: Sequence[Any]) -> list[dict[str, Any]]:
    """Every combination of the choices by name."""
    return [
        dict(zip(choices, values, strict=True)) for values in itertools.product(*choices.values())
    ]


def tuned(
    make: Callable[..., Predictor],
    tries: Sequence[Mapping[str, Any]],
    value: Callable[[Predictor], float],
) -> dict[str, Any]:
    """Of ``tries``, parameters each, those whose predictor has the highest ``value``."""
    return dict(max(tries, key=lambda parameters: value(make(**parameters))))


def rounded(found: Accuracy, k: int, *names: str) -> dict[str, float]:
    """``names`` of an accuracy's fields as figures: hit_rate gives hr@k."""
    short = {"hit_rate": "hr", "mrr": "mrr", "ndcg": "ndcg"}
    return {f"{short[name]}@{k}": round(getattr(found, name), 4) for name in names}
