"""Sends events and holds what the workers made of them against one fold of the whole logs."""

import json
import random
import time
from typing import Any

import numpy as np

from rheos.settings import Settings
from rheos.state import (
    CHECKPOINT_KEY,
    ItemState,
    UserState,
    decode_checkpoint,
    decode_item_state,
    decode_user_state,
)
from rheos.topics import Topics
from stream.items import ItemFold
from stream.users import UserFold
from tests.stream.kafka_log import Entry, latest, read, send


class Loop:
    """The events, their topics, and the truth."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.topics = Topics(settings)
        self.bootstrap = settings.kafka.bootstrap
        self._random = random.Random(11)
        self.sent = 0
        self._time_ms = 1_700_000_000_000

    def events(self, count: int) -> list[tuple[bytes, bytes]]:
        made = []
        for _ in range(count):
            self._time_ms += self._random.randrange(60_000)
            user = f"user{self._random.randrange(40)}"
            event: dict[str, Any] = {
                "user_id": user,
                "item_id": f"item{self._random.randrange(25)}",
                "type": self._random.choice(["view", "purchase", "dislike"]),
                "time_ms": self._time_ms,
            }
            made.append((user.encode(), json.dumps(event).encode()))
        self.sent += count
        return made

    def send(self, count: int) -> None:
        send(self.bootstrap, self.topics.events, self.events(count))

    def wait_folded(self, timeout_s: float = 180) -> None:
        """Waits until both checkpoints stand behind the last record of their logs."""
        deadline = time.monotonic() + timeout_s
        while True:
            behind = [
                (log, state)
                for log, state in (
                    (self.topics.events, self.topics.user_state),
                    (self.topics.transitions, self.topics.item_state),
                )
                if not self._is_folded(log, state)
            ]
            if not behind:
                return
            assert time.monotonic() < deadline, f"not folded: {behind}"
            time.sleep(0.2)

    def _is_folded(self, log: str, state: str) -> bool:
        states = read(self.bootstrap, state)
        for number, entries in enumerate(read(self.bootstrap, log)):
            places = [entry.value for entry in states[number] if entry.key == CHECKPOINT_KEY]
            place = decode_checkpoint(places[-1] or b"").next_offset if places else 0
            if entries and place <= entries[-1].offset:
                return False
        return True

    def check(self) -> None:
        """Every state equals one fold of its whole log, and each event is in it exactly once."""
        self.wait_folded()
        users = {
            key: decode_user_state(value)
            for key, value in latest(read(self.bootstrap, self.topics.user_state)).items()
        }
        expected: dict[str, UserState] = {}
        packed: list[tuple[int, bytes]] = []
        for number, entries in enumerate(read(self.bootstrap, self.topics.events)):
            fold = UserFold(self.settings, number)
            changes = fold.fold(entries, expected.get, None)
            expected.update(changes.states)
            packed += changes.transitions
        assert set(users) == set(expected)
        for user, state in users.items():
            assert without_vector(state) == without_vector(expected[user]), user

        items = {
            key: decode_item_state(value)
            for key, value in latest(read(self.bootstrap, self.topics.item_state)).items()
        }
        wanted: dict[str, ItemState] = {}
        transitions = read(self.bootstrap, self.topics.transitions)
        item_fold = ItemFold(self.settings)
        for entries in transitions:
            for entry in entries:
                wanted.update(item_fold.fold([entry], wanted.get))
        assert items == wanted
        accepted = sum(state.accepted for state in users.values())
        assert sum(state.interactions for state in items.values()) == accepted
        self._check_popularity(packed, items)

    def _check_popularity(
        self, packed: list[tuple[int, bytes]], items: dict[str, ItemState]
    ) -> None:
        """The transitions themselves are those of the events: none lost, none twice."""
        fold = ItemFold(self.settings)
        direct: dict[str, ItemState] = {}
        for number, value in packed:
            entry = Entry(0, 0, None, value)
            del number
            direct.update(fold.fold([entry], direct.get))
        assert {key: state.interactions for key, state in direct.items()} == {
            key: state.interactions for key, state in items.items()
        }
        for key, state in direct.items():
            # The workers cut the log otherwise than one fold: sums in another order.
            np.testing.assert_allclose(
                np.frombuffer(items[key].popularity, "<f8"),
                np.frombuffer(state.popularity, "<f8"),
                rtol=1e-9,
            )


def without_vector(state: UserState) -> UserState:
    """The exact part of a state: the vector is a cache."""
    return UserState(
        state.item_ids,
        state.types,
        state.weights,
        state.times_ms,
        state.event_hashes,
        "",
        b"",
        state.offset,
        state.append_time_ms,
        state.accepted,
        state.duplicates,
    )
