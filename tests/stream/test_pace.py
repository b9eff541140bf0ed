"""When rows of a replay are due."""

import pytest

from stream.pace import Pace, Schedule


def due(pace: Pace, times_ms: list[int | None]) -> list[float]:
    schedule = Schedule(pace)
    return [schedule.due_s(time_ms) for time_ms in times_ms]


def test_without_a_pace_all_rows_are_due_at_once() -> None:
    assert due(Pace(), [0, 10_000, None]) == [0, 0, 0]


def test_a_rate_counts_rows_whatever_their_times() -> None:
    assert due(Pace(rate=4), [0, 9_000_000, None, 5]) == [0, 0.25, 0.5, 0.75]


def test_a_speed_divides_the_recorded_gaps() -> None:
    assert due(Pace(speed=60), [60_000, 60_000, 120_000, 150_000]) == [0, 0, 1, 1.5]


def test_a_long_gap_is_cut() -> None:
    night_ms = 10 * 3_600_000
    assert due(Pace(speed=60, longest_gap_s=5), [0, night_ms, night_ms + 60_000]) == [0, 5, 6]


def test_rows_without_a_time_or_out_of_order_go_with_the_row_before() -> None:
    times: list[int | None] = [None, 10_000, None, 4_000, 11_000]
    assert due(Pace(speed=1), times) == pytest.approx([0, 0, 0, 0, 1])
