"""A file of past events, cleaned and put in the order in which an evaluation plays it."""

import csv
import fnmatch
import gzip
import itertools
import lzma
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO, NamedTuple

import numpy as np

from rheos.events import Event, InvalidEvent
from rheos.mapping import EventMapping
from rheos.state import Int64s


class EventLog(NamedTuple):
    """N events in playing order; ``users`` and ``items`` (N,) are numbers into the id lists.

    ``rows`` is how many the file had, ``dropped`` why those that are missing here are missing.
    """

    events: list[Event]
    user_ids: list[str]
    item_ids: list[str]
    users: Int64s
    items: Int64s
    times_ms: Int64s
    rows: int
    dropped: dict[str, int]


class LogFormat(NamedTuple):
    """How to read a file. ``drop`` maps a column to a glob of cells whose rows are left out (a
    cancelled invoice's, say); rows whose ``positive`` column is not above 0 are too. ``basket``
    names the column that, with user and item, says which lines repeat each other.
    """

    mapping: EventMapping
    separator: str = ","
    basket: str = ""
    drop: Mapping[str, str] = {}
    positive: str = ""


def read(path: Path, shape: LogFormat, shuffle_ties: int | None) -> EventLog:
    """Reads a CSV file (plain, .gz or .xz).

    Events are ordered by time, then by basket, then as in the file. Of lines with the same user,
    item and basket (without baskets: and time) the first one stays. Lines with the same user, time
    and basket are shuffled with the seed ``shuffle_ties``: a file may give an invoice's lines in an
    order that tells more than any live stream would. None keeps the file's order.

    Raises ValueError for a column that the file lacks, OSError for the file itself.
    """
    events: list[Event] = []
    baskets: list[str] = []
    dropped: Counter[str] = Counter()
    rows = 0
    with open_text(path) as file:
        for row in _rows(file, path, shape):
            rows += 1
            if any(fnmatch.fnmatchcase(row[key], glob) for key, glob in shape.drop.items()):
                dropped["drop"] += 1
            elif shape.positive and not _is_positive(row[shape.positive]):
                dropped["not_positive"] += 1
            else:
                try:
                    events.append(shape.mapping.event_from_row(row))
                except InvalidEvent as error:
                    dropped[error.reason] += 1
                else:
                    baskets.append(row[shape.basket] if shape.basket else "")
    if not events:
        raise ValueError(f"{path.name}: none of its {rows} rows is an event ({dict(dropped)})")
    return _in_order(events, baskets, shape, shuffle_ties, rows, dropped)


def of_events(events: Sequence[Event]) -> EventLog:
    """The log of events that are already in playing order."""
    user_ids, users = _numbered([event.user_id for event in events])
    item_ids, items = _numbered([event.item_id for event in events])
    times_ms = np.array([event.time_ms for event in events], np.int64)
    return EventLog(list(events), user_ids, item_ids, users, items, times_ms, len(events), {})


def _in_order(
    events: list[Event],
    baskets: list[str],
    shape: LogFormat,
    shuffle_ties: int | None,
    rows: int,
    dropped: Counter[str],
) -> EventLog:
    order = sorted(range(len(events)), key=lambda n: (events[n].time_ms, baskets[n]))
    met: set[tuple[str, str, str | int]] = set()
    kept: list[int] = []
    for n in order:
        event = events[n]
        line = (event.user_id, event.item_id, baskets[n] if shape.basket else event.time_ms)
        if line in met:
            dropped["repeated"] += 1
        else:
            met.add(line)
            kept.append(n)
    if shuffle_ties is not None:
        ties = [(events[n].user_id, events[n].time_ms, baskets[n]) for n in kept]
        begins = [True, *(a != b for a, b in itertools.pairwise(ties))]
        draws = np.random.default_rng(shuffle_ties).random(len(kept))
        kept = [kept[place] for place in np.lexsort([draws, np.cumsum(begins)])]
    log = of_events([events[n] for n in kept])
    return log._replace(rows=rows, dropped=dict(dropped))


def _numbered(ids: list[str]) -> tuple[list[str], Int64s]:
    distinct = sorted(set(ids))
    number_of = {name: number for number, name in enumerate(distinct)}
    return distinct, np.array([number_of[name] for name in ids], np.int64)


def _rows(file: IO[str], path: Path, shape: LogFormat) -> Iterator[dict[str, str]]:
    reader = csv.DictReader(file, delimiter=shape.separator, restval="")
    header = list(reader.fieldnames or ())
    missing = shape.mapping.missing_columns(header)
    extra = [*shape.drop, shape.basket, shape.positive]
    missing += [column for column in extra if column and column not in header]
    if missing:
        raise ValueError(f"{path.name} has no column {missing[0]!r}; it has {', '.join(header)}")
    yield from reader


def _is_positive(cell: str) -> bool:
    try:
        return float(cell) > 0
    except ValueError:
        return False


def open_text(path: Path) -> IO[str]:
    """Opens a text file that may be compressed, by its name."""
    if path.suffix == ".xz":
        return lzma.open(path, "rt", encoding="utf-8", newline="")
    if path.suffix == ".gz":
        return gzip.open(path, "rt", encoding="utf-8", newline="")
    return path.open(encoding="utf-8", newline="")
