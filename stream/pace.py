"""When each row of a replay is due."""

from typing import NamedTuple


class Pace(NamedTuple):
    """``rate`` rows a second, or ``speed`` times as fast as recorded; both 0: as fast as taken.

    At a recorded speed nobody waits more than ``longest_gap_s`` seconds for the next row, however
    long nothing happened (at night, say).
    """

    rate: float = 0.0
    speed: float = 0.0
    longest_gap_s: float = 5.0


class Schedule:
    """Rows in, seconds since the first row out. Pure: it reads no clock."""

    def __init__(self, pace: Pace) -> None:
        self._pace = pace
        self._rows = 0
        self._last_ms: int | None = None
        self._due_s = 0.0

    def due_s(self, time_ms: int | None) -> float:
        """Seconds after the first row's turn at which the next row, of ``time_ms``, has its turn.

        A row without a time, or with one before its predecessor's, has its turn with that one.
        """
        if self._pace.rate:
            self._rows += 1
            return (self._rows - 1) / self._pace.rate
        if self._pace.speed and time_ms is not None:
            if self._last_ms is not None and time_ms > self._last_ms:
                gap_s = (time_ms - self._last_ms) / 1000 / self._pace.speed
                self._due_s += min(gap_s, self._pace.longest_gap_s)
            self._last_ms = time_ms if self._last_ms is None else max(time_ms, self._last_ms)
        return self._due_s
