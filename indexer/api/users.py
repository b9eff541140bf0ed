"""Users: their attributes, written to the compacted topic, and what the stream keeps of them."""

from typing import Annotated, Any

import msgspec
from msgspec import Meta, Struct
from starlette.responses import Response

from indexer.api import keyed_records
from indexer.api.endpoint import Call, Endpoint, decoded, json_response
from indexer.api.error import ApiError, ErrorAnswer
from indexer.api.recommendations import AsOf
from indexer.live_users import MOST_ACTIVE
from rheos.catalogue import Attribute, InvalidRecordError, decode_user, encode_record
from rheos.ids import partition_of
from rheos.topics import Topics


class UserBody(Struct, kw_only=True):
    """Attributes as the API takes them; the path's id may stand for ``user_id``."""

    user_id: str | int | None = None
    attributes: dict[str, Attribute] = {}


class UsersQuery(Struct, forbid_unknown_fields=True):
    """Query parameters of the list of users."""

    limit: Annotated[int, Meta(ge=1, le=MOST_ACTIVE, description="How many, at most.")] = 50


class UserWritten(Struct):
    """Where the record stands in the users topic."""

    user_id: str
    partition: int
    offset: int


class HistoryItem(Struct, omit_defaults=True):
    """One interaction of a user."""

    item_id: str
    type: str
    weight: float
    time_ms: int
    title: str | None = None


class UserAnswer(Struct):
    """A user: history newest first, the generation of the stored vector, counters."""

    user_id: str
    generation: str | None
    as_of: AsOf | None
    accepted: int
    duplicates: int
    attributes: dict[str, Attribute]
    history: list[HistoryItem]


class UserSummary(Struct):
    user_id: str
    accepted: int


class Users(Struct):
    """The users with the most events first."""

    users: list[UserSummary]


async def put(call: Call) -> Response:
    user_id = call.ids["user_id"]
    fields = decoded(call.body, dict[str, Any])
    given = fields.setdefault("user_id", user_id)
    try:
        user = decode_user(msgspec.json.encode(fields))
    except InvalidRecordError as error:
        raise ApiError(422, "invalid_user", str(error)) from None
    if user.user_id != user_id:
        raise ApiError(422, "invalid_user", f"user_id {given!r:.80} is not the path's")
    settings = call.service.settings
    (written,) = await keyed_records.write(
        call,
        Topics(settings).users,
        settings.kafka.events_partitions,
        [(user_id, encode_record(user))],
        "Writing a user again is safe",
    )
    return json_response(UserWritten(user_id, written.partition, written.offset), 202)


async def get(call: Call) -> Response:
    view, user_id = call.service.view, call.ids["user_id"]
    user, known = view.users.get(user_id), view.catalogue.user(user_id)
    attributes = {} if known is None else known.attributes
    if user is None:
        if known is None:
            raise ApiError(404, "not_found", f"user {user_id!r} is not known")
        return json_response(UserAnswer(user_id, None, None, 0, 0, attributes, []))
    state = user.state
    history = [
        HistoryItem(item_id, kind, weight, time_ms, view.catalogue.title(item_id))
        for item_id, kind, weight, time_ms in zip(
            user.history.item_ids,
            state.types,
            user.history.weights.tolist(),
            user.history.times_ms.tolist(),
            strict=True,
        )
    ]
    partition = partition_of(user_id, call.service.settings.kafka.events_partitions)
    return json_response(
        UserAnswer(
            user_id,
            state.generation or None,
            AsOf(partition, state.offset),
            state.accepted,
            state.duplicates,
            attributes,
            history[::-1],
        )
    )


async def most_active(call: Call) -> Response:
    users = call.service.view.users
    ids = users.most_active(call.query.limit)
    return json_response(Users([UserSummary(user_id, users.accepted(user_id)) for user_id in ids]))


ENDPOINTS = [
    Endpoint(
        "GET",
        "/v1/users",
        most_active,
        "Some users: those with the most events.",
        {200: Users, 422: ErrorAnswer, 503: ErrorAnswer},
        query=UsersQuery,
        needs_ready=True,
    ),
    Endpoint(
        "GET",
        "/v1/users/{user_id}",
        get,
        "A user's history, counters and attributes.",
        {200: UserAnswer, 404: ErrorAnswer, 422: ErrorAnswer, 503: ErrorAnswer},
        needs_ready=True,
    ),
    Endpoint(
        "PUT",
        "/v1/users/{user_id}",
        put,
        "Writes a user's attributes.",
        {
            202: UserWritten,
            400: ErrorAnswer,
            408: ErrorAnswer,
            413: ErrorAnswer,
            422: ErrorAnswer,
            503: ErrorAnswer,
        },
        body=UserBody,
    ),
]
