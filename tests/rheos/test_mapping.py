"""Foreign shapes become events; what cannot is refused with reason, path and value."""

import json
import math
from datetime import datetime, timedelta, timezone
from fractions import Fraction
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from rheos.events import REASONS, Event, InvalidEvent
from rheos.mapping import EventMapping, source_from_words
from rheos.settings import SettingsError, SourceSettings


def mapping(**changes: Any) -> EventMapping:
    shape: dict[str, Any] = {
        "name": "shop",
        "topic": "orders",
        "user": "customer.id",
        "item": "sku",
        "time": "at",
        "fixed_type": "purchase",
    }
    return EventMapping(SourceSettings(**(shape | changes)))


def of_json(record: Any, **changes: Any) -> Event:
    return mapping(**changes).event_from_json(json.dumps(record).encode())


ORDER = {"customer": {"id": 7}, "sku": "A1", "at": 1000}
RETAIL = SourceSettings(
    name="retail",
    topic="-",
    user="CustomerID",
    item="StockCode",
    time="InvoiceDate",
    time_unit="iso",
    fixed_type="purchase",
    value="Quantity",
    session_id="InvoiceNo",
)
ROW = {
    "InvoiceNo": "536365",
    "StockCode": "85123A",
    "Quantity": "6",
    "InvoiceDate": "2010-12-01 08:26:00",
    "CustomerID": "17850.0",
}


def refusal(call: Any, *arguments: Any, **options: Any) -> tuple[str, str]:
    with pytest.raises(InvalidEvent) as caught:
        call(*arguments, **options)
    assert caught.value.reason in REASONS
    return caught.value.reason, str(caught.value)


def event_or_reason(call: Any, argument: Any) -> Event | str:
    try:
        event: Event = call(argument)
    except InvalidEvent:
        return refusal(call, argument)[0]
    return event


def test_a_row_of_online_retail_becomes_a_purchase() -> None:
    assert EventMapping(RETAIL).event_from_row(ROW) == Event(
        user_id="17850",
        item_id="85123A",
        type="purchase",
        time_ms=1291191960000,
        value=6.0,
        session_id="536365",
    )


def test_dotted_paths_lead_through_nested_objects() -> None:
    record = {"a": {"b": {"user": "u"}, "what": "i"}, "when": {"ms": 5}, "kind": {"name": "view"}}
    event = of_json(
        record, user="a.b.user", item="a.what", time="when.ms", type="kind.name", fixed_type=""
    )
    assert event == Event(user_id="u", item_id="i", type="view", time_ms=5)


def test_type_names_are_translated_and_unknown_ones_stay_for_the_rules_to_refuse() -> None:
    shape: dict[str, Any] = {"type": "kind", "fixed_type": "", "types": {"buy": "purchase"}}
    assert of_json(ORDER | {"kind": "buy"}, **shape).type == "purchase"
    assert of_json(ORDER | {"kind": "gaze"}, **shape).type == "gaze"
    assert of_json(ORDER | {"kind": 3}, **(shape | {"types": {"3": "view"}})).type == "view"


@pytest.mark.parametrize(
    ("found", "id_"),
    [
        ("17850", "17850"),
        (17850, "17850"),
        (17850.0, "17850"),
        (-3, "-3"),
        ("1.0", "1.0"),
        ("", ""),
    ],
)
def test_json_ids_are_strings_or_whole_numbers(found: Any, id_: str) -> None:
    assert of_json(ORDER | {"sku": found}).item_id == id_


@pytest.mark.parametrize("found", [1.5, True, False, [1], {"a": 1}, 1e300, 2.0**53])
def test_other_json_values_are_no_ids(found: Any) -> None:
    reason, text = refusal(of_json, ORDER | {"sku": found})
    assert reason == "wrong_type"
    assert text.startswith("sku = ")


@pytest.mark.parametrize(
    ("cell", "id_"),
    [
        ("17850.0", "17850"),
        ("17850.00", "17850"),
        (" 85123A ", "85123A"),
        ("17850.5", "17850.5"),
        ("A.0", "A.0"),
        ("00012", "00012"),
    ],
)
def test_csv_ids_lose_white_space_and_the_point_of_whole_numbers(cell: str, id_: str) -> None:
    assert EventMapping(RETAIL).event_from_row(ROW | {"CustomerID": cell}).user_id == id_


@pytest.mark.parametrize("cell", ["", "   ", "nan", "NaN"])
@pytest.mark.parametrize("column", ["CustomerID", "StockCode", "InvoiceDate"])
def test_blank_cells_of_needed_columns_are_missing_fields(column: str, cell: str) -> None:
    reason, text = refusal(EventMapping(RETAIL).event_from_row, ROW | {column: cell})
    assert reason == "missing_field"
    assert column in text


def test_a_short_row_is_a_missing_field() -> None:
    row = {key: cell for key, cell in ROW.items() if key != "CustomerID"}
    assert refusal(EventMapping(RETAIL).event_from_row, row)[0] == "missing_field"


@pytest.mark.parametrize("cell", ["", "NaN", "  "])
def test_blank_optional_cells_are_left_out(cell: str) -> None:
    row = ROW | {"Quantity": cell, "InvoiceNo": cell}
    event = EventMapping(RETAIL).event_from_row(row)
    assert (event.value, event.session_id) == (None, None)


@pytest.mark.parametrize("cell", ["six", "1_000", "6,5", "٣", "0x10"])
def test_a_value_that_is_no_number_is_a_wrong_type(cell: str) -> None:
    reason, text = refusal(EventMapping(RETAIL).event_from_row, ROW | {"Quantity": cell})
    assert reason == "wrong_type"
    assert "Quantity" in text
    assert repr(cell) in text


@pytest.mark.parametrize("record", [ORDER | {"sku": None}, {"sku": "A", "at": 1}])
def test_null_and_absent_are_missing_fields(record: Any) -> None:
    assert refusal(of_json, record)[0] == "missing_field"


def test_a_path_through_something_that_is_no_object_finds_nothing() -> None:
    reason, text = refusal(of_json, ORDER | {"customer": "7"})
    assert (reason, "customer.id" in text) == ("missing_field", True)


def test_an_events_own_id_and_session_may_be_numbers() -> None:
    record = ORDER | {"nr": 12, "visit": 99}
    event = of_json(record, event_id="nr", session_id="visit")
    assert (event.event_id, event.session_id) == ("12", "99")
    event = of_json(ORDER, event_id="nr", session_id="visit")
    assert (event.event_id, event.session_id) == ("", None)


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        (None, "tombstone"),
        (b"", "not_json"),
        (b"{", "not_json"),
        (b'{"sku": NaN}', "not_json"),
        (b'{"sku": "\xff"}', "not_json"),
        (b"[" * 100_000, "not_json"),
        (b'"\\ud800"', "not_json"),
        (b"[]", "wrong_type"),
        (b"null", "wrong_type"),
        (b"7", "wrong_type"),
    ],
)
def test_records_that_are_no_objects_are_refused(value: bytes | None, reason: str) -> None:
    assert refusal(mapping().event_from_json, value)[0] == reason


@pytest.mark.parametrize(
    ("text", "time_ms"),
    [
        ("2010-12-01 08:26:00", 1291191960000),
        ("2010-12-01T08:26:00Z", 1291191960000),
        ("2010-12-01T08:26", 1291191960000),
        ("2010-12-01T09:26:00+01:00", 1291191960000),
        ("2010-12-01 08:26:00.1239", 1291191960123),
        ("2010-12-01", 1291161600000),
        ("1969-12-31T23:59:59.999Z", -1),
    ],
)
def test_iso_times_are_utc_unless_they_name_an_offset(text: str, time_ms: int) -> None:
    assert of_json(ORDER | {"at": text}, time_unit="iso").time_ms == time_ms


@pytest.mark.parametrize("found", ["yesterday", "1/12/2010 8:26", 1291191960, "\ud800", "20101301"])
def test_what_is_no_iso_time_is_a_wrong_type(found: Any) -> None:
    reason, text = refusal(of_json, ORDER | {"at": found}, time_unit="iso")
    # A lone surrogate does not even pass as JSON.
    assert reason == ("not_json" if found == "\ud800" else "wrong_type")
    assert reason == "not_json" or text.startswith("at = ")


@pytest.mark.parametrize(
    ("unit", "found", "time_ms"),
    [
        ("s", 1291191960, 1291191960000),
        ("s", "1291191960.25", 1291191960250),
        ("s", 1291191960.001, 1291191960001),
        ("ms", 1291191960123, 1291191960123),
        ("ms", "1291191960123", 1291191960123),
        ("ms", 1291191960123.0, 1291191960123),
    ],
)
def test_numeric_times_have_the_units_of_the_settings(unit: str, found: Any, time_ms: int) -> None:
    assert of_json(ORDER | {"at": found}, time_unit=unit).time_ms == time_ms


@pytest.mark.parametrize(
    ("found", "reason"),
    [
        ("NaN", "out_of_range"),
        ("inf", "out_of_range"),
        (1e300, "out_of_range"),
        (-(10**18), "out_of_range"),
        ("9" * 5000, "out_of_range"),
        (True, "wrong_type"),
        ([], "wrong_type"),
        ("", "wrong_type"),
        ("2010-12-01", "wrong_type"),
    ],
)
def test_what_is_no_numeric_time_is_refused(found: Any, reason: str) -> None:
    for unit in ("s", "ms"):
        refused, text = refusal(of_json, ORDER | {"at": found}, time_unit=unit)
        assert refused == reason
        assert text.startswith("at = ")
        assert len(text) < 200


def test_columns_that_a_file_lacks_are_named() -> None:
    assert EventMapping(RETAIL).missing_columns(["InvoiceNo", "StockCode", "CustomerID"]) == [
        "InvoiceDate",
        "Quantity",
    ]


@given(
    st.datetimes(datetime(1, 1, 2), datetime(9999, 12, 30)),
    st.integers(-14 * 60, 14 * 60),
    st.booleans(),
)
def test_any_iso_time_agrees_with_the_calendar(
    moment: datetime, offset_minutes: int, blank: bool
) -> None:
    zone = timezone(timedelta(minutes=offset_minutes))
    text = moment.replace(tzinfo=zone).isoformat(" " if blank else "T")
    since_1970 = moment - timedelta(minutes=offset_minutes) - datetime(1970, 1, 1)
    exact = Fraction(since_1970 // timedelta(microseconds=1), 1000)
    found = of_json(ORDER | {"at": text}, time_unit="iso").time_ms
    assert found == math.floor(exact)


scalars = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20)
anything = scalars | st.lists(scalars, max_size=2) | st.dictionaries(st.just("id"), scalars)


# Other tests may have the machine: how long drawing takes says nothing about the mapping.
@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    st.dictionaries(st.sampled_from(["customer", "sku", "at", "n", "s", "e"]), anything),
    st.sampled_from(["s", "ms", "iso"]),
)
def test_any_record_is_an_event_or_refused(record: Any, unit: str) -> None:
    shape = mapping(time_unit=unit, value="n", session_id="s", event_id="e")
    event = event_or_reason(shape.event_from_json, json.dumps(record).encode())
    if isinstance(event, Event):
        assert isinstance(event.user_id, str)
        assert isinstance(event.time_ms, int)
        assert event.value is None or isinstance(event.value, float)


@given(st.dictionaries(st.sampled_from(sorted(ROW)), st.text() | st.floats().map(str)))
def test_any_row_is_an_event_or_refused(cells: dict[str, str]) -> None:
    event = event_or_reason(EventMapping(RETAIL).event_from_row, ROW | cells)
    assert isinstance(event, str) or isinstance(event.time_ms, int)


@given(st.binary())
def test_any_bytes_are_refused_unless_they_map(value: bytes) -> None:
    with pytest.raises(InvalidEvent):
        mapping().event_from_json(value)


def test_words_of_the_command_line_make_a_shape() -> None:
    source = source_from_words(
        ["user=CustomerID", "item=StockCode", "time=InvoiceDate", "type=kind", "value=Quantity"],
        types=["buy=purchase"],
        time_unit="iso",
    )
    assert (source.user, source.item, source.time) == ("CustomerID", "StockCode", "InvoiceDate")
    assert (source.type, source.types, source.value) == ("kind", {"buy": "purchase"}, "Quantity")
    assert (source.time_unit, source.event_id, source.session_id) == ("iso", "", "")


def test_without_words_the_contract_s_own_names_are_meant() -> None:
    source = source_from_words([], columns=["user_id", "item_id", "time_ms", "type", "value"])
    assert (source.user, source.item, source.time, source.type, source.value) == (
        "user_id",
        "item_id",
        "time_ms",
        "type",
        "value",
    )
    assert (source.event_id, source.session_id) == ("", "")


def test_a_fixed_type_stands_above_a_column_of_types() -> None:
    source = source_from_words([], fixed_type="view", columns=["type"])
    assert (source.type, source.fixed_type) == ("", "view")


@pytest.mark.parametrize(
    ("words", "named"),
    [
        (["user"], "--map user: NAME=VALUE"),
        (["user="], "--map user=:"),
        (["who=a"], "--map who=a: .* a name is user, item, time"),
        (["user=a", "user=b"], "--map user=b: .* each name once"),
        ([], "where is an event's type"),
    ],
)
def test_wrong_words_are_named_with_what_is_accepted(words: list[str], named: str) -> None:
    with pytest.raises(SettingsError, match=named):
        source_from_words(words)
