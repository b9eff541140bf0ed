"""Histories cut into windows that a sequence model is trained on. NumPy only."""

from collections.abc import Iterator

import numpy as np

from rheos.state import Int32s, Int64s
from trainer.data_set import DataSet

SORTED_TOGETHER = 32
"""Batches whose windows are sorted by length: as alike in length as chance allows at little cost to
it, so that padding is rare."""


class Windows:
    """The users' interactions of a weight above 0, oldest first.

    ``counts`` (U,): how many each user has.
    """

    def __init__(self, data: DataSet) -> None:
        taken = data.weights > 0
        self._items = data.items[taken].astype(np.int64)
        self._users = data.users[taken]
        self._times_ms = data.times_ms[taken]
        self.counts = np.bincount(self._users, minlength=len(data.user_ids)).astype(np.int64)
        self._begins = np.concatenate([np.zeros(1, np.int64), np.cumsum(self.counts)])

    def batches(
        self, last: int, places: int, random: np.random.Generator
    ) -> Iterator[tuple[Int64s, Int64s]]:
        """One epoch: item rows (B, n + 1) and lengths (B,), about ``places`` = B n places each.

        A window holds up to ``last`` interactions and the one after them; what is behind that is
        padding. Each interaction with an earlier one is the next of some place exactly once. Equal
        times of a user are shuffled, and long histories cut at places of chance.
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
            yield _padded(items, begins[picked], lengths[picked], 1), lengths[picked]

    def newest(self, users: Int32s | Int64s, last: int) -> tuple[Int64s, Int64s]:
        """Rows (B, n) and lengths (B,) of the latest ``last`` of users that have any."""
        lengths = np.minimum(self.counts[users], last)
        return _padded(
            self._items, self._begins[users] + self.counts[users] - lengths, lengths, 0
        ), lengths

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


def _padded(items: Int64s, begins: Int64s, lengths: Int64s, after: int) -> Int64s:
    """``lengths`` + ``after`` items from each of ``begins`` (B,), padded with their last."""
    width = int(lengths.max()) + after
    place = np.minimum(np.arange(width), lengths[:, None] + after - 1)  # (B, n)
    rows: Int64s = items[begins[:, None] + place]
    return rows
