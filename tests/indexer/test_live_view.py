"""The live view without Kafka: what records do to users, items and catalogue."""

from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from kafka import TopicPartition
from kafka.errors import KafkaError

from indexer.item_numbers import ItemNumbers
from indexer.live_catalogue import LiveCatalogue
from indexer.live_users import LiveUsers
from indexer.live_view import LiveView
from rheos.catalogue import InvalidRecordError, Item, UserAttributes, encode_record
from rheos.settings import from_tree
from rheos.state import Float32s, History, encode_state, pack_vector
from tests.indexer import shop


def test_a_vector_of_another_generation_is_never_used() -> None:
    items, vectors = [f"i{n}" for n in range(6)], shop.vectors(6)
    old, new = shop.generation(items, vectors), shop.generation(items, -vectors[::-1], number=2)
    users = LiveUsers()
    state = shop.user_state(items[:3], generation=old)
    users.put("u", encode_state(state))
    user = users.get("u")
    assert user is not None
    assert user.vector(old).tobytes() == state.vector
    encoded = user.vector(new)
    np.testing.assert_allclose(encoded, new.encoder.encode([state.history()])[0], atol=1e-6)
    assert user.vector(new) is encoded  # once, not for each answer
    np.testing.assert_allclose(user.vector(old), old.encoder.encode([state.history()])[0], 1e-6)


def test_a_user_cache_never_hides_a_newer_state_and_is_bounded() -> None:
    users = LiveUsers(cached=3)
    for round_ in range(3):
        for number in range(10):
            users.put(f"u{number}", encode_state(shop.user_state(["a"] * (round_ + 1))))
            user = users.get(f"u{number}")
            assert user is not None
            assert len(user.history.item_ids) == round_ + 1
    assert len(users._cache) == 3
    assert users.events_accepted == 30
    users.remove("u1")
    users.remove("nobody")
    assert users.get("u1") is None
    assert (len(users), users.events_accepted) == (9, 27)
    assert "u1" not in users.most_active(100)


def test_the_stream_clock_is_the_newest_event_and_never_goes_back() -> None:
    view = LiveView(from_tree({"clock": "stream"}))
    assert view.now_ms() > 1_700_000_000_000  # nothing yet: wall time
    topic = "rheos.user-state"
    view.take(topic, b"u", encode_state(shop.user_state(["a", "b"], first_ms=60_000)), "")
    assert view.now_ms() == 120_000
    view.take(topic, b"v", encode_state(shop.user_state(["a"], first_ms=0)), "")
    assert view.now_ms() == 120_000


def test_changed_items_are_told_once() -> None:
    told: list[list[int]] = []
    view = LiveView(from_tree({}), told.append)
    for item in ("a", "b"):
        view.take("rheos.item-state", item.encode(), encode_state(shop.item_state(3)), "")
    view.tell_changed()
    view.tell_changed()
    assert told == [[0, 1]]
    assert view.interactions("a") == 3
    view.take("rheos.item-state", b"a", None, "")
    assert view.interactions("a") == view.interactions("unheard of") == 0


class Breaking:
    """A consumer that hands out two records and breaks, before its second look at the lag."""

    def __init__(self, place: TopicPartition) -> None:
        self._place = place
        self._position = 0
        self._polls = 0

    def assign(self, places: list[TopicPartition]) -> None:
        assert places == [self._place]

    def seek(self, place: TopicPartition, position: int) -> None:
        self._position = position

    def seek_to_beginning(self, place: TopicPartition) -> None:
        self._position = 0

    def position(self, place: TopicPartition) -> int:
        return self._position

    def highwater(self, place: TopicPartition) -> int:
        return 9

    def poll(self, timeout_ms: int) -> dict[TopicPartition, list[Any]]:
        self._polls += 1
        if self._polls == 1:
            return {}  # here the view asks for positions
        if self._polls == 3:
            raise KafkaError("gone")
        value = encode_state(shop.user_state(["i"]))
        records = [
            SimpleNamespace(key=b"u", value=value, offset=offset)
            for offset in (self._position, self._position + 1)
        ]
        self._position += 2
        return {self._place: records}

    def close(self) -> None:
        pass


def test_after_an_error_reading_goes_on_where_it_was_and_no_state_goes_back(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    view = LiveView(from_tree({}))
    place = TopicPartition("rheos.user-state", 0)
    view._ends = {place: 0}
    view._ready.set()
    shown: list[str] = []
    monkeypatch.setattr(view, "_consumer", lambda isolation_level: Breaking(place))
    take = view.take

    def taken(topic: str, key: bytes | None, value: bytes | None, where: str) -> None:
        take(topic, key, value, where)
        shown.append(where)

    monkeypatch.setattr(view, "take", taken)
    for _ in range(2):
        with pytest.raises(KafkaError):
            view._follow()
    assert shown == [f"rheos.user-state[0]@{offset}" for offset in range(4)]


def test_the_catalogue_knows_titles_categories_and_what_is_off_sale() -> None:
    numbers = ItemNumbers()
    catalogue = LiveCatalogue(numbers)
    for number in range(3000):  # more than its arrays begin with
        item = Item(
            item_id=f"i{number}",
            title=f"Lamp {number}",
            category="even" if number % 2 == 0 else "odd",
            available=number != 7,
        )
        catalogue.put_item(item.item_id, encode_record(item))
    code = catalogue.category_code("odd")
    assert code is not None
    assert np.flatnonzero(catalogue.categories == code).tolist() == list(range(1, 3000, 2))
    assert catalogue.category_code("none") is None
    assert not catalogue.available[7]
    assert catalogue.find("lamp i29", 5) == ["i29", "i290", "i291", "i292", "i293"]
    assert catalogue.find("", 3) == ["i0", "i1", "i2"]
    assert catalogue.find("sofa", 3) == []
    catalogue.remove_item("i0")
    gone = Item(item_id="i1", available=False, deleted=True)
    catalogue.put_item("i1", encode_record(gone))
    for item_id in ("i0", "i1"):
        assert catalogue.item(item_id) is None
        assert catalogue.is_deleted(item_id)
        assert catalogue.title(item_id) is None
        assert not catalogue.available[numbers.add(item_id)]
    with pytest.raises(InvalidRecordError):
        catalogue.put_item("i2", b'{"item_id": 5.5}')
    assert catalogue.title("i2") == "Lamp 2"


class AgeEncoder:
    """A user's vector is her age, beside the number of her items."""

    dimensions = shop.DIMENSIONS
    reads_attributes = True

    def __init__(self) -> None:
        self.encoded = 0

    def encode(
        self,
        histories: Sequence[History],
        attributes: Sequence[UserAttributes | None] | None = None,
    ) -> Float32s:
        self.encoded += len(histories)
        vectors = np.zeros((len(histories), self.dimensions), np.float32)
        for place, history in enumerate(histories):
            known = attributes[place] if attributes else None
            vectors[place, :2] = [known.attributes["age"] if known else 0, len(history.item_ids)]
        return vectors

    def terms(self, history: History, item_ids: Sequence[str]) -> list[list[tuple[str, float]]]:
        return [[] for _ in item_ids]


def test_attributes_count_before_the_first_event_and_at_once_when_they_change() -> None:
    view = LiveView(from_tree({}))
    generation = shop.generation(["a", "b"], shop.vectors(2))
    generation.encoder = AgeEncoder()

    def know(age: float) -> None:
        record = UserAttributes(user_id="u", attributes={"age": age})
        view.take("rheos.users", b"u", encode_record(record), "")

    def numbers() -> list[float] | None:
        vector = view.vector("u", view.users.get("u"), generation)
        return None if vector is None else vector[:2].tolist()

    assert view.vector("u", None, None) is None
    assert numbers() is None
    know(30)
    assert numbers() == [30, 0]
    state = shop.user_state(["a", "b"])
    state.generation, state.vector = generation.name, pack_vector(np.ones(8, np.float32))
    view.take("rheos.user-state", b"u", encode_state(state), "")
    assert numbers() == [30, 2]
    before = generation.encoder.encoded
    assert numbers() == [30, 2]
    assert generation.encoder.encoded == before  # once, not for each answer
    know(31)
    assert numbers() == [31, 2]
    view.take("rheos.users", b"u", None, "")
    assert numbers() == [1, 1]  # the stream's own vector, which knows no attributes


def test_a_generation_that_reads_no_attributes_serves_the_streams_vector() -> None:
    view = LiveView(from_tree({}))
    generation = shop.generation(["a", "b"], shop.vectors(2))
    record = UserAttributes(user_id="u", attributes={"age": 30})
    view.take("rheos.users", b"u", encode_record(record), "")
    assert view.vector("u", None, generation) is None
    state = shop.user_state(["a"], generation=generation)
    view.take("rheos.user-state", b"u", encode_state(state), "")
    vector = view.vector("u", view.users.get("u"), generation)
    assert vector is not None
    assert vector.tobytes() == state.vector


def test_a_catalogue_record_of_an_item_is_told_as_a_change() -> None:
    told: list[list[int]] = []
    view = LiveView(from_tree({}), told.append)
    view.take("rheos.items", b"new", encode_record(Item(item_id="new", title="x")), "")
    view.tell_changed()
    assert told == [[view.numbers.get("new")]]
