"""Two trainers on a real Kafka: one leads, and the other takes over when it goes."""

import os
import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from rheos import metrics, topics
from rheos.local_kafka import KafkaProcess
from rheos.settings import Settings
from tests.trainer.shop import settings_for
from trainer import leadership
from trainer.leadership import Leadership

pytestmark = pytest.mark.kafka


@pytest.fixture
def settings(broker: KafkaProcess, prefix: str, tmp_path: Path) -> Settings:
    made = settings_for(broker.bootstrap, prefix, tmp_path)
    assert topics.ensure(made) == []
    return made


def wait_for(condition: Callable[[], bool], seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline


def test_one_leads_and_goes_on_when_another_comes(settings: Settings) -> None:
    with Leadership(settings) as first:
        wait_for(first.leads)
        with Leadership(settings) as second:
            until = time.monotonic() + 6
            while time.monotonic() < until:
                assert first.leads()
                assert not second.leads()
            first._consumer.close()
            wait_for(second.leads, 8)  # it stopped: no session had to run out
            assert metrics.TRAINER_LEADS._value.get() == 1
    assert metrics.TRAINER_LEADS._value.get() == 0


def test_a_call_takes_up_what_a_slow_join_brings(
    settings: Settings, broker: KafkaProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What a join brings between two calls is lost, and the next join may end there again."""
    monkeypatch.setattr(leadership, "JOIN_S", 60.0)
    with Leadership(settings) as first:
        os.kill(broker.pid, signal.SIGSTOP)
        goes_on = threading.Timer(0.3, os.kill, (broker.pid, signal.SIGCONT))
        goes_on.start()
        assert first.leads()
        goes_on.join()


def test_who_has_fallen_out_of_the_group_does_not_lead(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Leadership(settings) as first:
        wait_for(first.leads)
        monkeypatch.setattr(leadership, "HOLD_S", 0.1)
        monkeypatch.setattr(leadership, "JOIN_S", 0.2)
        monkeypatch.setattr(Leadership, "_is_settled", lambda _: False)
        assert first._consumer.assignment()
        assert not first.leads()


def test_trainers_of_other_prefixes_have_nothing_to_do_with_it(
    settings: Settings, broker: KafkaProcess, tmp_path: Path
) -> None:
    other = settings_for(broker.bootstrap, f"{settings.kafka.prefix}x", tmp_path)
    assert topics.ensure(other) == []
    with Leadership(settings) as first, Leadership(other) as second:
        wait_for(first.leads)
        wait_for(second.leads)
        assert first.leads()
