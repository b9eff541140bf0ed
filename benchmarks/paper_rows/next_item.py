"""What the two sequence rows share: next items to predict, who predicts them, and how well.

Items are numbers 0 … N - 1, their ids the same as text. Equal scores count at their expected place.
"""

import itertools
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple, Protocol

import numpy as np

from rheos.generation import Generation
from rheos.state import Float64s, History, Int64s
from trainer import data_set
from trainer.data_set import DataSet
from trainer.evaluation import metrics
from trainer.evaluation.metrics import Accuracy
from trainer.models.model import Fitted


class Case(NamedTuple):
    """``history``: item numbers and ``times_ms`` (n,), oldest first; ``target`` came next.

    ``user``: the number of the sequence that it is of.
    """

    user: int
    history: Int64s
    times_ms: Int64s
    target: int


Predictor = Callable[[Case], Float64s]
"""Gives every item's score (N,) after a case's history, and knows nothing of its target."""


class Baseline(Protocol):
    """As in ``trainer.evaluation.baselines``."""

    def scores(self, history: Int64s) -> Float64s: ...


def of_baseline(baseline: Baseline) -> Predictor:
    return lambda case: baseline.scores(case.history)


def of_generation(generation: Generation, items: int) -> Predictor:
    """By its encoder and item vectors: what the live path retrieves by.

    An item that the generation does not know stands behind all others.
    """
    numbers = np.array([int(item_id) for item_id in generation.item_ids], np.int64)

    def scores(case: Case) -> Float64s:
        [vector] = generation.encoder.encode([as_history(case)])
        found = np.full(items, -np.inf)
        found[numbers] = generation.item_vectors @ vector
        return found

    return scores


def of_vectors(fitted: Fitted, items: int) -> Predictor:
    """By the vectors of users that were fitted, whatever the order of their histories."""
    numbers = np.array([int(item_id) for item_id in fitted.item_ids], np.int64)

    def scores(case: Case) -> Float64s:
        found = np.full(items, -np.inf)
        found[numbers] = fitted.item_vectors @ fitted.user_vectors[case.user]
        return found

    return scores


def as_history(case: Case) -> History:
    """A case's history as an encoder reads it, each interaction of weight 1."""
    return History(
        [str(item) for item in case.history.tolist()],
        np.ones(len(case.history), np.float32),
        case.times_ms,
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
        scores = predictor(case)
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
    made: Iterable[tuple[dict[str, Any], Predictor]],
    judge: Callable[[Predictor], Accuracy],
    *measures: str,
) -> dict[str, dict[str, Any]]:
    """By each of the ``measures`` the parameters whose predictor has the highest."""
    found = [(parameters, judge(predictor)) for parameters, predictor in made]
    return {
        measure: max(found, key=lambda one: float(getattr(one[1], measure)))[0]
        for measure in measures
    }


def rounded(found: Accuracy, k: int, *names: str) -> dict[str, float]:
    """``names`` of an accuracy's fields as figures: hit_rate gives hr@k."""
    short = {"hit_rate": "hr", "mrr": "mrr", "ndcg": "ndcg"}
    return {f"{short[name]}@{k}": round(getattr(found, name), 4) for name in names}
