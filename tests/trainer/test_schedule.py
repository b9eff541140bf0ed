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
    assert not schedule.due(0, 0.0)
    assert not schedule.due(99, 1e9)
    assert schedule.due(100, 0.0)


def test_without_a_generation_it_is_tried_again_when_a_quarter_more_is_there(
    schedule: Schedule,
) -> None:
    schedule.started(100, 0.0)
    assert not schedule.due(124, 1e9)
    assert schedule.due(125, 0.0)


def test_without_new_events_nothing_is_due() -> None:
    assert not served(5000).due(5000, 1e9)


def test_the_interval_makes_one_new_event_enough() -> None:
    assert not served(5000).due(5001, 599.0)
    assert served(5000).due(5001, 600.0)


def test_many_new_events_do_not_wait_for_the_interval() -> None:
    assert not served(5000).due(5999, 1.0)
    assert served(5000).due(6000, 1.0)


def test_a_doubled_archive_does_not_wait_either() -> None:
    assert not served(300).due(599, 1.0)
    assert served(300).due(600, 1.0)
    # Not even a tiny one is fitted again for less than the events of a first fit.
    assert not served(20).due(119, 1.0)


def test_a_cycle_that_promoted_nothing_waits_like_any_other() -> None:
    schedule = served(5000)
    schedule.started(6000, 100.0)
    assert not schedule.due(6999, 699.0)
    assert schedule.due(6999, 700.0)


def test_it_says_why() -> None:
    assert Schedule(TRAINER).due(100, 0.0) == "first events"
    assert served(5000).due(5001, 600.0) == "time"
    assert served(5000).due(6000, 1.0) == "new events"


def looking(**trainer: float) -> Schedule:
    """A generation on 5,000 records at time 0 serves; looks every two minutes."""
    made = Schedule(
        TrainerSettings(every_minutes=10, gate_min_events=50, **{"drift_minutes": 2, **trainer})
    )
    made.started(5000, 0.0)
    made.promoted()
    return made


def test_in_between_it_looks_for_drift_where_there_is_enough_to_judge_by() -> None:
    assert looking().due(5049, 120.0) is None
    assert looking().due(5050, 119.0) is None
    assert looking().due(5050, 120.0) == "drift"
    assert looking(drift_minutes=0).due(5050, 120.0) is None


def test_a_look_delays_the_next_look_and_not_the_next_cycle() -> None:
    schedule = looking()
    schedule.looked(5050, 120.0)
    assert schedule.due(5060, 239.0) is None
    assert schedule.due(5050, 240.0) is None  # nothing came since
    assert schedule.due(5051, 240.0) == "drift"
    assert schedule.due(5051, 600.0) == "time"
