"""Histories cut into windows that a sequence model is trained on. NumPy only."""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from rheos.state import Int32s, Int64s
from trainer.data_set import DataSet

SORTED_TOGETHER = 32
"""Batches whose windows are sorted by length: as alike in length as chance allows at little cost to
it, so that padding is rare."""


class Batch(NamedTuple):
    """B windows: ``rows`` of items and ``times_ms``, both (B, n), oldest first and padded behind.

    Of a window the first ``lengths`` (B,) are meant, or for training ``lengths`` and one more, what
    came next.
    """

    rows: Int64s
    times_ms: Int64s
    lengths: Int64s


class Windows:
    """The users' interactions of a weight above 0, oldest first.

    ``counts`` (U,): how many each user has. ``steps``: how many have an earlier one, in all.
    """

    def __init__(self, data: DataSet) -> None:
        taken = data.weights > 0
        self._items = data.items[taken].astype(np.int64)
        self._users = data.users[taken]
        self._times_ms = data.times_ms[taken]
        self.counts = np.bincount(self._users, minlength=len(data.user_ids)).astype(np.int64)
        self.steps = int(np.maximum(self.counts - 1, 0).sum())
        self._begins = np.concatenate([np.zeros(1, np.int64), np.cumsum(self.counts)])

    def batches(self, last: int, places: int, random: np.random.Generator) -> Iterator[Batch]:
        """One epoch in batches of about ``places`` = B n places.

        A window holds up to ``last`` interactions and the one after them: each interaction with an
        earlier one is the next of some place exactly once. Equal times of a user are shuffled, and
        long histories cut at places of chance.
        """
        order = np.lexsort((random.random(len(self._items)), self._times_ms, self._users))
        items = self._items[order]
        begins, lengths = self._cut(last, random)
        mixed = random.permutation(len(begins))
        # About as many windows as fill SORTED_TOGETHER batches.
        mean = max(1.0, float(lengths.mean())) if len(lengths) else 1.0
        together = max(1, int(SORTED_TOGETHER * places / mean))
        cuts: list[Int64s] = []
        for start in range(0, len(mixed), together):
            some = mixed[start : start + together]
            some = some[np.argsort(lengths[some], kind="stable")]
            cuts.extend(_filled(some, lengths[some], places))
        for number in random.permutation(len(cuts)):
            picked = cuts[number]
            window = _padded(begins[picked], lengths[picked] + 1)
            yield Batch(items[window], self._times_ms[window], lengths[picked])

    def newest(self, users: Int32s | Int64s, last: int) -> Batch:
        """The latest ``last`` interactions of users that have any."""
        lengths = np.minimum(self.counts[users], last)
        picked = _padded(self._begins[users] + self.counts[users] - lengths, lengths)
        return Batch(self._items[picked], self._times_ms[picked], lengths)

    def _cut(self, last: int, random: np.random.Generator) -> tuple[Int64s, Int64s]:
        """Where windows begin and how many of their interactions have a next one, (W,) each.

        The first window of a history longer than ``last`` has a length of chance.
        """
        steps = np.maximum(self.counts - 1, 0)
        first = np.where(steps > last, random.integers(1, last + 1, len(steps)), steps)
        pieces = (steps > 0) + (steps - first + last - 1) // last
        user = np.repeat(np.arange(len(steps)), pieces)
        number = np.arange(len(user)) - np.repeat(np.cumsum(pieces) - pieces, pieces)
        begins = np.where(number > 0, first[user] + (number - 1) * last, 0)
        ends = np.minimum(first[user] + number * last, steps[user])
        return self._begins[user] + begins, ends - begins


def _filled(windows: Int64s, lengths: Int64s, places: int) -> Iterator[Int64s]:
    """Cuts ``windows``, whose lengths ascend, so that each part fills ``places`` when padded."""
    start = 0
    while start < len(windows):
        # With the longest of a part at its end: as many as its own length allows.
        counts = np.arange(1, len(windows) - start + 1)
        fits = int(np.searchsorted(counts * lengths[start:], places, side="right"))
        yield windows[start : start + max(1, fits)]
        start += max(1, fits)


def _padded(begins: Int64s, lengths: Int64s) -> Int64s:
    """``lengths`` places from each of ``begins`` (B,), padded with their last."""
    inside = np.minimum(np.arange(int(lengths.max())), lengths[:, None] - 1)  # (B, n)
    places: Int64s = begins[:, None] + inside
    return places
