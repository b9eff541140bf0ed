"""Events: one or many, validated, written to Kafka, answered after the broker's acknowledgement."""

import time
from typing import Any

import msgspec
from msgspec import Struct
from starlette.responses import Response

from indexer.api import keyed_records
from indexer.api.endpoint import Call, Endpoint, json_response
from indexer.api.error import ApiError, ErrorAnswer
from rheos.events import Event, InvalidEvent, encode_event
from rheos.topics import Topics

MOST_EVENTS = 1000


class EventBody(Struct, kw_only=True):
    """An event as the API takes it: ``time_ms`` may be absent (now), ids may be numbers."""

    user_id: str | int
    item_id: str | int
    type: str
    time_ms: int | None = None
    event_id: str | int | None = None
    value: float | None = None
    session_id: str | int | None = None
    request_id: str | None = None
    context: dict[str, str | float | bool | None] | None = None


class Place(Struct):
    """Where an event stands in the events topic; an answer whose as_of is there reflects it."""

    partition: int
    offset: int


class Accepted(Struct):
    """A place for each event, in the order given."""

    events: list[Place]


async def post(call: Call) -> Response:
    events = _events(call)
    settings = call.service.settings
    written = await keyed_records.write(
        call,
        Topics(settings).events,
        settings.kafka.events_partitions,
        [(event.user_id, encode_event(event)) for event in events],
        "Some events may have been written: send them again with the same event_id",
    )
    return json_response(Accepted([Place(at.partition, at.offset) for at in written]), 202)


def _events(call: Call) -> list[Event]:
    """All events of the body, checked. Raises ApiError: nothing is written then."""
    try:
        whole: Any = msgspec.json.decode(call.body, type=list[msgspec.Raw] | dict[str, msgspec.Raw])
    except msgspec.ValidationError as error:
        raise ApiError(422, "invalid_body", f"an event or a list of them: {error}") from None
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise ApiError(400, "not_json", str(error)) from None
    parts = [bytes(part) for part in whole] if isinstance(whole, list) else [call.body]
    if not 0 < len(parts) <= MOST_EVENTS:
        raise ApiError(422, "invalid_body", f"{len(parts)} events; 1 to {MOST_EVENTS}")
    rules, now_ms = call.service.rules, call.service.view.now_ms()
    arrival_ms = int(time.time() * 1000)
    events = []
    for index, part in enumerate(parts):
        try:
            events.append(rules.decode(_timed(part, now_ms), arrival_ms))
        except InvalidEvent as error:
            raise ApiError(
                422,
                "invalid_event",
                f"event {index}: {error}",
                index=index,
                reason=error.reason,
            ) from None
    return events


def _timed(part: bytes, now_ms: int) -> bytes:
    """The event with "now" for an absent time; whatever else is wrong with it stays as it is."""
    try:
        fields = msgspec.json.decode(part, type=dict[str, msgspec.Raw])
    except msgspec.DecodeError:
        return part
    absent = [name for name, raw in fields.items() if bytes(raw) == b"null"]
    if "time_ms" in fields and not absent:
        return part
    for name in absent:
        del fields[name]
    return msgspec.json.encode({"time_ms": now_ms, **fields})


ENDPOINTS = [
    Endpoint(
        "POST",
        "/v1/events",
        post,
        "Takes one event or a list of up to 1,000: all are written, or a bad one refuses all.",
        {
            202: Accepted,
            400: ErrorAnswer,
            408: ErrorAnswer,
            413: ErrorAnswer,
            422: ErrorAnswer,
            503: ErrorAnswer,
        },
        body=EventBody | list[EventBody],
    )
]
