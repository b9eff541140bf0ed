"""Fold-in fidelity: is a folded-in user served as well as one whom the model was fitted on?

Some items of some users are hidden. One fit has all users, without those items; another lacks these
users altogether. Both are asked for the hidden items, of all items but those that the user still
has: the first with the users' fitted vectors, the second with what its encoder makes of their
histories. ``Fidelity.kept`` is the second's accuracy as a share of the first's.
"""

from typing import NamedTuple

import numpy as np

from rheos.generation import Generation
from rheos.state import Float32s, History, Int64s
from trainer import fitting
from trainer.data_set import DataSet
from trainer.evaluation import refit
from trainer.models.model import Fitted, Model, Run

_AT_ONCE = 32  # histories of any length, encoded together


class Hidden(NamedTuple):
    """``all_users`` and ``without`` to fit on; the users asked for, their rows in ``all_users``,
    histories and hidden items.
    """

    all_users: DataSet
    without: DataSet
    users: Int64s
    histories: list[History]
    targets: list[list[str]]


class Fidelity(NamedTuple):
    """Mean Recall@k (hits among min(k, hidden)) of fitted and of folded-in vectors."""

    fitted: float
    folded_in: float
    users: int

    @property
    def kept(self) -> float:
        return self.folded_in / self.fitted


def hide(
    data: DataSet,
    most_users: int,
    share: float,
    random: np.random.Generator,
    *,
    latest: bool = False,
) -> Hidden:
    """Hides ``share`` of the distinct items of up to ``most_users`` users, each of whom keeps two.

    Any of a user's items, or with ``latest`` those that she came to last: what is asked of a system
    that serves. Raises ValueError where no user has three.
    """
    begins = data.begins()
    distinct = np.bincount(data.users[data.first_of_pairs()], minlength=len(data.user_ids))
    eligible = np.flatnonzero(distinct >= 3)
    if not len(eligible):
        raise ValueError("fidelity: no user has three items")
    drawn = np.sort(random.choice(eligible, min(most_users, len(eligible)), replace=False))
    hidden = np.zeros(len(data), bool)
    histories, targets = [], []
    for user in drawn:
        span = np.arange(begins[user], begins[user + 1])
        items, first = np.unique(data.items[span], return_index=True)
        count = min(max(1, round(share * len(items))), len(items) - 2)
        if latest:
            asked = items[np.argsort(first)[-count:]]
        else:
            asked = random.choice(items, count, replace=False)
        hidden[span] = np.isin(data.items[span], asked)
        left = span[~hidden[span]]
        histories.append(data.history(left))
        targets.append([data.item_ids[row] for row in asked])
    gone = np.isin(data.users, drawn)
    return Hidden(
        data.keeping(~hidden), data.where(~gone), drawn.astype(np.int64), histories, targets
    )


def fold_in_fidelity(
    model: Model, hidden: Hidden, k: int, run: Run, history_size: int | None = None
) -> Fidelity:
    """Fits ``model`` twice. Only the latest ``history_size`` interactions of a history are folded
    in, if it is given. Raises FitError.
    """
    known = _fit(model, hidden.all_users, run)
    fitted = _recall(known[1], known[0].user_vectors[hidden.users], hidden, k)
    _, generation = _fit(model, hidden.without, run)
    read = [_latest(history, history_size) for history in hidden.histories]
    parts = [
        generation.encoder.encode(read[start : start + _AT_ONCE])
        for start in range(0, len(read), _AT_ONCE)
    ]
    folded_in = _recall(generation, np.concatenate(parts), hidden, k)
    return Fidelity(fitted, folded_in, len(hidden.users))


def _latest(history: History, size: int | None) -> History:
    if size is None:
        return history
    return History(history.item_ids[-size:], history.weights[-size:], history.times_ms[-size:])


def _fit(model: Model, data: DataSet, run: Run) -> tuple[Fitted, Generation]:
    fitted = fitting.fit(model, data, run)
    return fitted, refit.in_memory(fitting.make(1, model, fitted, data, {}))


def _recall(generation: Generation, vectors: Float32s, hidden: Hidden, k: int) -> float:
    """By the retrieval score. An item that the generation does not know is a miss."""
    found = []
    for vector, history, targets in zip(vectors, hidden.histories, hidden.targets, strict=True):
        scores = generation.item_vectors @ vector[: generation.dimensions]
        had = [generation.row_of[item] for item in history.item_ids if item in generation.row_of]
        scores[had] = -np.inf
        best = set(np.argpartition(-scores, min(k, len(scores)) - 1)[:k].tolist())
        hits = sum(generation.row_of.get(item, -1) in best for item in targets)
        found.append(hits / min(k, len(targets)))
    return float(np.mean(found))
