"""Foreign shapes: a record or a CSV row with other names and units becomes an Event."""

import math
from collections.abc import Callable, Collection, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import Any, Literal

import msgspec

from rheos.events import Event, InvalidEvent
from rheos.ids import id_from_number
from rheos.settings import SettingsError, SourceSettings

FIELDS = ("user", "item", "time", "type", "value", "event_id", "session_id")
"""What a path can be given for, by the names of ``SourceSettings``."""

_OWN_NAMES = {"user": "user_id", "item": "item_id", "time": "time_ms"}

_EXACT = 1 << 53
"""Whole numbers below it survive a float64, which JSON libraries put long numbers into."""

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MILLISECOND = timedelta(milliseconds=1)
_BLANK_CELLS = frozenset(("", "nan", "NaN"))
"""What stands in a CSV cell without a value; the latter two are pandas' and NumPy's."""

_decode_json = msgspec.json.Decoder().decode

Find = Callable[[str], Any]
"""The value at a path, or None when there is none."""


class EventMapping:
    """Turns what a source's settings describe into Events. Pure: no clock, no I/O.

    An Event that comes out has the right types; its limits (``EventRules.check``) are the
    caller's to check. Ids may be strings or whole numbers; a name in ``types`` is translated,
    another one stays; ``value``, ``event_id`` and ``session_id`` may be missing, null or blank.
    A time in text is ISO 8601 (``2010-12-01 08:26:00`` too), UTC where it names no offset.
    ``source`` is all that the mapping depends on.
    """

    def __init__(self, source: SourceSettings) -> None:
        self.source = source
        paths = (getattr(source, field) for field in FIELDS)
        self._keys = {path: tuple(path.split(".")) for path in paths if path}

    def missing_columns(self, header: Collection[str]) -> list[str]:
        """The mapped columns that a file with this header does not have."""
        return [path for path in self._keys if path not in header]

    def event_from_json(self, value: bytes | None) -> Event:
        """The event in a record's JSON value, with dotted paths through its objects.

        Raises InvalidEvent; the text names path and value.
        """
        if value is None:
            raise InvalidEvent("tombstone", "a record without a value is no event")
        try:
            record = _decode_json(value)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            raise InvalidEvent("not_json", str(error)) from None
        if not isinstance(record, dict):
            raise InvalidEvent("wrong_type", f"a JSON object is needed, not {_shown(record)}")

        def find(path: str) -> Any:
            found: Any = record
            for key in self._keys[path]:
                if not isinstance(found, dict):
                    return None
                found = found.get(key)
            return found

        return self._event(find, _id_of_json)

    def event_from_row(self, row: Mapping[str, str]) -> Event:
        """The event in a row of a CSV file, column name → cell; a path is a column's whole name.

        Cells lose the white space around them, ids that spreadsheets wrote as ``17850.0`` their
        ``.0``. Raises InvalidEvent; the text names column and cell.
        """

        def find(path: str) -> Any:
            cell = (row.get(path) or "").strip()
            return None if cell in _BLANK_CELLS else cell

        return self._event(find, _id_of_cell)

    def _event(self, find: Find, read_id: Callable[[str, Any], str]) -> Event:
        source = self.source
        session_id = find(source.session_id) if source.session_id else None
        event_id = find(source.event_id) if source.event_id else None
        value = find(source.value) if source.value else None
        kind = source.fixed_type
        if not kind:
            name = read_id(source.type, _present(source.type, find(source.type)))
            kind = source.types.get(name, name)
        return Event(
            user_id=read_id(source.user, _present(source.user, find(source.user))),
            item_id=read_id(source.item, _present(source.item, find(source.item))),
            type=kind,
            time_ms=self._time_ms(_present(source.time, find(source.time))),
            value=None if value is None else _number(source.value, value),
            event_id="" if event_id is None else read_id(source.event_id, event_id),
            session_id=None if session_id is None else read_id(source.session_id, session_id),
        )

    def _time_ms(self, found: Any) -> int:
        path, unit = self.source.time, self.source.time_unit
        if unit == "iso":
            try:
                return _iso_ms(found)
            except (TypeError, ValueError):
                raise InvalidEvent(
                    "wrong_type", f"{path} = {_shown(found)} is no ISO 8601 time"
                ) from None
        number = found if type(found) is int else _number(path, found)
        factor = 1000 if unit == "s" else 1
        # Refused before the product: it may be past what a float or the contract can hold.
        if not abs(number) < _EXACT:
            raise InvalidEvent("out_of_range", f"{path} = {_shown(found)} is no time in {unit}")
        return round(number * factor)


def source_from_words(
    paths: Sequence[str],
    *,
    fixed_type: str = "",
    types: Sequence[str] = (),
    time_unit: Literal["s", "ms", "iso"] = "ms",
    columns: Collection[str] = (),
) -> SourceSettings:
    """The shape of a file from command-line words: ``user=CustomerID`` and, in ``types``,
    ``buy=purchase``.

    What no word names has its name in the event contract, as far as the file has such ``columns``.
    Raises SettingsError, whose text names the word and what is accepted.
    """
    shape: dict[str, Any] = {
        field: name
        for field in FIELDS
        if (name := _OWN_NAMES.get(field, field)) in columns or field in _OWN_NAMES
    }
    shape |= _pairs(paths, "--map", FIELDS)
    if fixed_type:
        shape["type"] = ""
    elif not shape.get("type"):
        raise SettingsError("where is an event's type? --map type=PATH, or --type purchase for all")
    return SourceSettings(
        name="file",
        topic="file",
        fixed_type=fixed_type,
        types=_pairs(types, "--types"),
        time_unit=time_unit,
        **shape,
    )


def _pairs(words: Sequence[str], option: str, names: Sequence[str] = ()) -> dict[str, str]:
    pairs: dict[str, str] = {}
    for word in words:
        name, equals, value = word.partition("=")
        if not equals or not value or (names and name not in names) or name in pairs:
            accepted = ", ".join(names) or "a name of yours"
            raise SettingsError(
                f"{option} {word}: NAME=VALUE is needed, each name once; a name is {accepted}"
            )
        pairs[name] = value
    return pairs


@lru_cache(maxsize=4096)
def _iso_ms(text: str) -> int:
    moment = datetime.fromisoformat(text)
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    return (moment - _EPOCH) // _MILLISECOND


def _present(path: str, found: Any) -> Any:
    if found is None:
        raise InvalidEvent("missing_field", f"{path} is missing or blank")
    return found


def _id_of_json(path: str, found: Any) -> str:
    if isinstance(found, str):
        return found
    if isinstance(found, int) and not isinstance(found, bool):
        return str(found)
    if isinstance(found, float) and found.is_integer() and abs(found) < _EXACT:
        return str(int(found))
    # Past 2**53 a number has lost digits on its way here: two ids could become one.
    raise InvalidEvent("wrong_type", f"{path} = {_shown(found)} is no string or whole number")


def _id_of_cell(_path: str, cell: str) -> str:
    return id_from_number(cell)


def _number(path: str, found: Any) -> float:
    """A number, or text that is one; not necessarily a finite one."""
    if isinstance(found, str) and found.isascii() and "_" not in found:
        try:
            return float(found)
        except ValueError:
            pass
    elif isinstance(found, int | float) and not isinstance(found, bool):
        try:
            return float(found)
        except OverflowError:  # JSON's whole numbers may have thousands of digits
            return math.inf
    raise InvalidEvent("wrong_type", f"{path} = {_shown(found)} is no number")


def _shown(found: Any) -> str:
    text = repr(found)
    return text if len(text) <= 80 else f"{text[:80]}…"
