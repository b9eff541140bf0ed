"""The vectorised folds against their slow references, and the cases that a shop's data brings."""

import json
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from rheos.ids import partition_of
from rheos.settings import Settings, from_tree
from rheos.state import (
    MAX_TRANSITIONS_BYTES,
    ItemState,
    UserState,
    decode_transitions,
    encode_state,
)
from stream.items import ItemFold
from stream.users import UserChanges, UserFold
from tests.stream.reference_items import ReferenceItems
from tests.stream.reference_users import ReferenceUsers

NOW = 1_700_000_000_000
SMALL: dict[str, Any] = {
    "kafka": {"events_partitions": 1, "items_partitions": 3},
    "history": {"size": 6, "session_gap_s": 100},
    "transitions": {
        "near_window": 2,
        "far_window": 4,
        "far_half_steps": 3.0,
        "half_life_days": 0.001,
        "neighbours": 8,
    },
    "trend": {"half_lives_hours": [0.01, 24.0], "serve_half_life": 1},
}


def record(offset: int, value: bytes | None, *, arrival_ms: int = NOW) -> SimpleNamespace:
    return SimpleNamespace(offset=offset, timestamp=arrival_ms, key=None, value=value)


def event(offset: int, user: str, item: str, **fields: Any) -> SimpleNamespace:
    body = {"user_id": user, "item_id": item, "type": "click", "time_ms": NOW, **fields}
    return record(offset, json.dumps(body).encode())


def fold_in_chunks(
    settings: Settings, records: list[SimpleNamespace], cuts: list[int]
) -> tuple[dict[str, UserState], list[UserChanges]]:
    fold, states, outcomes = UserFold(settings, 0), {}, []
    for low, high in zip([0, *cuts], [*cuts, len(records)], strict=True):
        outcome = fold.fold(records[low:high], states.get, None)
        states.update(outcome.states)
        outcomes.append(outcome)
    return states, outcomes


def rows_of(packed: bytes) -> list[tuple[str, str, int, float, int]]:
    one = decode_transitions(packed)
    columns = (
        [one.items[row] for row in np.frombuffer(one.sources, "<i4")],
        [one.items[row] for row in np.frombuffer(one.targets, "<i4")],
        np.frombuffer(one.distances, "<i4").tolist(),
        np.frombuffer(one.weights, "<f4").tolist(),
        np.frombuffer(one.times_ms, "<i8").tolist(),
    )
    return list(zip(*columns, strict=True))


events = st.lists(
    st.tuples(
        st.sampled_from("ab"),
        st.sampled_from("uvwxyz"),
        st.sampled_from(["click", "purchase", "dislike"]),
        st.integers(0, 400),
    ),
    min_size=1,
    max_size=40,
)


@given(events, st.lists(st.integers(0, 40), max_size=4))
@hypothesis_settings(max_examples=150, deadline=None)
def test_users_fold_equals_its_reference_however_the_log_is_cut(
    drawn: list[tuple[str, str, str, int]], cuts: list[int]
) -> None:
    settings = from_tree(SMALL)
    records = [
        event(offset, user, item, type=kind, time_ms=NOW + seconds * 1000 - 500_000)
        for offset, (user, item, kind, seconds) in enumerate(drawn)
    ]
    reference = ReferenceUsers(settings.events.weights, size=6, gap_ms=100_000, window=4)
    for one in records:
        reference.apply(one.offset, one.value)
    cuts = sorted(min(cut, len(records)) for cut in cuts)
    states, outcomes = fold_in_chunks(settings, records, cuts)

    assert states.keys() == reference.users.keys()
    for user_id, expected in reference.users.items():
        state = states[user_id]
        assert (state.accepted, state.duplicates, state.offset) == (
            expected["accepted"],
            expected["duplicates"],
            expected["offset"],
        )
        assert state.item_ids == [entry["item"] for entry in expected["history"]]
        assert state.types == [entry["type"] for entry in expected["history"]]
        assert state.history().times_ms.tolist() == [e["time_ms"] for e in expected["history"]]
        hashes = np.frombuffer(state.event_hashes, "<u8").tolist()
        assert hashes == [entry["hash"] for entry in expected["history"]]
    found = [
        row for outcome in outcomes for _, packed in outcome.transitions for row in rows_of(packed)
    ]
    expected_rows = [(s, t, d, pytest.approx(w, abs=1e-6), ms) for s, t, d, w, ms in reference.rows]
    assert sorted(found) == sorted(
        expected_rows, key=lambda row: (*row[:3], row[3].expected, row[4])
    )
    for outcome in outcomes:
        for partition, packed in outcome.transitions:
            assert {partition_of(row[0], 3) for row in rows_of(packed)} == {partition}


rows = st.lists(
    st.tuples(
        st.sampled_from("ab"),
        st.integers(0, 40).map(lambda n: f"n{n}"),
        st.integers(-5, 5),
        st.sampled_from([1.0, 0.5, -1.0]),
        st.integers(0, 30_000_000),  # 833 half-lives: nothing underflows
    ),
    min_size=1,
    max_size=80,
)


def packed(offset: int, some: list[tuple[str, str, int, float, int]]) -> SimpleNamespace:
    index: dict[str, int] = {}
    some = [(s, s if d == 0 else t, d, w, ms) for s, t, d, w, ms in some]
    columns = [
        [index.setdefault(row[0], len(index)) for row in some],
        [index.setdefault(row[1], len(index)) for row in some],
        *([row[place] for row in some] for place in (2, 3, 4)),
    ]
    kinds = ("<i4", "<i4", "<i4", "<f4", "<i8")
    data = [np.array(c, kind).tobytes() for c, kind in zip(columns, kinds, strict=True)]
    from rheos.state import Transitions

    return record(offset, encode_state(Transitions(list(index), *data, offset)))


@given(rows, st.integers(1, 12), st.integers(1, 4))
@hypothesis_settings(max_examples=150, deadline=None)
def test_items_fold_equals_its_reference_to_the_bit_however_the_log_is_cut(
    drawn: list[tuple[str, str, int, float, int]], per_record: int, per_chunk: int
) -> None:
    settings = from_tree(SMALL)
    reference = ReferenceItems(2, 4, 3.0, 86_400, [36_000, 86_400_000], 8)
    for source, target, distance, weight, time_ms in drawn:
        reference.apply(source, target, distance, weight, time_ms)
    pieces = [drawn[at : at + per_record] for at in range(0, len(drawn), per_record)]
    records = [packed(offset, piece) for offset, piece in enumerate(pieces)]
    fold, states = ItemFold(settings), dict[str, ItemState]()
    for at in range(0, len(records), per_chunk):
        states.update(fold.fold(records[at : at + per_chunk], states.get))

    assert states.keys() == reference.items.keys()
    for item, expected in reference.items.items():
        state = states[item]
        assert state.interactions == expected["interactions"]
        assert np.frombuffer(state.popularity_epochs, "<i8").tolist() == [
            epoch for epoch, _ in expected["popularity"]
        ]
        np.testing.assert_allclose(
            np.frombuffer(state.popularity, "<f8"),
            [total for _, total in expected["popularity"]],
            rtol=1e-12,
        )
        assert state.neighbour_ids == list(expected["neighbours"])
        found = np.stack([np.frombuffer(state.near, "<f8"), np.frombuffer(state.far, "<f8")], 1)
        np.testing.assert_allclose(
            found, np.array(list(expected["neighbours"].values())).reshape(-1, 2), rtol=1e-12
        )
    whole = ItemFold(settings).fold(records, lambda item: None)
    assert whole == states  # bit for bit


def test_a_late_event_takes_its_place_by_time() -> None:
    settings = from_tree(SMALL)
    records = [
        event(0, "a", "first", time_ms=NOW - 90_000),
        event(1, "a", "third", time_ms=NOW - 10_000),
        event(2, "a", "second", time_ms=NOW - 50_000),
    ]
    states, _ = fold_in_chunks(settings, records, [2])
    assert states["a"].item_ids == ["first", "second", "third"]
    assert states["a"].offset == 2


def test_a_retried_event_counts_once_while_it_is_in_the_history() -> None:
    settings = from_tree(SMALL)
    same = {"event_id": "order-7", "type": "purchase"}
    records = [event(0, "a", "x", **same), event(1, "a", "x", **same, time_ms=NOW - 5)]
    states, outcomes = fold_in_chunks(settings, records, [1])
    assert (states["a"].accepted, states["a"].duplicates) == (1, 1)
    assert [outcome.duplicates for outcome in outcomes] == [0, 1]


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        (None, "tombstone"),
        (b"", "not_json"),
        (b"\xff\xfe", "not_json"),
        (b"[" * 5000, "any"),
        (b"{}", "missing_field"),
        (b"[]", "wrong_type"),
        (b'{"user_id":"","item_id":"i","type":"click","time_ms":1}', "empty_id"),
        (b'{"user_id":true,"item_id":"i","type":"click","time_ms":1}', "wrong_type"),
        (b'{"user_id":"u","item_id":"a\\u0000b","type":"click","time_ms":1}', "control_character"),
        (b'{"user_id":"u","item_id":"i","type":"hug","time_ms":1}', "unknown_type"),
        (b'{"user_id":"u","item_id":"i","type":"click","time_ms":NaN}', "not_json"),
        (b'{"user_id":"u","item_id":"i","type":"click","time_ms":-1}', "out_of_range"),
        (b'{"user_id":"u","item_id":"i","type":"click","time_ms":9e15}', "wrong_type"),
        (b'{"user_id":"u","item_id":"i","type":"click","time_ms":1e30}', "wrong_type"),
        (b'{"user_id":"u","item_id":"i","type":"click","time_ms":1800000000000}', "in_the_future"),
        (b'{"user_id":"u","item_id":"i","type":"click","time_ms":1,"value":1e999}', "any"),
        (b'{"user_id":"u","item_id":"i","type":"click","time_ms":1,"value":-1}', "out_of_range"),
        (b'{"user_id":"u","item_id":"i","type":"rating","time_ms":1}', "missing_field"),
        (b'{"user_id":"' + b"u" * 257 + b'","item_id":"i","type":"click","time_ms":1}', "long_id"),
        (b'{"user_id":"\\ud800","item_id":"i","type":"click","time_ms":1}', "any"),
        (b" " * 70_000, "too_large"),
    ],
)
def test_what_is_no_event_becomes_a_dead_letter_with_its_reason_place_and_bytes(
    value: bytes | None, reason: str
) -> None:
    settings = from_tree(SMALL)
    outcome = UserFold(settings, 0).fold([record(7, value)], lambda user: None, None)
    assert outcome.accepted == 0
    assert not outcome.states
    [letter] = outcome.dead_letters
    assert letter.reason == reason or reason == "any"
    assert letter.place == "rheos.events[0]@7"
    assert letter.value == (None if value is None else value[:65536])
    assert letter.size == len(value or b"")


def test_numbers_as_ids_are_kept_as_strings() -> None:
    settings = from_tree(SMALL)
    outcome = UserFold(settings, 0).fold([event(0, 17850, 22423)], lambda user: None, None)  # type: ignore[arg-type]
    assert outcome.states["17850"].item_ids == ["22423"]


def test_a_record_in_the_wrong_partition_is_told_how_to_be_right() -> None:
    settings = from_tree({"kafka": {"events_partitions": 4}})
    wrong = (partition_of("a", 4) + 1) % 4
    outcome = UserFold(settings, wrong).fold([event(0, "a", "x")], lambda user: None, None)
    [letter] = outcome.dead_letters
    assert letter.reason == "wrong_partition"
    assert "partitioner=murmur2_random" in letter.text
    assert "[[sources]]" in letter.text


def test_packed_transitions_stay_below_their_bound() -> None:
    settings = from_tree({"kafka": {"events_partitions": 1, "items_partitions": 1}})
    long = "i" * 250
    records = [
        event(n, f"u{n // 30}", f"{n % 997}-{long}"[:256], time_ms=NOW + n) for n in range(1500)
    ]
    outcome = UserFold(settings, 0).fold(records, lambda user: None, None)
    assert len(outcome.transitions) > 1
    assert all(len(data) <= MAX_TRANSITIONS_BYTES for _, data in outcome.transitions)
    taken = sum(row[2] == 0 for _, data in outcome.transitions for row in rows_of(data))
    assert taken == outcome.accepted == 1500
