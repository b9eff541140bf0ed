"""How long a log may be silent, without a broker: a consumer that says what it is told to."""

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest

from stream import committed_log
from stream.committed_log import CommittedLogError, read_committed


class Clock:
    now_s = 0.0

    def monotonic(self) -> float:
        return self.now_s


class Consumer:
    """Gives one message, then nothing for ``empty`` polls of a second each, then the other."""

    def __init__(self, clock: Clock, empty: int) -> None:
        self._clock = clock
        self._polls: list[list[Any]] = [[message(0)], *([[]] * empty), [message(1)]]

    def assign(self, places: object) -> None: ...

    def close(self) -> None: ...

    def consume(self, count: int, timeout: float) -> list[Any]:
        self._clock.now_s += 1
        return self._polls.pop(0)


def message(offset: int) -> Any:
    return SimpleNamespace(error=lambda: None, offset=lambda: offset)


@pytest.fixture
def log(monkeypatch: pytest.MonkeyPatch) -> Callable[[int], Clock]:
    def make(empty: int) -> Clock:
        clock = Clock()
        monkeypatch.setattr(committed_log, "time", clock)
        monkeypatch.setattr(committed_log, "end_of", lambda *_: 2)
        monkeypatch.setattr(committed_log, "_consumer", lambda *_: Consumer(clock, empty))
        return clock

    return make


def test_the_time_that_the_caller_takes_is_no_silence(log: Callable[[int], Clock]) -> None:
    clock = log(9)
    found = []
    for one in read_committed("", "t", 0, silence_s=10):
        found.append(one.offset())
        clock.now_s += 1000  # it writes, to a Kafka that is away for a while
    assert found == [0, 1]


def test_a_silence_of_the_log_is_told(log: Callable[[int], Clock]) -> None:
    log(11)
    with pytest.raises(CommittedLogError, match=r"t\[0\] was read to 1 of 2"):
        list(read_committed("", "t", 0, silence_s=10))
