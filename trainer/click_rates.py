"""Shares of answers that were clicked, by generation, and whether one has fallen. Pure.

An answer counts once it has had its time: clicked or not. Users fall into buckets, and the spread
between buckets tells how sure a share is: a user's answers agree with each other, and the two
generations were shown to much the same users.
"""

import zlib
from typing import NamedTuple

import numpy as np

from rheos.snapshot import is_name, number_of
from rheos.state import Float64s, Int64s
from trainer.bootstrap import RESAMPLES

BUCKETS = 256
MOST_PENDING = 200_000
"""Answers that wait for their click, 60 MB; of more, a share drawn by request id is counted."""
MOST_GENERATIONS = 20


class Rate(NamedTuple):
    answers: int
    clicked: int

    @property
    def share(self) -> float:
        return self.clicked / self.answers if self.answers else 0.0


class Comparison(NamedTuple):
    """``p_value``: how likely so low a share is if it falls short by no more than the margin."""

    serving: Rate
    predecessor: Rate
    p_value: float


class _Answer(NamedTuple):
    time_ms: int
    generation: str
    bucket: int


class ClickRates:
    """Told what was shown and clicked, in any order of generations; times are the broker's.

    A click counts up to ``wait_ms`` after its answer. ``counts`` has answers and clicked ones in
    each bucket (BUCKETS, 2) of the newest MOST_GENERATIONS generations.
    """

    def __init__(self, wait_ms: int, counts: dict[str, Int64s] | None = None) -> None:
        self.counts: dict[str, Int64s] = counts or {}
        self._wait_ms = wait_ms
        self._pending: dict[str, _Answer] = {}
        self._clicked: set[str] = set()
        self._share = 1.0

    def shown(self, request_id: str, user_id: str | None, generation: str, time_ms: int) -> None:
        """Told an answer. Names that are no generation's are passed over."""
        if not is_name(generation) or not self._is_drawn(request_id):
            return
        bucket = zlib.crc32((user_id or request_id).encode()) % BUCKETS
        self._pending[request_id] = _Answer(time_ms, generation, bucket)
        if len(self._pending) > MOST_PENDING:
            self._share /= 2
            self._pending = {
                name: answer for name, answer in self._pending.items() if self._is_drawn(name)
            }
            self._clicked &= self._pending.keys()

    def clicked(self, request_id: str, time_ms: int) -> None:
        """Told a click, after its answer; one of an answer that is not known does not count."""
        answer = self._pending.get(request_id)
        if answer is not None and 0 <= time_ms - answer.time_ms <= self._wait_ms:
            self._clicked.add(request_id)

    def settle(self, before_ms: int) -> None:
        """Counts the answers that were shown before a time, all of whose clicks were told."""
        due = [name for name, answer in self._pending.items() if answer.time_ms < before_ms]
        for name in due:
            answer = self._pending.pop(name)
            found = self.counts.setdefault(answer.generation, np.zeros((BUCKETS, 2), np.int64))
            found[answer.bucket] += (1, name in self._clicked)
            self._clicked.discard(name)
        for name in sorted(self.counts, key=number_of)[:-MOST_GENERATIONS]:
            del self.counts[name]

    def rate(self, generation: str) -> Rate:
        answers, clicked = self.counts.get(generation, np.zeros((1, 2), np.int64)).sum(axis=0)
        return Rate(int(answers), int(clicked))

    def compare(
        self, serving: str, predecessor: str, margin: float, random: np.random.Generator
    ) -> Comparison:
        """Whether the serving one's share is below (1 - margin) times its predecessor's: a paired
        bootstrap over the buckets.
        """
        own, other = self.rate(serving), self.rate(predecessor)
        if not own.answers or not other.answers:
            return Comparison(own, other, 1.0)
        shares = np.full(BUCKETS, 1.0 / BUCKETS)
        drawn = random.multinomial(BUCKETS, shares, size=RESAMPLES)  # (RESAMPLES, BUCKETS)
        excess = _shares(drawn, self.counts[serving]) - (1 - margin) * _shares(
            drawn, self.counts[predecessor]
        )
        p_value = (1 + int((excess >= 0).sum())) / (1 + RESAMPLES)
        return Comparison(own, other, p_value)

    def _is_drawn(self, request_id: str) -> bool:
        return zlib.crc32(request_id.encode()) < self._share * 2**32


def _shares(drawn: Int64s, counts: Int64s) -> Float64s:
    """The share of each resample (RESAMPLES,); 0 where it drew no answers."""
    answers, clicked = (drawn @ counts).T
    shares: Float64s = clicked / np.maximum(answers, 1)
    return shares
