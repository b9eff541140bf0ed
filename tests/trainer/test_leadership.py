"""Two trainers on a real Kafka: one leads, and the other takes over when it goes."""

import time
from collections.abc import Callable
from pathlib import Path

import pytest

from rheos import metrics, topics
from rheos.local_kafka import KafkaProcess
from rheos.settings import Settings
from tests.trainer.shop import settings_for
from trainer.leadership import Leadership

pytestmark = pytest.mark.kafka


@pytest.fixture
def settings(broker: KafkaProcess, prefix: str, tmp_path: Path) -> Settings:
    made = settings_for(broker.bootstrap, prefix, tmp_path)
    assert topics.ensure(made) == []
    return made


def wait_for(condition: Callable[[], bool], seconds: float = 30) -> None:
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


def test_trainers_of_other_prefixes_have_nothing_to_do_with_it(
    settings: Settings, broker: KafkaProcess, tmp_path: Path
) -> None:
    other = settings_for(broker.bootstrap, f"{settings.kafka.prefix}x", tmp_path)
    assert topics.ensure(other) == []
    with Leadership(settings) as first, Leadership(other) as second:
        wait_for(first.leads)
        wait_for(second.leads)
        assert first.leads()
