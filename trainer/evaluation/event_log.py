"""A file of past events, cleaned and put in the order in which an evaluation plays it."""

import fnmatch
import itertools
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from rheos.events import Event, EventRules, InvalidEvent
from rheos.mapping import EventMapping
from rheos.row_file import Row, RowFile
from rheos.state import Int64s
from trainer.data_set import DataSet, of_interactions

FAR_FUTURE_MS = 1 << 52
"""A file has no times of arrival: whatever its times, they are not too early for it."""


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
    """What the rows of a file mean. ``mapping`` None: JSON lines that are events already.

    ``drop`` maps a column to a glob of the cells whose rows are left out (a cancelled invoice's,
    say); rows whose ``positive`` column is not above 0 are too. ``basket`` names the column that,
    with user and item, says which lines repeat each other. All three need a CSV file.
    """

    mapping: EventMapping | None
    basket: str = ""
    drop: Mapping[str, str] = {}
    positive: str = ""

    def columns(self) -> list[str]:
        """The columns that are used beside the mapped ones."""
        return [*self.drop, *(column for column in (self.basket, self.positive) if column)]


def read(file: RowFile, shape: LogFormat, rules: EventRules, shuffle_ties: int = 0) -> EventLog:
    """Reads the events of a file.

    They are ordered by time, then by basket. Of lines with the same user, item and basket (without
    baskets: and time) the first one stays. Lines with the same user, time and basket are shuffled
    with the seed ``shuffle_ties``, always: a file may give an invoice's lines in an order that
    tells more than any live stream would.

    Raises ValueError for a column that the file lacks or a file without events, RowFileError for
    the file itself.
    """
    header = file.columns()
    missing = shape.mapping.missing_columns(header) if shape.mapping and not file.is_json else []
    missing += [column for column in shape.columns() if column not in header]
    if missing:
        raise ValueError(f"{file.path} has no column {missing[0]!r}; it has {', '.join(header)}")
    events: list[Event] = []
    baskets: list[str] = []
    dropped: Counter[str] = Counter()
    rows = 0
    for row in file.rows():
        rows += 1
        cells = row.cells or {}
        if row.problem:
            dropped["wrong_type"] += 1
        elif any(fnmatch.fnmatchcase(cells[key], glob) for key, glob in shape.drop.items()):
            dropped["drop"] += 1
        elif shape.positive and not _is_positive(cells[shape.positive]):
            dropped["not_positive"] += 1
        else:
            try:
                events.append(_event(row, shape.mapping, rules))
            except InvalidEvent as error:
                dropped[error.reason] += 1
            else:
                baskets.append(cells[shape.basket] if shape.basket else "")
    if not events:
        raise ValueError(f"{file.path}: none of its {rows} rows is an event ({dict(dropped)})")
    return _in_order(events, baskets, shape, shuffle_ties, rows, dropped)


def _event(row: Row, mapping: EventMapping | None, rules: EventRules) -> Event:
    if mapping is None:
        return rules.decode(row.original, FAR_FUTURE_MS)
    if row.cells is None:
        event = mapping.event_from_json(row.original)
    else:
        event = mapping.event_from_row(row.cells)
    rules.check(event, FAR_FUTURE_MS)
    return event


def of_events(events: Sequence[Event]) -> EventLog:
    """The log of events that are already in playing order."""
    user_ids, users = _numbered([event.user_id for event in events])
    item_ids, items = _numbered([event.item_id for event in events])
    times_ms = np.array([event.time_ms for event in events], np.int64)
    return EventLog(list(events), user_ids, item_ids, users, items, times_ms, len(events), {})


def interactions(log: EventLog, rules: EventRules) -> DataSet:
    """The log as a data set, each event weighed by its type."""
    return of_interactions(
        [log.user_ids[user] for user in log.users],
        [log.item_ids[item] for item in log.items],
        log.times_ms,
        [rules.weight(event) for event in log.events],
    )


def _in_order(
    events: list[Event],
    baskets: list[str],
    shape: LogFormat,
    shuffle_ties: int,
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


def _is_positive(cell: str) -> bool:
    try:
        return float(cell) > 0
    except ValueError:
        return False
