"""The catalogue of items: written to the compacted topic, read from the live view."""

import asyncio
from typing import Annotated, Any

import msgspec
from msgspec import Meta, Struct
from starlette.responses import Response

from indexer.api import keyed_records
from indexer.api.endpoint import Call, Endpoint, decoded, json_response
from indexer.api.error import ApiError, ErrorAnswer
from rheos.catalogue import Attribute, InvalidRecordError, Item, decode_item, encode_record
from rheos.topics import Topics

MOST_ITEMS = 1000


class ItemBody(Struct, kw_only=True):
    """An item as the API takes it; in a PUT the path's id may stand for ``item_id``."""

    item_id: str | int | None = None
    title: str = ""
    category: str = ""
    price: float | None = None
    available: bool = True
    attributes: dict[str, Attribute] = {}


class FindQuery(Struct, forbid_unknown_fields=True):
    """Query parameters of a search."""

    query: Annotated[str, Meta(max_length=256, description="Words of the title or the id.")] = ""
    limit: Annotated[int, Meta(ge=1, le=100, description="How many items, at most.")] = 20


class ItemPlace(Struct):
    """Where a record stands in the items topic."""

    item_id: str
    partition: int
    offset: int


class ItemsWritten(Struct):
    items: list[ItemPlace]


class ItemAnswer(Struct):
    """An item as the catalogue and the stream know it."""

    item_id: str
    title: str
    category: str
    price: float | None
    available: bool
    attributes: dict[str, Attribute]
    interactions: int


class Items(Struct):
    items: list[ItemAnswer]


async def put(call: Call) -> Response:
    item_id = call.ids["item_id"]
    fields = decoded(call.body, dict[str, Any])
    given = fields.setdefault("item_id", item_id)
    item = _checked(msgspec.json.encode(fields), None)
    if item.item_id != item_id:
        raise ApiError(422, "invalid_item", f"item_id {given!r:.80} is not the path's")
    return json_response(await _write(call, [item]), 202)


async def post(call: Call) -> Response:
    parts: list[msgspec.Raw] = decoded(call.body, list[msgspec.Raw])
    if not 0 < len(parts) <= MOST_ITEMS:
        raise ApiError(422, "invalid_body", f"{len(parts)} items; 1 to {MOST_ITEMS}")
    items = [_checked(bytes(part), index) for index, part in enumerate(parts)]
    return json_response(await _write(call, items), 202)


async def delete(call: Call) -> Response:
    gone = Item(item_id=call.ids["item_id"], available=False, deleted=True)
    return json_response(await _write(call, [gone]), 202)


async def get(call: Call) -> Response:
    found = _answer(call, call.ids["item_id"])
    if found is None:
        raise ApiError(404, "not_found", f"item {call.ids['item_id']!r} is not known")
    return json_response(found)


async def find(call: Call) -> Response:
    catalogue = call.service.view.catalogue
    found = await asyncio.to_thread(catalogue.find, call.query.query, call.query.limit)
    answers = [_answer(call, item_id) for item_id in found]
    return json_response(Items([answer for answer in answers if answer is not None]))


def _answer(call: Call, item_id: str) -> ItemAnswer | None:
    """What is known of an item: by the catalogue, or at least by the stream or the generation."""
    service = call.service
    view = service.view
    item = view.catalogue.item(item_id)
    if item is None:
        number = view.numbers.get(item_id)
        if (
            number is None
            or view.catalogue.is_deleted(item_id)
            or not service.retrieval.knows(item_id, service.swap.current)
        ):
            return None
        item = Item(item_id=item_id)
    return ItemAnswer(
        item.item_id,
        item.title,
        item.category,
        item.price,
        item.available,
        item.attributes,
        view.interactions(item_id),
    )


def _checked(value: bytes, index: int | None) -> Item:
    """Raises ApiError 422."""
    try:
        item = decode_item(value)
    except InvalidRecordError as error:
        named = "" if index is None else f"item {index}: "
        raise ApiError(422, "invalid_item", f"{named}{error}", index=index) from None
    return msgspec.structs.replace(item, deleted=False)


async def _write(call: Call, items: list[Item]) -> ItemsWritten:
    settings = call.service.settings
    written = await keyed_records.write(
        call,
        Topics(settings).items,
        settings.kafka.items_partitions,
        [(item.item_id, encode_record(item)) for item in items],
        "Writing items again is safe",
    )
    return ItemsWritten(
        [
            ItemPlace(item.item_id, at.partition, at.offset)
            for item, at in zip(items, written, strict=True)
        ]
    )


_WRITE = {
    202: ItemsWritten,
    400: ErrorAnswer,
    408: ErrorAnswer,
    413: ErrorAnswer,
    422: ErrorAnswer,
    503: ErrorAnswer,
}

ENDPOINTS = [
    Endpoint(
        "GET",
        "/v1/items",
        find,
        "Items whose title or id has all of some words.",
        {200: Items, 422: ErrorAnswer, 503: ErrorAnswer},
        query=FindQuery,
        needs_ready=True,
    ),
    Endpoint("POST", "/v1/items", post, "Writes up to 1,000 items.", _WRITE, body=list[ItemBody]),
    Endpoint(
        "GET",
        "/v1/items/{item_id}",
        get,
        "An item.",
        {200: ItemAnswer, 404: ErrorAnswer, 422: ErrorAnswer, 503: ErrorAnswer},
        needs_ready=True,
    ),
    Endpoint("PUT", "/v1/items/{item_id}", put, "Writes an item.", _WRITE, body=ItemBody),
    Endpoint(
        "DELETE",
        "/v1/items/{item_id}",
        delete,
        "Takes an item out of the catalogue and every answer; writing it again brings it back.",
        {202: ItemsWritten, 422: ErrorAnswer, 503: ErrorAnswer},
    ),
]
