"""The event contract: what producers send, how it is decoded, and what is refused and why."""

import hashlib
import math
from collections.abc import Mapping
from typing import Any

import msgspec

from rheos.ids import id_problem

MAX_EVENT_BYTES = 64 * 1024
MAX_CONTEXT_KEYS = 32

REASONS = (
    "not_json",
    "wrong_type",
    "missing_field",
    "empty_id",
    "long_id",
    "control_character",
    "not_unicode",
    "unknown_type",
    "out_of_range",
    "in_the_future",
    "too_large",
    "tombstone",
    "wrong_partition",
    "failed",
)
"""Why a record becomes a dead letter; the values of the label ``reason``, all of them."""


class InvalidEvent(ValueError):
    """A record that is no event. ``reason`` is one of REASONS, the text names field and value."""

    def __init__(self, reason: str, text: str) -> None:
        super().__init__(text)
        self.reason = reason


class Event(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, gc=False):
    """One thing a user did with an item. JSON on public topics; unknown fields are ignored.

    ``time_ms`` is the event time (UTC, milliseconds since 1970), ``value`` a quantity, price or
    rating. ``event_id`` is the producer's, for idempotence; without one it is derived.
    """

    user_id: str
    item_id: str
    type: str
    time_ms: int
    event_id: str = ""
    value: float | None = None
    session_id: str | None = None
    request_id: str | None = None
    context: dict[str, str | float | bool | None] | None = None


class _LooseEvent(msgspec.Struct, kw_only=True):
    """The same with ids as many producers write them: as numbers."""

    user_id: str | int
    item_id: str | int
    type: str
    time_ms: int
    event_id: str | int = ""
    value: float | None = None
    session_id: str | int | None = None
    request_id: str | None = None
    context: dict[str, str | float | bool | None] | None = None


_decode_event = msgspec.json.Decoder(Event).decode
_decode_loose = msgspec.json.Decoder(_LooseEvent).decode
encode_event = msgspec.json.Encoder().encode


class EventRules:
    """Decodes and checks events under given settings. Pure: no clock, no I/O.

    ``weights`` gives each known type its weight (negative: the user is not interested);
    ``future_tolerance_ms`` is how far ``time_ms`` may lie past the time of arrival.
    A rating's weight is scaled by (value - neutral) / (best - neutral), so a poor one is negative.
    """

    def __init__(
        self,
        weights: Mapping[str, float],
        future_tolerance_ms: int,
        rating_neutral: float = 2.5,
        rating_best: float = 5.0,
    ) -> None:
        self.weights = dict(weights)
        self.future_tolerance_ms = future_tolerance_ms
        self._rating_neutral = rating_neutral
        self._rating_span = rating_best - rating_neutral

    def decode(self, value: bytes | None, arrival_ms: int) -> Event:
        """The event in a record's value that arrived at ``arrival_ms``.

        Raises InvalidEvent: the record is a dead letter.
        """
        if value is None:
            raise InvalidEvent("tombstone", "a record without a value is no event")
        if len(value) > MAX_EVENT_BYTES:
            raise InvalidEvent(
                "too_large", f"{len(value)} bytes; an event has at most {MAX_EVENT_BYTES}"
            )
        try:
            event = _decode_event(value)
        except msgspec.ValidationError:
            event = self._decode_loose(value)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            raise InvalidEvent("not_json", str(error)) from None
        self.check(event, arrival_ms)
        return event

    def _decode_loose(self, value: bytes) -> Event:
        try:
            loose = _decode_loose(value)
        except msgspec.ValidationError as error:
            missing = "missing required field" in str(error)
            raise InvalidEvent("missing_field" if missing else "wrong_type", str(error)) from None
        fields: dict[str, Any] = msgspec.structs.asdict(loose)
        for name in ("user_id", "item_id", "event_id", "session_id"):
            if isinstance(fields[name], int):
                fields[name] = str(fields[name])
        return Event(**fields)

    def check(self, event: Event, arrival_ms: int) -> None:
        """Raises InvalidEvent unless the event keeps the contract's limits."""
        problem = id_problem(event.user_id)
        if problem:
            raise InvalidEvent(problem, f"user_id {event.user_id[:80]!r}")
        problem = id_problem(event.item_id)
        if problem:
            raise InvalidEvent(problem, f"item_id {event.item_id[:80]!r}")
        for name in ("event_id", "session_id", "request_id"):
            text = getattr(event, name)
            if text:
                problem = id_problem(text)
                if problem:
                    raise InvalidEvent(problem, f"{name} {text[:80]!r}")
        if event.type not in self.weights:
            known = ", ".join(sorted(self.weights))
            raise InvalidEvent("unknown_type", f"type {event.type[:80]!r}; known: {known}")
        if not 0 <= event.time_ms < 1 << 53:
            raise InvalidEvent("out_of_range", f"time_ms {event.time_ms}; at least 0 (1970, UTC)")
        if event.time_ms > arrival_ms + self.future_tolerance_ms:
            ahead = (event.time_ms - arrival_ms) // 1000
            raise InvalidEvent(
                "in_the_future",
                f"time_ms {event.time_ms} is {ahead} s ahead of its arrival; are seconds,"
                " milliseconds or the time zone mixed up?",
            )
        if event.value is not None:
            if not math.isfinite(event.value):
                raise InvalidEvent("out_of_range", f"value {event.value}")
            if event.value < 0:
                raise InvalidEvent("out_of_range", f"value {event.value:g}; at least 0")
        elif event.type == "rating":
            raise InvalidEvent("missing_field", "a rating needs a value")
        if event.context and len(event.context) > MAX_CONTEXT_KEYS:
            raise InvalidEvent(
                "too_large", f"context has {len(event.context)} keys; at most {MAX_CONTEXT_KEYS}"
            )

    def weight(self, event: Event) -> float:
        """The weight of an event that passed ``check``."""
        weight = self.weights[event.type]
        if event.type == "rating" and event.value is not None:
            scaled = (event.value - self._rating_neutral) / self._rating_span
            return weight * min(1.0, max(-1.0, scaled))
        return weight


def event_hash(event: Event) -> int:
    """64 bits that name an event within its user's history: its own id, or what it says.

    Stable across processes and versions: it is stored in UserState.
    """
    if event.event_id:
        text = f"id\x00{event.event_id}"
    else:
        text = f"{event.user_id}\x00{event.item_id}\x00{event.type}\x00{event.time_ms}"
    digest = hashlib.blake2b(text.encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little")
