"""Interactions held out of a data set within a fit, to see when to stop.

Not the gate's: those are the newest by arrival, and no fit ever sees them.

validation = Validation(data, patience, run.start, random)
for epoch in range(epochs):
    loss = ...                                   # of an epoch over validation.train
    validation.check(loss)                       # raises DivergedError
    if validation.ends(epoch, scores, state):
        break
if validation.best is not None:
    go back to it
"""

from collections.abc import Callable
from typing import Generic, NamedTuple, TypeVar

import numpy as np

from rheos.state import Float32s, Int32s, Int64s
from trainer.data_set import DataSet, Mask
from trainer.early_stopping import DivergedError, EarlyStopping
from trainer.evaluation import metrics
from trainer.models.model import Start

ONE_IN, MOST_USERS = 20, 1000
"""One user of so many is held out to see when to stop, and so many at most."""

_AT_ONCE = 256  # (256, items) float32 scores: 100 MB for 100,000 items

State = TypeVar("State")

Score = Callable[[Int32s], Float32s]
"""Gives user rows (B,) their scores (B, N) of all items, an array that may be written to."""


class Validation(Generic[State]):
    """Ends a fit after ``patience`` looks at held-out items without a gain, and keeps the best.

    ``train`` is what to learn from: all of the data where nothing is held out. That is so without
    patience, and for a fit that begins with a ``start``: it begins with a model that was fitted on
    the items that would be held out, and that no later one would seem better than.
    """

    def __init__(
        self, data: DataSet, patience: int, start: Start | None, random: np.random.Generator
    ) -> None:
        self._held: HeldOut | None = None
        if patience and start is None:
            self._held = hold_out(data, min(MOST_USERS, len(data.user_ids) // ONE_IN), random)
        self.train = data if self._held is None else self._held.train
        self.best: State | None = None
        self._stopping = EarlyStopping(max(1, patience))

    def check(self, loss: float) -> None:
        """As ``EarlyStopping.check``."""
        self._stopping.check(loss)

    def ends(self, step: int, scores: Callable[[], Score], state: Callable[[], State]) -> bool:
        """Whether to end after ``step``; ``state`` is asked for what is the best so far.

        Neither is called where nothing is held out. Raises DivergedError.
        """
        if self._held is None or not len(self._held.users):
            return False
        if self._stopping.improved(step, self._held.ndcg(scores())):
            self.best = state()
        return self._stopping.is_over

    def curve(self) -> dict[str, list[float]]:
        """How the fit went, for its report."""
        return self._stopping.curve("ndcg@20")


class HeldOut(NamedTuple):
    """``train`` has the ids (and so the rows) of the whole data set. ``users[n]`` took ``items[n]``
    next, which she had not had before; each user once (V,).
    """

    train: DataSet
    users: Int32s
    items: Int32s

    def ndcg(self, score: Score, k: int = 20) -> float:
        """Mean NDCG@k of the held-out items among all that their users do not have in ``train``.

        NaN where nothing is held out. Raises DivergedError for scores that are not finite.
        """
        begins = self.train.begins()
        better: list[Int64s] = []
        tied: list[Int64s] = []
        for start in range(0, len(self.users), _AT_ONCE):
            users = self.users[start : start + _AT_ONCE]
            items = self.items[start : start + _AT_ONCE]
            scores = score(users)  # (B, N)
            if not np.isfinite(scores).all():
                raise DivergedError("the scores of the validation are not finite")
            for own, user in zip(scores, users, strict=True):
                own[self.train.items[begins[user] : begins[user + 1]]] = -np.inf
            target = scores[np.arange(len(users)), items][:, None]
            better.append((scores > target).sum(axis=1))
            tied.append((scores == target).sum(axis=1) - 1)
        if not better:
            return float("nan")
        return metrics.of_targets(np.concatenate(better), np.concatenate(tied), k).ndcg


def hold_out(data: DataSet, most_users: int, random: np.random.Generator) -> HeldOut:
    """Holds out the last item that a user took for the first time, for up to ``most_users`` users.

    Last by time. Among equal times (a basket) it is the last in the data set's order, which is one
    of chance; and the whole basket, with all that came later, leaves ``train``, since a basket
    divided in two would give itself away. A user all of whose interactions have one time (data
    without times) loses that item alone. Eligible are users who keep a positive interaction with
    another item. Who is drawn depends on ``random`` alone.
    """
    first = data.first_of_pairs() & (data.weights > 0)
    last = np.full(len(data.user_ids), -1, np.int64)  # each user's row to hold out
    candidates = np.flatnonzero(first)
    np.maximum.at(last, data.users[candidates], candidates)
    # What leaves if this user is drawn: all from that time on, where something came before it.
    some = last >= 0
    times = np.full(len(last), np.iinfo(np.int64).max)
    times[some] = data.times_ms[last[some]]
    begins = data.begins()
    earlier = np.zeros(len(last), bool)
    earlier[some] = data.times_ms[begins[:-1][some]] < times[some]
    items = np.full(len(last), -1, np.int64)
    items[some] = data.items[last[some]]
    gone: Mask = np.where(
        earlier[data.users],
        data.times_ms >= times[data.users],
        data.items == items[data.users],
    )
    left = np.bincount(data.users[~gone & (data.weights > 0)], minlength=len(last))
    eligible = np.flatnonzero(some & (left > 0))
    if len(eligible) > most_users:
        eligible = np.sort(random.choice(eligible, most_users, replace=False))
    drawn = np.zeros(len(last), bool)
    drawn[eligible] = True
    train = data.keeping(~(gone & drawn[data.users]))
    return HeldOut(train, eligible.astype(np.int32), items[eligible].astype(np.int32))
