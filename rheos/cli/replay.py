"""``rheos replay``: the rows of a file become events."""

import importlib
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from cyclopts import Parameter

if TYPE_CHECKING:
    from rheos.row_file import RowFile

Words = Annotated[list[str], Parameter(consume_multiple=True, negative="")]
Flag = Annotated[bool, Parameter(negative="")]


def command(
    file: Path,
    *,
    map: Words | None = None,
    type: str = "",
    types: Words | None = None,
    time_unit: Literal["s", "ms", "iso"] = "ms",
    columns: str = "",
    name: str = "",
    rate: float = 0,
    speed: float = 0,
    longest_gap: float = 5,
    first: Annotated[str, Parameter(name="--from")] = "0",
    until: str = "",
    sort: Flag = False,
    json: Flag = False,
) -> int:
    """Replay a file of events: CSV, TSV or JSON lines, plain, .gz or .xz.

    Every row is sent once: a run that ended in whatever way is gone on with by the next one, and
    one more run adds nothing. Rows that are no events become dead letters.

    Example: `rheos replay retail.csv --map user=CustomerID item=StockCode time=InvoiceDate
    value=Quantity --type purchase --time-unit iso`

    Parameters
    ----------
    file
        What to replay, oldest row first (or see --sort).
    map
        Where a row has what: FIELD=COLUMN, or a dotted path in JSON. Fields are user, item, time,
        type, value, event_id and session_id; without a word the name in the event contract is
        meant. JSON lines without --map and --type are events already.
    type
        The type of all rows, where no column gives it.
    types
        Your type names and ours: buy=purchase.
    time_unit
        Of the times: seconds or milliseconds since 1970, or ISO 8601.
    columns
        Names, comma separated, for a file without a header.
    name
        Of the source, together with its content; by default the file's name. Under another name the
        same rows are sent again.
    rate
        Rows a second; 0: no limit.
    speed
        Times as fast as recorded; 0: no limit.
    longest_gap
        With --speed: the longest wait between two rows, in seconds.
    first
        Begin at this row (the first is 0), or at a share of the rows (0.5, 50%). Rows before it are
        skipped for good.
    until
        End before this row or share.
    sort
        Order the rows by time first; holds the file in memory.
    json
        Print the summary as JSON.
    """
    from rheos import topics
    from rheos.cli import broker
    from rheos.cli.answer import print_json
    from rheos.cli.error import WRONG_USAGE, CommandError
    from rheos.cli.stop_signals import stop_signals
    from rheos.mapping import EventMapping, source_from_words
    from rheos.row_file import RowFile
    from rheos.settings import load

    if rate < 0 or speed < 0 or longest_gap < 0 or (rate and speed):
        raise CommandError("--rate or --speed, above 0, and --longest-gap from 0", WRONG_USAGE)
    settings = load()
    rows = RowFile(file, [column for column in columns.split(",") if column])
    mapping = None
    if not rows.is_json or map or type:
        mapping = EventMapping(
            source_from_words(
                map or [],
                fixed_type=type,
                types=types or [],
                time_unit=time_unit,
                columns=rows.columns(),
            )
        )
        if not rows.is_json and (missing := mapping.missing_columns(rows.columns())):
            raise CommandError(
                f"{file} has no column {', '.join(missing)}; it has {', '.join(rows.columns())}:"
                " see --map",
                WRONG_USAGE,
            )
    broker.require(settings)
    if problems := topics.ensure(settings):
        raise CommandError("\n".join(problems))

    stream_replay = importlib.import_module("stream.replay")
    pace = importlib.import_module("stream.pace").Pace(rate, speed, longest_gap)
    plan = stream_replay.Plan(
        file=rows,
        mapping=mapping,
        name=name or file.name,
        pace=pace,
        first=_row(first, "--from", rows),
        until=_row(until, "--until", rows) if until else None,
        sort=sort,
    )
    with stop_signals() as stop, _bar(file.name, rows) as progress:
        done = stream_replay.replay(settings, plan, stop=stop, progress=progress, notice=_tell)
    if json:
        print_json(done)
    else:
        _print(done)
    return 130 if done.stopped else 0


def _row(text: str, option: str, rows: "RowFile") -> int:
    """A row number, or a share of the rows, which are counted then."""
    from rheos.cli.error import WRONG_USAGE, CommandError

    try:
        if text.isdigit():
            return int(text)
        share = float(text[:-1]) / 100 if text.endswith("%") else float(text)
    except ValueError:
        share = -1.0
    if not 0 <= share <= 1:
        raise CommandError(f"{option} {text}: a row number, 0.5 or 50%", WRONG_USAGE)
    return round(share * rows.count())


def _tell(line: str) -> None:
    print(f"rheos: {line}", file=sys.stderr)


@contextmanager
def _bar(title: str, rows: "RowFile") -> Iterator[Callable[[Any], None]]:
    """A progress bar on stderr, on a terminal only. It goes by bytes: nobody counted the rows."""
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        Progress,
        TaskProgressColumn,
        TextColumn,
        TimeRemainingColumn,
    )

    console = Console(stderr=True)
    with Progress(
        TextColumn(title),
        BarColumn(),
        TaskProgressColumn(),
        TextColumn("{task.description}"),
        TimeRemainingColumn(),
        console=console,
        disable=not console.is_terminal,
    ) as bars:
        task = bars.add_task("", total=rows.size_bytes)

        def progress(summary: Any) -> None:
            told = f"{summary.next_row:,} rows, {summary.rows_per_second:,.0f}/s"
            bars.update(task, completed=rows.bytes_read, description=told)

        yield progress


def _print(done: Any) -> None:
    refused = sum(done.dead_letters.values())
    print(
        f"{done.rows:,} rows in {done.seconds:.1f} s ({done.rows_per_second:,.0f}/s):"
        f" {done.events:,} events, {refused:,} dead letters"
    )
    for reason, count in done.dead_letters.items():
        print(f"  {count:,} {reason}")
    if done.stopped:
        print(f"stopped before row {done.next_row:,}; the same command goes on from there")
    elif not done.rows:
        print(f"nothing left: earlier runs sent the rows before {done.next_row:,}")
