"""Shares of answers that were clicked, by generation, and whether one has fallen. Pure.

An answer counts once it has had its time: clicked or not. Users fall into buckets, and the spread
between buckets tells how sure a share is: a user's answers agree with each other, and the two
generations were shown to much the same users. They were so at different hours, though, and people
click less at some than at others; so each share is held against what was usual at its hours on the
days before, whatever served then.
"""

import zlib
from collections.abc import Iterable
from typing import NamedTuple

import numpy as np

from rheos.snapshot import is_name, number_of
from rheos.state import Float64s, Int64s
from trainer.bootstrap import RESAMPLES

BUCKETS = 256
MOST_PENDING = 200_000
"""Answers that wait for their click, 60 MB; of more, a share drawn by request id is counted."""
MOST_GENERATIONS = 20
"""Of older ones only the hours are known."""
DAYS = 7
"""How many days before tell what is usual at an hour: a whole week."""
EARLIER = ""
"""The name under which older generations are counted together."""

_HOUR_MS = 3_600_000

Hours = dict[int, Int64s]
"""By hour since 1970: answers and clicked ones in each bucket (BUCKETS, 2)."""


class Rate(NamedTuple):
    answers: int
    clicked: int

    @property
    def share(self) -> float:
        return self.clicked / self.answers if self.answers else 0.0


class Comparison(NamedTuple):
    """``p_value``: how likely so low a share is if it falls short by no more than the margin.

    ``usual``: the shares of the days before at the hours of the serving one and of its predecessor,
    and the rates are of these hours then; None where these days do not tell.
    """

    serving: Rate
    predecessor: Rate
    usual: tuple[float, float] | None
    p_value: float


class _Answer(NamedTuple):
    time_ms: int
    generation: str
    bucket: int


class ClickRates:
    """Told what was shown and clicked, in any order of generations; times are the broker's.

    A click counts up to ``wait_ms`` after its answer. ``counts`` has the hours of the last days by
    generation, those of the newest MOST_GENERATIONS apart.
    """

    def __init__(self, wait_ms: int, counts: dict[str, Hours] | None = None) -> None:
        self.counts: dict[str, Hours] = counts or {}
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
            own = self.counts.setdefault(answer.generation, {})
            hour = answer.time_ms // _HOUR_MS
            found = own.setdefault(hour, np.zeros((BUCKETS, 2), np.int64))
            found[answer.bucket] += (1, name in self._clicked)
            self._clicked.discard(name)
        self._forget()

    def rate(self, generation: str) -> Rate:
        return _rate(self.counts.get(generation, {}).values())

    def compare(
        self,
        serving: str,
        predecessor: str,
        margin: float,
        least: int,
        random: np.random.Generator,
    ) -> Comparison:
        """Whether the serving one's share is below (1 - margin) times its predecessor's, each in
        relation to what is usual at its hours: a paired bootstrap over the buckets.

        The days before tell where ``least`` answers of both generations, and as many of those days,
        stand at hours that they share; else the shares themselves are compared.
        """
        usual = self._usual(serving)
        sides = [self.counts.get(name, {}) for name in (serving, predecessor)]
        known = [{hour: side[hour] for hour in side.keys() & usual.keys()} for side in sides]
        told = [_rate(side.values()) for side in known]
        days = [_rate(usual[hour] for hour in side) for side in known]
        if min(rate.answers for rate in (*told, *days)) < max(1, least):
            usual, known, told = {}, sides, [_rate(side.values()) for side in sides]
        if not told[0].answers or not told[1].answers:
            return Comparison(told[0], told[1], None, 1.0)
        evenly = np.full(BUCKETS, 1.0 / BUCKETS)
        drawn = random.multinomial(BUCKETS, evenly, size=RESAMPLES)  # (RESAMPLES, BUCKETS)
        (own, own_usual), (other, other_usual) = (_clicked(drawn, side, usual) for side in known)
        # own / own_usual >= (1 - margin) other / other_usual, where nothing may be divided by 0
        enough = own * other_usual >= (1 - margin) * other * own_usual
        p_value = (1 + int(enough.sum())) / (1 + RESAMPLES)
        if not usual:
            return Comparison(told[0], told[1], None, p_value)
        whole = np.ones((1, BUCKETS), np.int64)
        shares = [
            float(_clicked(whole, side, usual)[1][0]) / rate.answers
            for side, rate in zip(known, told, strict=True)
        ]
        return Comparison(told[0], told[1], (shares[0], shares[1]), p_value)

    def _usual(self, serving: str) -> Hours:
        """By hour, what the same hour of the DAYS before had, but for what ``serving`` answered."""
        days: Hours = {}
        for name, hours in self.counts.items():
            for hour, counts in hours.items() if name != serving else ():
                for later in range(hour + 24, hour + 24 * DAYS + 1, 24):
                    days[later] = days.get(later, 0) + counts
        return {hour: counts for hour, counts in days.items() if counts[:, 1].any()}

    def _forget(self) -> None:
        """Drops what is too old to tell anything, and counts old generations together."""
        latest = max((hour for hours in self.counts.values() for hour in hours), default=0)
        named = sorted((name for name in self.counts if name != EARLIER), key=number_of)
        for name in named[:-MOST_GENERATIONS]:
            together = self.counts.setdefault(EARLIER, {})
            for hour, counts in self.counts.pop(name).items():
                together[hour] = together.get(hour, 0) + counts
        for hours in self.counts.values():
            for hour in [hour for hour in hours if hour < latest - 24 * (DAYS + 1)]:
                del hours[hour]

    def _is_drawn(self, request_id: str) -> bool:
        return zlib.crc32(request_id.encode()) < self._share * 2**32


def _rate(counts: Iterable[Int64s]) -> Rate:
    answers, clicked = sum((found.sum(axis=0) for found in counts), start=np.zeros(2, np.int64))
    return Rate(int(answers), int(clicked))


def _clicked(drawn: Int64s, hours: Hours, usual: Hours) -> tuple[Float64s, Float64s]:
    """How many answers of each resample (RESAMPLES,) were clicked, and how many would have been at
    the ``usual`` share of each hour; without any usual, all.
    """
    clicked, expected = np.zeros(len(drawn)), np.zeros(len(drawn))
    for hour, counts in hours.items():
        answers, own = (drawn @ counts).T
        clicked += own
        if usual:
            before, then = (drawn @ usual[hour]).T
            expected += answers * then / np.maximum(before, 1)
        else:
            expected += answers
    return clicked, expected
