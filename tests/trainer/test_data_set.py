"""From archived rows to arrays: cleaned, each event once, weighed, equal times without an order."""

import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rheos.events import Event, EventRules, event_hash
from rheos.settings import from_tree
from trainer import archive as archive_module
from trainer import data_set as data_set_module
from trainer.archive import SCHEMA, Archive
from trainer.data_set import DataSet, load, of_interactions, pairs

RULES = from_tree({}).event_rules()


def archive_of(directory: Path, events: list[Event], partitions: int = 2) -> Archive:
    """An archive of the events in this order; a user's are in one partition."""
    archive = Archive(directory, "topic")
    parts: dict[int, list[tuple[int, Event]]] = {number: [] for number in range(partitions)}
    for number, event in enumerate(events):
        parts[sum(event.user_id.encode()) % partitions].append((number, event))
    for partition, found in parts.items():
        columns: dict[str, Any] = {name: [None] * len(found) for name in SCHEMA.names}
        columns |= {
            "offset": list(range(len(found))),
            "append_time_ms": [10_000 + number for number, _ in found],
            "event_hash": [event_hash(event) for _, event in found],
        }
        for name in ("user_id", "item_id", "type", "time_ms", "value"):
            columns[name] = [getattr(event, name) for _, event in found]
        archive.commit(partition, 0, len(found), columns)
    return archive


def event(user: str, item: str, time_ms: int, kind: str = "click", **more: Any) -> Event:
    return Event(user_id=user, item_id=item, type=kind, time_ms=time_ms, **more)


def told(data: DataSet) -> list[tuple[str, str, int, float]]:
    return [
        (data.user_ids[user], data.item_ids[item], int(time_ms), round(float(weight), 5))
        for user, item, time_ms, weight in zip(
            data.users, data.items, data.times_ms, data.weights, strict=True
        )
    ]


def slowly(events: list[Event], rules: EventRules) -> list[tuple[str, str, int, float]]:
    """The obvious way, an event after the other."""
    met: set[tuple[str, int]] = set()
    kept: list[tuple[str, int, int, Event]] = []
    for found in events:
        name = event_hash(found)
        if found.type in rules.weights and (found.user_id, name) not in met:
            met.add((found.user_id, name))
            kept.append((found.user_id, found.time_ms, name, found))
    return [
        (found.user_id, found.item_id, found.time_ms, round(rules.weight(found), 5))
        for _, _, _, found in sorted(kept, key=lambda row: row[:3])
    ]


@settings(deadline=None)
@given(
    rows=st.lists(
        st.tuples(
            st.sampled_from(["a", "b", "ü"]),
            st.sampled_from(["x", "y", "z"]),
            st.integers(0, 3),
            st.sampled_from(["view", "purchase", "dislike", "rating", "retired"]),
            st.sampled_from(["", "", "e1", "e2"]),
            st.floats(0, 9),
        )
    )
)
def test_it_is_what_the_obvious_way_gives(
    rows: list[tuple[str, str, int, str, str, float]], tmp_path_factory: pytest.TempPathFactory
) -> None:
    events = [
        event(user, item, time_ms, kind, event_id=event_id, value=value)
        for user, item, time_ms, kind, event_id, value in rows
    ]
    data = load(archive_of(tmp_path_factory.mktemp("archive"), events), RULES)
    assert told(data) == slowly(events, RULES)
    assert data.user_ids == sorted({row[0] for row in told(data)})
    assert data.item_ids == sorted({row[1] for row in told(data)})


def test_an_empty_archive_is_an_empty_data_set(tmp_path: Path) -> None:
    data = load(Archive(tmp_path, "topic"), RULES)
    assert (len(data), data.user_ids, data.item_ids, data.window) == (0, [], [], {})
    assert data.begins().tolist() == [0]
    assert len(data.popularity()) == len(pairs(data).users) == 0


def test_it_knows_where_it_comes_from(tmp_path: Path) -> None:
    data = load(archive_of(tmp_path, [event("a", "x", 1), event("b", "x", 1)]), RULES)
    assert data.topic_id == "topic"
    assert data.window == {"0": (0, 1), "1": (0, 1)}
    assert data.offsets.tolist() == [0, 0]
    assert sorted(data.partitions.tolist()) == [0, 1]


def test_only_the_newest_by_arrival_are_read_if_so_many_are_asked_for(tmp_path: Path) -> None:
    events = [event(f"u{number % 7}", f"i{number % 5}", 1000 - number) for number in range(60)]
    archive = archive_of(tmp_path, events)  # the later an event arrives, the earlier it happened
    whole = load(archive, RULES)
    data = load(archive, RULES, most=20)
    assert len(data) == 20
    assert sorted(data.times_ms.tolist()) == sorted(found.time_ms for found in events[40:])
    assert data.item_ids == sorted({found.item_id for found in events[40:]})
    for partition in (0, 1):
        begin, end = data.window[str(partition)]
        mine = data.offsets[data.partitions == partition]
        assert (begin, end) == (mine.min(), whole.window[str(partition)][1])
    assert load(archive, RULES, most=60).window == whole.window


def test_the_newest_are_found_in_any_number_of_files_and_batches(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(archive_module, "_BATCH_ROWS", 3)
    events = [event(f"u{number % 7}", f"i{number % 5}", number) for number in range(60)]
    data = load(archive_of(tmp_path, events), RULES, most=11)
    assert sorted(data.times_ms.tolist()) == list(range(49, 60))
    assert told(load(archive_of(tmp_path / "again", events), RULES)) == slowly(events, RULES)


def test_the_newest_take_no_room_for_what_is_older(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    events = [event(f"u{number % 7}", f"i{number % 5}", number) for number in range(60)]
    archive = archive_of(tmp_path, events)
    real, asked = np.empty, []

    def empty(size: Any, *rest: Any, **named: Any) -> Any:
        asked.append(int(np.prod(size)))
        return real(size, *rest, **named)

    monkeypatch.setattr(data_set_module.np, "empty", empty)
    load(archive, RULES, most=11)
    assert max(asked) == 11


def test_those_that_arrived_together_with_the_oldest_stay_together(tmp_path: Path) -> None:
    archive = Archive(tmp_path, "topic")
    columns = {name: [None] * 9 for name in SCHEMA.names}
    columns |= {
        "offset": list(range(9)),
        "append_time_ms": [1, 1, 2, 2, 2, 2, 3, 3, 3],
        "event_hash": list(range(9)),
        "user_id": ["a"] * 9,
        "item_id": [f"i{number}" for number in range(9)],
        "type": ["click"] * 9,
        "time_ms": list(range(9)),
        "value": [0.0] * 9,
    }
    archive.commit(0, 0, 9, columns)
    assert load(archive, RULES, most=4).times_ms.tolist() == [2, 3, 4, 5, 6, 7, 8]
    assert load(archive, RULES, most=3).times_ms.tolist() == [6, 7, 8]


def test_of_equal_events_the_first_to_arrive_counts(tmp_path: Path) -> None:
    events = [
        event("a", "x", 1, "view", event_id="e"),
        event("a", "y", 9, "purchase", event_id="e"),
        event("b", "y", 9, "purchase", event_id="e"),  # another user's e is another event
    ]
    data = load(archive_of(tmp_path, events), RULES)
    assert told(data) == [("a", "x", 1, 0.4), ("b", "y", 9, 1.0)]


def test_the_order_of_the_log_does_not_show_among_equal_times(tmp_path: Path) -> None:
    """An invoice's lines, in the file's telling order and in any other, give the same arrays."""
    invoice = [event("a", f"item {number:02d}", 5) for number in range(20)]
    in_order = load(archive_of(tmp_path / "1", invoice), RULES)
    dice = random.Random(3)
    for attempt in range(3):
        dice.shuffle(invoice)
        other = load(archive_of(tmp_path / f"shuffled {attempt}", invoice), RULES)
        np.testing.assert_array_equal(in_order.items, other.items)
    # And the order that they get is not the one of the names.
    assert in_order.items.tolist() != sorted(in_order.items.tolist())


def test_rows_of_no_log_get_an_order_by_chance_among_equal_times() -> None:
    data = of_interactions(["u"] * 50, [f"{n:02d}" for n in range(50)], [7] * 50)
    assert data.items.tolist() != list(range(50))
    assert sorted(data.items.tolist()) == list(range(50))


def test_a_rating_weighs_what_the_rules_say(tmp_path: Path) -> None:
    events = [event("a", f"{value}", 1, "rating", value=value) for value in (0, 2.5, 4, 5, 9)]
    data = load(archive_of(tmp_path, events), RULES)
    weights = dict(zip([row[1] for row in told(data)], [row[3] for row in told(data)], strict=True))
    assert weights == {"0": -1.0, "2.5": 0.0, "4": 0.6, "5": 1.0, "9": 1.0}


def test_a_part_of_a_data_set_has_ids_and_rows_of_its_own() -> None:
    data = of_interactions(["a", "a", "b", "c"], ["x", "y", "z", "x"], [1, 2, 3, 4], [1, 1, -1, 1])
    part = data.where(data.times_ms != 2)
    assert part.user_ids == ["a", "b", "c"]
    assert part.item_ids == ["x", "z"]
    assert told(part) == [("a", "x", 1, 1.0), ("b", "z", 3, -1.0), ("c", "x", 4, 1.0)]
    assert part.popularity().tolist() == [2.0, 0.0]
    assert part.begins().tolist() == [0, 1, 2, 3]
    assert len(data.where(np.zeros(4, bool))) == 0


def test_pairs_count_and_average() -> None:
    data = of_interactions(
        ["b", "a", "a", "a"], ["x", "y", "y", "x"], [1, 2, 3, 4], [1.0, 0.4, 0.8, -1.0]
    )
    found = pairs(data)
    assert list(zip(found.users.tolist(), found.items.tolist(), strict=True)) == [
        (0, 0),
        (0, 1),
        (1, 0),
    ]
    assert found.counts.tolist() == [1, 2, 1]
    np.testing.assert_allclose(found.mean_weights, [-1.0, 0.6, 1.0])
