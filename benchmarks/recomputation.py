"""What every user's and item's state must be, worked out from the topics alone.

Imports nothing of the product. Reads the events, folds them one by one with plain lists, compares
the outcome with user-state; checks that the transitions are exactly the rows that these events
imply, folds them in log order and compares with item-state. Told only the run's settings.
"""

import base64
import hashlib
import json
import math
from bisect import bisect_right
from collections import Counter, defaultdict
from collections.abc import Iterator
from typing import Any

import msgspec
import numpy as np
from kafka import KafkaConsumer, TopicPartition

CHECKPOINT = b"\x00checkpoint"


def read(bootstrap: str, topic: str) -> Iterator[tuple[int, int, bytes | None, bytes | None]]:
    """(partition, offset, key, value) of all committed records, each partition in log order."""
    consumer = KafkaConsumer(
        bootstrap_servers=bootstrap,
        group_id=None,
        enable_auto_commit=False,
        isolation_level="read_committed",
        auto_offset_reset="earliest",
        max_poll_records=5000,
    )
    try:
        places = [TopicPartition(topic, p) for p in sorted(consumer.partitions_for_topic(topic))]
        consumer.assign(places)
        ends = consumer.end_offsets(places)
        while any(consumer.position(place) < ends[place] for place in places):
            for place, records in consumer.poll(timeout_ms=1000).items():
                for record in records:
                    yield place.partition, record.offset, record.key, record.value
    finally:
        consumer.close()


def latest(bootstrap: str, topic: str) -> tuple[dict[bytes, bytes], dict[int, list[Any]]]:
    """A compacted topic's values by key, and its partitions' checkpoints."""
    values: dict[bytes, bytes] = {}
    checkpoints: dict[int, list[Any]] = {}
    for partition, _, key, value in read(bootstrap, topic):
        assert key is not None
        if key == CHECKPOINT:
            assert value is not None
            checkpoints[partition] = msgspec.msgpack.decode(value)
        elif value is None:
            values.pop(key, None)
        else:
            values[key] = value
    return values, checkpoints


def _name(event: dict[str, Any]) -> int:
    if event.get("event_id"):
        text = "id\x00" + event["event_id"]
    else:
        text = "\x00".join(str(event[k]) for k in ("user_id", "item_id", "type", "time_ms"))
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "little")


class Users:
    """Histories, counters and the transition rows that they imply."""

    def __init__(self, settings: dict[str, Any]) -> None:
        self.weights: dict[str, float] = settings["weights"]
        self.size: int = settings["history_size"]
        self.gap_ms: int = settings["session_gap_ms"]
        self.window: int = max(settings["near_window"], settings["far_window"])
        self.users: dict[str, dict[str, Any]] = {}
        self.accepted = self.duplicates = 0
        self.rows: Counter[int] = Counter()
        self.row_count = 0

    def apply(self, offset: int, value: bytes) -> None:
        event = json.loads(value)
        user = self.users.setdefault(
            event["user_id"],
            {"times": [], "entries": [], "accepted": 0, "duplicates": 0, "offset": -1},
        )
        user["offset"] = offset
        name = _name(event)
        entries, times = user["entries"], user["times"]
        if any(entry[3] == name for entry in entries):
            user["duplicates"] += 1
            self.duplicates += 1
            return
        user["accepted"] += 1
        self.accepted += 1
        item, time_ms = event["item_id"], event["time_ms"]
        weight = self.weights[event["type"]]
        place = bisect_right(times, time_ms)
        times.insert(place, time_ms)
        entries.insert(place, (item, event["type"], weight, name))
        self._row(item, item, 0, weight, time_ms)
        met = {item}
        if weight > 0:
            for distance in range(1, self.window + 1):
                at = place - distance
                if at < 0 or times[at + 1] - times[at] > self.gap_ms:
                    break
                other = entries[at][0]
                if entries[at][2] > 0 and other not in met:
                    met.add(other)
                    self._row(item, other, -distance, weight, time_ms)
                    self._row(other, item, distance, weight, time_ms)
        del times[: -self.size], entries[: -self.size]

    def _row(self, source: str, target: str, distance: int, weight: float, time_ms: int) -> None:
        row = (source, target, distance, round(weight, 6), time_ms)
        self.rows[hash(row) % 65_537] += hash(row)
        self.row_count += 1

    def wrong(self, states: dict[bytes, bytes]) -> list[str]:
        """Users whose published state differs from this one, and how."""
        faults = [f"user {key!r} is unknown" for key in states if key.decode() not in self.users]
        for user_id, user in self.users.items():
            value = states.get(user_id.encode())
            if value is None:
                faults.append(f"user {user_id} has no state")
                continue
            found = msgspec.msgpack.decode(value)
            entries = user["entries"]
            pairs = {
                "items": (found[0], [e[0] for e in entries]),
                "types": (found[1], [e[1] for e in entries]),
                "times": (np.frombuffer(found[3], "<i8").tolist(), user["times"]),
                "hashes": (np.frombuffer(found[4], "<u8").tolist(), [e[3] for e in entries]),
                "offset": (found[7], user["offset"]),
                "accepted": (found[9], user["accepted"]),
                "duplicates": (found[10], user["duplicates"]),
            }
            faults += [f"user {user_id}: {what}" for what, (a, b) in pairs.items() if a != b]
            weights = np.frombuffer(found[2], "<f4")
            if not np.allclose(weights, [e[2] for e in entries], atol=1e-6):
                faults.append(f"user {user_id}: weights")
        return faults


class Items:
    """Counters and sums of items, row by row in the log order of transitions."""

    def __init__(self, settings: dict[str, Any]) -> None:
        self.trend_ms: list[int] = settings["trend_half_lives_ms"]
        self.half_life_ms: int = settings["half_life_ms"]
        self.near_window: int = settings["near_window"]
        self.far_window: int = settings["far_window"]
        self.far_half_steps: float = settings["far_half_steps"]
        self.kept: int = settings["neighbours"]
        self.items: dict[str, dict[str, Any]] = defaultdict(self._new)
        self.rows: Counter[int] = Counter()
        self.row_count = 0

    def _new(self) -> dict[str, Any]:
        return {
            "interactions": 0,
            "popularity": [[0, 0.0] for _ in self.trend_ms],
            "epoch": 0,
            "near": {},
            "far": {},
        }

    def apply(self, value: bytes) -> None:
        items, *columns = msgspec.msgpack.decode(value)
        kinds = ("<i4", "<i4", "<i4", "<f4", "<i8")
        decoded = [np.frombuffer(c, k).tolist() for c, k in zip(columns[:5], kinds, strict=True)]
        for source, target, distance, weight, time_ms in zip(*decoded, strict=True):
            row = (items[source], items[target], distance, round(weight, 6), time_ms)
            self.rows[hash(row) % 65_537] += hash(row)
            self.row_count += 1
            self._row(items[source], items[target], distance, weight, time_ms)

    def _row(self, source: str, target: str, distance: int, weight: float, time_ms: int) -> None:
        item = self.items[source]
        if distance == 0:
            item["interactions"] += 1
            for place, half_life in enumerate(self.trend_ms):
                epoch, total = item["popularity"][place]
                own = time_ms // (64 * half_life)
                now = max(epoch, own)
                total = math.ldexp(total, -64 * (now - epoch))
                grown = 2.0 ** ((time_ms - own * 64 * half_life) / half_life)
                total += math.ldexp(max(weight, 0.0) * grown, -64 * (now - own))
                item["popularity"][place] = [now, total]
            return
        own = time_ms // (64 * self.half_life_ms)
        now = max(item["epoch"], own)
        near, far = item["near"], item["far"]
        if now > item["epoch"]:
            for table in (near, far):
                for other in table:
                    table[other] = math.ldexp(table[other], -64 * (now - item["epoch"]))
            item["epoch"] = now
        steps = abs(distance)
        grown = 2.0 ** ((time_ms - own * 64 * self.half_life_ms) / self.half_life_ms)
        grown = math.ldexp(grown, -64 * (now - own))
        close = (1 / steps if steps <= self.near_window else 0.0) * weight
        close *= 1.0 if distance > 0 else 0.5
        wide = 2.0 ** (-(steps - 1) / self.far_half_steps) * weight
        wide = wide if steps <= self.far_window else 0.0
        near[target] = near.get(target, 0.0) + close * grown
        far[target] = far.get(target, 0.0) + wide * grown
        if len(far) > 2 * self.kept:
            order = sorted(far, key=lambda other: (-far[other], -near[other], other))
            for other in order[self.kept :]:
                del near[other], far[other]

    def wrong(self, states: dict[bytes, bytes]) -> list[str]:
        """Items whose published state differs from this one, and how."""
        faults = [f"item {key!r} is unknown" for key in states if key.decode() not in self.items]
        for item_id, item in self.items.items():
            value = states.get(item_id.encode())
            if value is None:
                faults.append(f"item {item_id} has no state")
                continue
            found = msgspec.msgpack.decode(value)
            if found[0] != item["interactions"]:
                faults.append(f"item {item_id}: interactions")
            if np.frombuffer(found[1], "<i8").tolist() != [e for e, _ in item["popularity"]]:
                faults.append(f"item {item_id}: popularity epochs")
            totals = [total for _, total in item["popularity"]]
            if not np.allclose(np.frombuffer(found[2], "<f8"), totals, rtol=1e-9, atol=0):
                faults.append(f"item {item_id}: popularity")
            if found[4] != list(item["far"]):
                faults.append(f"item {item_id}: neighbours")
                continue
            for place, table in ((5, item["near"]), (6, item["far"])):
                sums = np.frombuffer(found[place], "<f8")
                if not np.allclose(sums, list(table.values()), rtol=1e-9, atol=1e-300):
                    faults.append(f"item {item_id}: neighbour sums")
        return faults


def recompute(bootstrap: str, prefix: str, settings: dict[str, Any]) -> dict[str, Any]:
    """Counts and faults; ``faults`` is empty when every state equals its recomputation."""
    users, items = Users(settings), Items(settings)
    sent = 0
    for _, offset, _, value in read(bootstrap, f"{prefix}.events"):
        assert value is not None
        sent += 1
        users.apply(offset, value)
    for _, _, _, value in read(bootstrap, f"{prefix}.transitions"):
        assert value is not None
        items.apply(value)
    letters: Counter[str] = Counter()
    lost_originals = 0
    for _, _, _, value in read(bootstrap, f"{prefix}.dead-letters"):
        letter = json.loads(value or b"{}")
        letters[letter["reason"]] += 1
        original = base64.b64decode(letter["value"] or "")
        lost_originals += len(original) != min(letter["size"], 65_536)
    user_states, _ = latest(bootstrap, f"{prefix}.user-state")
    item_states, _ = latest(bootstrap, f"{prefix}.item-state")
    faults = users.wrong(user_states) + items.wrong(item_states)
    if (users.rows, users.row_count) != (items.rows, items.row_count):
        faults.append(
            f"transitions hold {items.row_count} rows, the events imply {users.row_count}"
            " (or others)"
        )
    if lost_originals:
        faults.append(f"{lost_originals} dead letters without their original bytes")
    return {
        "events": sent,
        "accepted": users.accepted,
        "duplicates": users.duplicates,
        "dead_letters": dict(letters),
        "users": len(users.users),
        "items": len(items.items),
        "transition_rows": items.row_count,
        "faults": faults,
    }
