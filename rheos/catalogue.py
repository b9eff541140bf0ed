"""What is known of items and users beside their events: the JSON of two compacted topics.

An item or a user that stands in neither topic is as good as any other: catalogues are optional.
"""

import math
from collections.abc import Callable
from typing import TypeVar

import msgspec

from rheos.ids import id_problem

MAX_RECORD_BYTES = 64 * 1024
MAX_TEXT_CHARACTERS = 1024
MAX_ATTRIBUTES = 64

R = TypeVar("R")
Attribute = str | float | bool | list[str] | None


class InvalidRecordError(ValueError):
    """A record that is no item or user; the text names the field, the value and the limit."""


class Item(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One item of the catalogue. Unknown fields are ignored.

    An item that is not ``available`` is never recommended. ``deleted`` is what a deletion through
    the API leaves behind: a bare tombstone would be compacted away, and the item, which still
    stands in states and generations, would come back with the next restart.
    """

    item_id: str
    title: str = ""
    category: str = ""
    price: float | None = None
    available: bool = True
    deleted: bool = False
    attributes: dict[str, Attribute] = {}


class UserAttributes(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What is known of a user. Unknown fields are ignored."""

    user_id: str
    attributes: dict[str, Attribute] = {}


_decode_item = msgspec.json.Decoder(Item).decode
_decode_user = msgspec.json.Decoder(UserAttributes).decode
encode_record = msgspec.json.Encoder().encode


def decode_item(value: bytes) -> Item:
    """The checked item in a record's value. Raises InvalidRecordError."""
    item = _decoded(value, _decode_item, "item_id")
    _check_id("item_id", item.item_id)
    _check_text("title", item.title)
    _check_text("category", item.category)
    if item.price is not None and not (math.isfinite(item.price) and item.price >= 0):
        raise InvalidRecordError(f"price {item.price}: a number from 0")
    _check_attributes(item.attributes)
    return item


def decode_user(value: bytes) -> UserAttributes:
    """The checked user attributes in a record's value. Raises InvalidRecordError."""
    user = _decoded(value, _decode_user, "user_id")
    _check_id("user_id", user.user_id)
    _check_attributes(user.attributes)
    return user


def _decoded(value: bytes, decode: Callable[[bytes], R], id_field: str) -> R:
    if len(value) > MAX_RECORD_BYTES:
        raise InvalidRecordError(f"{len(value)} bytes; a record has at most {MAX_RECORD_BYTES}")
    try:
        try:
            return decode(value)
        except msgspec.ValidationError:
            fields = msgspec.json.decode(value)
            if not isinstance(fields, dict) or type(fields.get(id_field)) is not int:
                raise
            # Many producers write ids as numbers; ours are their text.
            return decode(msgspec.json.encode({**fields, id_field: str(fields[id_field])}))
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise InvalidRecordError(str(error)) from None


def _check_id(name: str, value: str) -> None:
    problem = id_problem(value)
    if problem:
        raise InvalidRecordError(f"{name} {value[:80]!r}: {problem}")


def _check_text(name: str, value: str) -> None:
    if len(value) > MAX_TEXT_CHARACTERS:
        raise InvalidRecordError(
            f"{name} has {len(value)} characters; at most {MAX_TEXT_CHARACTERS}"
        )
    if not _is_unicode(value):
        raise InvalidRecordError(f"{name} {value[:80]!r}: not_unicode")


def _check_attributes(attributes: dict[str, Attribute]) -> None:
    if len(attributes) > MAX_ATTRIBUTES:
        raise InvalidRecordError(f"{len(attributes)} attributes; at most {MAX_ATTRIBUTES}")
    for name, value in attributes.items():
        if isinstance(value, float) and not math.isfinite(value):
            raise InvalidRecordError(f"attributes.{name[:80]} {value}: a finite number")


def _is_unicode(value: str) -> bool:
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return True
