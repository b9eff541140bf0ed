"""Publishing, rolling back and clearing away, on a real Kafka and a store that may be hostile."""

from pathlib import Path

import pytest

from rheos import announcements, topics
from rheos.announcements import SERVING, Announcement, ruling
from rheos.generation import Generation
from rheos.local_kafka import KafkaProcess
from rheos.settings import Settings
from rheos.snapshot import SnapshotError, number_of
from rheos.snapshot_store import LocalStore
from tests.trainer.released import made, release
from tests.trainer.shop import settings_for
from trainer.publish import (
    Decisions,
    PublishError,
    ServingChangedError,
    promote,
    prune,
    publish,
    roll_back,
    rows,
    withdraw,
)

pytestmark = pytest.mark.kafka


@pytest.fixture
def settings(broker: KafkaProcess, prefix: str, tmp_path: Path) -> Settings:
    made = settings_for(broker.bootstrap, prefix, tmp_path, keep=3)
    assert topics.ensure(made) == []
    return made


@pytest.fixture
def store(settings: Settings) -> LocalStore:
    return LocalStore(settings.store_dir)


def serving(settings: Settings) -> str:
    found = ruling(settings)
    assert found is not None
    return found.generation


def test_what_is_published_rules_and_can_be_loaded(settings: Settings, store: LocalStore) -> None:
    first, second = release(settings, store), release(settings, store)
    found = ruling(settings)
    assert found is not None
    assert (found.number, found.slot, found.reason) == (2, SERVING, "better")
    assert (found.generation, found.predecessor) == (second, first)
    assert [number_of(name) for name in (first, second)] == [1, 2]
    Generation(store.get(second))


def test_numbers_follow_the_highest_ever_announced_or_stored(
    settings: Settings, store: LocalStore
) -> None:
    assert Decisions(settings, store).next_number() == 1
    release(settings, store)
    store.put(*made(5))  # a crash before its announcement
    assert Decisions(settings, store).next_number() == 6
    announcements.announce(
        settings,
        Announcement(number=9, slot=SERVING, generation="8-0123abcd", reason="lost", time_ms=0),
    )
    assert Decisions(settings, store).next_number() == 9
    assert number_of(release(settings, store)) == 9
    found = ruling(settings)
    assert found is not None
    assert found.number == 10


def test_a_snapshot_that_cannot_be_served_is_not_announced(
    settings: Settings, store: LocalStore
) -> None:
    first = release(settings, store)
    good = made(2)
    import msgspec

    broken = msgspec.structs.replace(good.manifest, encoder={"kind": "mystery"})
    with pytest.raises(SnapshotError, match="mystery"):
        publish(settings, store, good._replace(manifest=broken), "better", first)
    tensors = {**good.tensors, "item_vectors": good.tensors["item_vectors"] * float("nan")}
    with pytest.raises(SnapshotError, match="NaN"):
        publish(settings, store, good._replace(tensors=tensors), "better", first)
    assert serving(settings) == first
    assert store.names() == [first]


def test_the_newest_the_serving_one_and_its_predecessor_stay(
    settings: Settings, store: LocalStore
) -> None:
    names = [release(settings, store) for _ in range(5)]
    assert store.names() == names[-3:]
    roll_back(settings, store, names[2])  # now the serving one is older than the newest three
    more = [release(settings, store)]
    # Its predecessor, the third, stays beside the newest three.
    assert store.names() == [names[2], names[3], names[4], more[0]]
    more.append(release(settings, store))
    assert store.names() == [names[4], *more]
    assert prune(settings, store) == []


def test_rolling_back_goes_to_the_one_that_served_before_and_further(
    settings: Settings, store: LocalStore
) -> None:
    first, second, third = (release(settings, store) for _ in range(3))
    assert roll_back(settings, store).generation == second
    assert serving(settings) == second
    assert roll_back(settings, store).generation == first  # not forward again to the third
    with pytest.raises(PublishError, match="holds nothing older"):
        roll_back(settings, store)
    assert roll_back(settings, store, third).generation == third
    found = ruling(settings)
    assert found is not None
    assert found.number == 6
    assert found.reason == f"rolled back from {first}"


def test_what_follows_on_a_roll_back_is_rolled_back_to_the_one_in_between(
    settings: Settings, store: LocalStore
) -> None:
    first, bad = release(settings, store), release(settings, store)
    assert roll_back(settings, store).generation == first
    release(settings, store)
    assert roll_back(settings, store).generation == first
    assert bad in store.names()


def test_any_stored_generation_can_be_promoted_by_hand(
    settings: Settings, store: LocalStore
) -> None:
    first, second, third = (release(settings, store) for _ in range(3))
    assert promote(settings, store, first).generation == first
    found = ruling(settings)
    assert found is not None
    assert (found.number, found.generation, found.predecessor) == (4, first, third)
    assert found.reason == f"promoted by hand, after {third}"
    assert promote(settings, store, second).generation == second
    with pytest.raises(PublishError, match="serving already"):
        promote(settings, store, second)
    with pytest.raises(SnapshotError):
        promote(settings, store, "9-0123abcd")
    assert serving(settings) == second


def test_a_withdrawn_generation_serves_no_more(settings: Settings, store: LocalStore) -> None:
    _, second, third = (release(settings, store) for _ in range(3))
    found = withdraw(settings, store, third, "fewer clicks")
    assert found.generation == serving(settings) == second
    assert found.reason == f"rolled back from {third}: fewer clicks"
    # Neither by going back from what comes next, nor by name.
    release(settings, store)
    assert roll_back(settings, store).generation == second
    for decide in (roll_back, promote):
        with pytest.raises(PublishError, match=r"withdrawn \(fewer clicks\); --anyway"):
            decide(settings, store, third)
    told = {row["generation"]: row for row in rows(Decisions(settings, store), store)}
    assert told[third]["withdrawn"] == "fewer clicks"
    assert "withdrawn" not in told[second]
    assert promote(settings, store, third, anyway=True).generation == third


def test_back_from_the_next_one_goes_past_a_withdrawn_one(
    settings: Settings, store: LocalStore
) -> None:
    first, second, third = (release(settings, store) for _ in range(3))
    promote(settings, store, second)
    withdraw(settings, store, second, "fewer clicks")
    assert serving(settings) == third  # which ruled before it, and was released upon it
    assert roll_back(settings, store).generation == first


def test_only_what_serves_and_has_a_predecessor_is_withdrawn(
    settings: Settings, store: LocalStore
) -> None:
    first = release(settings, store)
    with pytest.raises(PublishError, match="holds nothing older"):
        withdraw(settings, store, first, "fewer clicks")
    second = release(settings, store)
    with pytest.raises(PublishError, match=f"{first} is not serving, {second} is"):
        withdraw(settings, store, first, "fewer clicks")
    assert not Decisions(settings, store).withdrawn


def test_a_roll_back_during_a_fit_is_not_overruled_by_it(
    settings: Settings, store: LocalStore
) -> None:
    first, bad = release(settings, store), release(settings, store)
    roll_back(settings, store)
    with pytest.raises(ServingChangedError, match="the serving generation changed meanwhile"):
        publish(settings, store, made(3), "better", against=bad)
    assert serving(settings) == first
    assert store.names() == [first, bad]


def test_nothing_to_roll_back_is_said_so(settings: Settings, store: LocalStore) -> None:
    with pytest.raises(PublishError, match="no generation is serving yet"):
        roll_back(settings, store)
    only = release(settings, store)
    with pytest.raises(PublishError, match="serving already"):
        roll_back(settings, store, only)
    for name in ("7-0123abcd", "../../etc/passwd", "latest"):
        with pytest.raises(SnapshotError):
            roll_back(settings, store, name)
    assert serving(settings) == only


def test_a_broken_snapshot_is_not_rolled_back_to(settings: Settings, store: LocalStore) -> None:
    first, second = release(settings, store), release(settings, store)
    tensors = settings.store_dir / first / "tensors.safetensors"
    data = bytearray(tensors.read_bytes())
    data[-1] ^= 1
    tensors.chmod(0o644)
    tensors.write_bytes(bytes(data))
    with pytest.raises(SnapshotError, match="sha256"):
        roll_back(settings, store)
    assert serving(settings) == second
    told = rows(Decisions(settings, store), store)
    assert "sha256" in str(told[0]["problem"])
    assert [row["serving"] for row in told] == [False, True]


def test_foreign_things_in_the_store_are_left_alone(settings: Settings, store: LocalStore) -> None:
    settings.store_dir.mkdir(parents=True)
    (settings.store_dir / "notes.txt").write_text("mine")
    (settings.store_dir / "99-nothex!!").mkdir()
    (settings.store_dir / ".writing-abc").mkdir()
    for _ in range(5):
        release(settings, store)
    assert (settings.store_dir / "notes.txt").read_text() == "mine"
    assert (settings.store_dir / "99-nothex!!").is_dir()
    assert len(store.names()) == 3
