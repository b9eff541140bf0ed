"""The users fold said slowly: one event at a time, plain lists, nothing shared with stream/."""

import hashlib
import json
from collections import defaultdict
from typing import Any


class ReferenceUsers:
    """Folds valid JSON events; ``users`` is the outcome, ``rows`` every transition row in order."""

    def __init__(self, weights: dict[str, float], size: int, gap_ms: int, window: int) -> None:
        self.weights, self.size, self.gap_ms, self.window = weights, size, gap_ms, window
        self.users: dict[str, dict[str, Any]] = defaultdict(
            lambda: {"history": [], "accepted": 0, "duplicates": 0, "offset": -1}
        )
        self.rows: list[tuple[str, str, int, float, int]] = []

    def apply(self, offset: int, value: bytes) -> None:
        event = json.loads(value)
        user = self.users[event["user_id"]]
        user["offset"] = offset
        if event.get("event_id"):
            text = "id\x00" + event["event_id"]
        else:
            text = "\x00".join(str(event[key]) for key in ("user_id", "item_id", "type", "time_ms"))
        name = int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "little")
        if any(entry["hash"] == name for entry in user["history"]):
            user["duplicates"] += 1
            return
        user["accepted"] += 1
        weight = self.weights[event["type"]]
        entry = {
            "item": event["item_id"],
            "type": event["type"],
            "weight": weight,
            "time_ms": event["time_ms"],
            "hash": name,
            "offset": offset,
        }
        history = sorted([*user["history"], entry], key=lambda e: (e["time_ms"], e["offset"]))
        place = history.index(entry)
        self.rows.append((entry["item"], entry["item"], 0, weight, entry["time_ms"]))
        met = {entry["item"]}
        distance = 0
        while weight > 0 and distance < self.window and place - distance - 1 >= 0:
            distance += 1
            other = history[place - distance]
            if history[place - distance + 1]["time_ms"] - other["time_ms"] > self.gap_ms:
                break
            if other["weight"] > 0 and other["item"] not in met:
                met.add(other["item"])
                for source, target, step in (
                    (entry["item"], other["item"], -distance),
                    (other["item"], entry["item"], distance),
                ):
                    self.rows.append((source, target, step, weight, entry["time_ms"]))
        user["history"] = history[-self.size :]
