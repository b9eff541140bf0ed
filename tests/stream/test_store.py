"""The local store, and the decoded states before it."""

import random
from typing import Any

import pytest

from stream import partition
from stream.partition import _StateCache
from stream.store import MemoryStore, Store


@pytest.fixture
def store() -> Store:
    return MemoryStore()


def test_it_gives_what_was_put_last_and_stands_where_it_was_told(store: Store) -> None:
    assert store.position == 0
    store.put({"a": b"1", "b": b"2"}, 5)
    store.put({"a": b"3", "b": None, "never there": None}, 9)
    assert (store.get("a"), store.get("b"), store.position) == (b"3", None, 9)


def test_what_is_forgotten_is_gone_and_the_position_with_it(store: Store) -> None:
    assert store.topic_id == ""
    store.put({"a": b"1"}, 5)
    store.forget("another")
    assert (store.get("a"), store.position, store.topic_id) == (None, 0, "another")


def test_the_cache_never_tells_otherwise_than_the_store(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(partition, "_CACHED_STATES", 5)
    cache = _StateCache(store, int)
    draw = random.Random(3)
    for step in range(2000):
        key = f"k{draw.randrange(30)}"
        if draw.random() < 0.4:
            state = None if draw.random() < 0.2 else draw.randrange(99)
            store.put({key: None if state is None else b"%d" % state}, step)
            cache.put({key: state})
        value = store.get(key)
        assert cache.get(key) == (None if value is None else int(value))
        assert len(cache._young) + len(cache._old) <= 10


def test_a_state_in_use_is_decoded_once() -> None:
    decoded: list[bytes] = []

    def decode(value: bytes) -> Any:
        decoded.append(value)
        return value

    store = MemoryStore()
    store.put({"a": b"1"}, 1)
    cache = _StateCache(store, decode)
    assert cache.get("a") is cache.get("a")
    assert decoded == [b"1"]
