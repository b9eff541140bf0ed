"""When a cycle is due."""

import pytest

from rheos.settings import TrainerSettings
from trainer.schedule import Schedule

TRAINER = TrainerSettings(min_events=100, new_events=1000, every_minutes=10)


@pytest.fixture
def schedule() -> Schedule:
    return Schedule(TRAINER)


def served(records: int) -> Schedule:
    made = Schedule(TRAINER)
    made.started(records, 0.0)
    made.promoted()
    return made


def test_the_first_is_due_as_soon_as_there_are_enough_events(schedule: Schedule) -> None:
    assert not schedule.is_due(0, 0.0)
    assert not schedule.is_due(99, 1e9)
    assert schedule.is_due(100, 0.0)


def test_without_a_generation_it_is_tried_again_when_a_quarter_more_is_there(
    schedule: Schedule,
) -> None:
    schedule.started(100, 0.0)
    assert not schedule.is_due(124, 1e9)
    assert schedule.is_due(125, 0.0)


def test_without_new_events_nothing_is_due() -> None:
    assert not served(5000).is_due(5000, 1e9)


def test_the_interval_makes_one_new_event_enough() -> None:
    assert not served(5000).is_due(5001, 599.0)
    assert served(5000).is_due(5001, 600.0)


def test_many_new_events_do_not_wait_for_the_interval() -> None:
    assert not served(5000).is_due(5999, 1.0)
    assert served(5000).is_due(6000, 1.0)


def test_a_doubled_archive_does_not_wait_either() -> None:
    assert not served(300).is_due(599, 1.0)
    assert served(300).is_due(600, 1.0)
    # Not even a tiny one is fitted again for less than the events of a first fit.
    assert not served(20).is_due(119, 1.0)


def test_a_cycle_that_promoted_nothing_waits_like_any_other() -> None:
    schedule = served(5000)
    schedule.started(6000, 100.0)
    assert not schedule.is_due(6999, 699.0)
    assert schedule.is_due(6999, 700.0)
