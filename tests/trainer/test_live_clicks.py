"""Impressions and clicks on a real Kafka: what is counted, and the roll back that follows."""

from pathlib import Path

import msgspec
import pytest

from rheos import topics
from rheos.announcements import ruling
from rheos.impressions import Impression, ShownItem
from rheos.local_kafka import KafkaProcess
from rheos.settings import Settings
from rheos.snapshot_store import LocalStore
from tests.trainer.released import release
from tests.trainer.shop import click, send_shown, settings_for, show
from trainer import live_clicks
from trainer.archiver import Archiver
from trainer.click_rates import Rate
from trainer.live_clicks import LiveClicks, roll_back_if_fallen
from trainer.publish import Decisions, promote

pytestmark = pytest.mark.kafka

WAIT_MINUTES = 60
WAITED_MS = WAIT_MINUTES * 60_000 + 1
"""After so long a wait, which no test takes, the time of all answers so far is over."""


@pytest.fixture
def settings(
    broker: KafkaProcess, prefix: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Settings:
    monkeypatch.setattr(live_clicks, "_GRACE_MS", 0)
    live = {"live_minutes": WAIT_MINUTES, "live_min_answers": 200}
    made = settings_for(broker.bootstrap, prefix, tmp_path, **live)
    assert topics.ensure(made) == []
    return made


@pytest.fixture
def store(settings: Settings) -> LocalStore:
    return LocalStore(settings.store_dir)


def serving(settings: Settings) -> str:
    found = ruling(settings)
    assert found is not None
    return found.generation


def looked(settings: Settings, later_ms: int = WAITED_MS) -> LiveClicks:
    """What a trainer has counted that starts ``later_ms`` from now; closed."""
    with Archiver(settings) as archiver, LiveClicks(settings, archiver.archive) as clicks:
        archiver.catch_up()
        while not clicks.look(archiver.complete_ms + later_ms):
            pass
        return clicks


def test_a_generation_whose_answers_are_clicked_less_is_rolled_back_and_stays_so(
    settings: Settings, store: LocalStore
) -> None:
    first, second = release(settings, store), release(settings, store)
    show(settings, first, 400, every=4)
    show(settings, second, 400, every=40)
    assert looked(settings, 0).rates.rate(second) == Rate(0, 0)  # their time is not over
    clicks = looked(settings)
    assert clicks.rates.rate(first) == Rate(400, 100)
    assert clicks.rates.rate(second) == Rate(400, 10)
    assert roll_back_if_fallen(settings, store, clicks) == first
    assert serving(settings) == first
    found = ruling(settings)
    assert found is not None
    assert found.reason.startswith(
        f"rolled back from {second}: 2.50% of 400 answers clicked, its predecessor's 25.00% of 400"
    )
    assert set(Decisions(settings, store).withdrawn) == {second}
    assert roll_back_if_fallen(settings, store, clicks) == first
    # A person may still have it, and is not overruled.
    promote(settings, store, second, anyway=True)
    assert roll_back_if_fallen(settings, store, looked(settings)) == second
    assert serving(settings) == second


def test_what_was_counted_outlives_the_trainer_and_is_not_counted_twice(
    settings: Settings, store: LocalStore
) -> None:
    first = release(settings, store)
    show(settings, first, 50, every=5)
    assert looked(settings).rates.rate(first) == Rate(50, 10)
    show(settings, first, 30, every=3)
    assert looked(settings, 0).rates.rate(first) == Rate(50, 10)
    assert looked(settings).rates.rate(first) == Rate(80, 20)


def test_answers_wait_for_an_archive_that_is_behind(settings: Settings, store: LocalStore) -> None:
    first = release(settings, store)
    show(settings, first, 40, every=4)
    with Archiver(settings) as archiver, LiveClicks(settings, archiver.archive) as clicks:
        assert archiver.measure() > 0  # as after an outage of the trainer
        while not clicks.look(archiver.complete_ms + WAITED_MS):
            pass
        assert clicks.rates.rate(first) == Rate(0, 0)
        archiver.catch_up()
        while not clicks.look(archiver.complete_ms + WAITED_MS):
            pass
        assert clicks.rates.rate(first) == Rate(40, 10)


def test_other_records_and_events_count_for_nothing(settings: Settings, store: LocalStore) -> None:
    first = release(settings, store)
    shown = Impression(
        request_id="r", user_id=None, generation=first, time_ms=0, items=[]
    )  # nothing was shown
    named = msgspec.structs.replace(
        shown, request_id="s", items=[ShownItem(item_id="i", score=0.0, source="trend")]
    )
    before = msgspec.structs.replace(named, request_id="t", generation=None)
    events = [
        click("u1", 1, "r"),
        click("u1", 2, None),
        click("u1", 3, "unknown"),
        click("u1", 4, "s", kind="dislike"),
        click("u1", 5, "t"),
    ]
    send_shown(settings, [shown, named, before, b"{", b"\xff", b"[1]"], events)
    assert looked(settings).rates.rate(first) == Rate(1, 0)


def test_too_few_answers_a_small_fall_or_the_setting_leave_it_serving(
    settings: Settings, store: LocalStore
) -> None:
    first, second = release(settings, store), release(settings, store)
    show(settings, first, 400, every=4)
    show(settings, second, 150, every=0)
    assert roll_back_if_fallen(settings, store, looked(settings)) == second
    show(settings, second, 300, every=2)
    assert roll_back_if_fallen(settings, store, looked(settings)) == second
    show(settings, second, 3000, every=0)
    trainer = msgspec.structs.replace(settings.trainer, auto_rollback=False)
    off = msgspec.structs.replace(settings, trainer=trainer)
    assert roll_back_if_fallen(off, store, looked(off)) == second
    assert serving(settings) == second
    assert roll_back_if_fallen(settings, store, looked(settings)) == first


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{",
        b'{"settled_ms": 0, "counts": {}}',
        b'{"settled_ms": 0, "hours": {"x": {"1": [[1, 2]]}}}',
        b'{"settled_ms": 0, "hours": {"x": {}}}',
    ],
)
def test_a_file_that_is_not_sound_is_passed_over(
    settings: Settings, store: LocalStore, content: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    first = release(settings, store)
    show(settings, first, 20, every=2)
    (Path(settings.data_dir) / "clicks.json").write_bytes(content)
    assert looked(settings).rates.rate(first) == Rate(20, 10)
    assert "clicks are counted anew" in caplog.text
