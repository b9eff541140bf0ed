"""A file of past events: how its rows are read, alike for every command that takes one."""

import importlib
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from cyclopts import Parameter

Words = Annotated[list[str], Parameter(consume_multiple=True, negative="")]


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True)
class Reading:
    """How a file is read.

    Parameters
    ----------
    map
        Where a row has what, as in `rheos replay`: FIELD=COLUMN.
    type
        The type of all rows, where --map names no column for it; `purchase` if nothing does.
    types
        Your type names and ours: buy=purchase.
    time_unit
        Of the times: seconds or milliseconds since 1970, or ISO 8601.
    columns
        Names, comma separated, for a file without a header.
    basket
        The column of the basket or invoice: a line that repeats user, item and basket is dropped.
    drop
        Leave out rows: COLUMN=GLOB.
    positive
        Leave out rows whose cell in this column is not above 0.
    """

    map: Words | None = None
    type: str = ""
    types: Words | None = None
    time_unit: Literal["s", "ms", "iso"] = "iso"
    columns: str = ""
    basket: str = ""
    drop: Words | None = None
    positive: str = ""


def read(file: Path, reading: Reading, rules: Any, shuffle_ties: int = 0) -> Any:
    """The EventLog of a file. Raises CommandError and what reading a file raises."""
    from rheos.cli.error import WRONG_USAGE, CommandError
    from rheos.mapping import EventMapping, source_from_words
    from rheos.row_file import RowFile

    event_log = importlib.import_module("trainer.evaluation.event_log")
    rows = RowFile(file, [column for column in reading.columns.split(",") if column])
    mapping = None
    if not rows.is_json or reading.map or reading.type:
        # Which type hardly matters where all rows have the same.
        typed = any(word.startswith("type=") for word in reading.map or [])
        source = source_from_words(
            reading.map or [],
            fixed_type=reading.type or ("" if typed else "purchase"),
            types=reading.types or [],
            time_unit=reading.time_unit,
            columns=rows.columns(),
        )
        mapping = EventMapping(source)
    drop = dict(_pair(word) for word in reading.drop or [])
    shape = event_log.LogFormat(mapping, reading.basket, drop, reading.positive)
    try:
        return event_log.read(rows, shape, rules, shuffle_ties)
    except ValueError as error:
        raise CommandError(str(error), WRONG_USAGE) from None


def described(file: Path, log: Any) -> dict[str, Any]:
    """What of the file counted."""
    return {
        "file": file.name,
        "rows": log.rows,
        "dropped": log.dropped,
        "events": len(log.events),
        "users": len(log.user_ids),
        "items": len(log.item_ids),
    }


def _pair(word: str) -> tuple[str, str]:
    from rheos.cli.error import WRONG_USAGE, CommandError

    column, separator, glob = word.partition("=")
    if not separator or not column:
        raise CommandError(f"--drop {word}: COLUMN=GLOB, like InvoiceNo=C*", WRONG_USAGE)
    return column, glob
