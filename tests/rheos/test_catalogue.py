"""Items and user attributes: what is accepted, what is refused and why."""

import pytest

from rheos.catalogue import InvalidRecordError, Item, decode_item, decode_user, encode_record


def test_an_item_survives_its_encoding() -> None:
    item = Item(
        item_id="85123A",
        title="WHITE HANGING HEART T-LIGHT HOLDER",
        category="lights",
        price=2.55,
        available=False,
        attributes={"colour": "white", "sizes": ["s", "m"], "weight": 1.5, "new": True, "x": None},
    )
    assert decode_item(encode_record(item)) == item
    assert decode_item(b'{"item_id": "a", "unheard_of": [1, {}]}') == Item(item_id="a")


def test_ids_may_be_written_as_numbers() -> None:
    assert decode_item(b'{"item_id": 22423}').item_id == "22423"
    assert decode_user(b'{"user_id": 17850, "attributes": {"country": "UK"}}').user_id == "17850"


@pytest.mark.parametrize(
    ("value", "named"),
    [
        (b"", "truncated"),
        (b"{", "truncated"),
        (b"[]", "Expected `object`"),
        (b"{}", "item_id"),
        (b'{"item_id": ""}', "empty_id"),
        (b'{"item_id": "a\\u0000b"}', "control_character"),
        (b'{"item_id": true}', "item_id"),
        (b'{"item_id": 1.5}', "item_id"),
        (b'{"item_id": "\\ud800"}', "."),
        (b'{"item_id": "a", "price": NaN}', "."),
        (b'{"item_id": "a", "price": 1e999}', "."),
        (b'{"item_id": "a", "price": -0.01}', "price"),
        (b'{"item_id": "a", "price": "2.55"}', "price"),
        (b'{"item_id": "a", "title": "' + b"t" * 1025 + b'"}', "title"),
        (b'{"item_id": "a", "attributes": {"x": {"deep": 1}}}', "attributes"),
        (b'{"item_id": "a", "title": "' + b"t" * 70_000 + b'"}', "bytes"),
        (b'{"item_id": "' + b"i" * 257 + b'"}', "long_id"),
        (b"[" * 100_000, "bytes"),
        (b'{"item_id": ' + b"[" * 20_000, "."),
        (b"\xff\xfe", "."),
    ],
)
def test_what_is_no_item_is_refused_with_its_reason(value: bytes, named: str) -> None:
    with pytest.raises(InvalidRecordError, match=named):
        decode_item(value)


def test_users_keep_the_same_limits() -> None:
    many = ",".join(f'"a{number}": 1' for number in range(65))
    for value in (b"{}", b'{"user_id": "\\n"}', b'{"user_id": "u", "attributes": []}'):
        with pytest.raises(InvalidRecordError):
            decode_user(value)
    with pytest.raises(InvalidRecordError, match="at most 64"):
        decode_user(f'{{"user_id": "u", "attributes": {{{many}}}}}'.encode())
