"""`rheos replay`: the rows of a file become events, each exactly once over any number of runs."""

import hashlib
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from itertools import islice
from operator import itemgetter
from typing import NamedTuple

import msgspec

from rheos.events import Event, InvalidEvent, encode_event
from rheos.ids import partition_of
from rheos.mapping import EventMapping
from rheos.row_file import Row, RowFile
from rheos.settings import Settings
from rheos.state import MAX_DEAD_LETTER_BYTES, DeadLetter, encode_dead_letter
from rheos.topics import Topics
from stream.pace import Pace, Schedule
from stream.source_writer import Position, Record, SourceError, SourceWriter, Stopped

FILE_SOURCE = "file:"
"""Leads the ``source`` of a row's dead letter; a ``[[sources]]`` name has no colon."""

CHUNK_ROWS = 10_000
"""Rows in one transaction at most: about 2 MB, and the commit's 30 ms are a tenth of the time."""

CHUNK_BYTES = 16 << 20
"""And bytes: a file of rows of 64 kB must not fill the producer's queue."""

LEAST_INTERVAL_S = 0.05
"""Between two transactions of a paced replay: a row waits that long at most, Kafka has peace."""

BY_FILE, BY_TIME = "file", "time"
"""A position's order; the latter with a digest of what makes it."""

ROW, EVENTS = "row", "events"
"""Names in a position: the next row, and the count beside those of dead letters by reason."""


class Plan(NamedTuple):
    """What to replay, and how.

    ``mapping`` is None for JSON lines that are events already. ``name`` together with the file's
    content is the source: the same content under another name is sent again. ``first`` and
    ``until`` are row numbers, or with ``sort`` places in the order by time; rows before ``first``
    are skipped for good. ``sort`` holds the whole file in memory.
    """

    file: RowFile
    mapping: EventMapping | None
    name: str
    pace: Pace = Pace()
    first: int = 0
    until: int | None = None
    sort: bool = False


class Summary(msgspec.Struct, frozen=True, kw_only=True):
    """What a run did: rows = events + the dead letters. ``next_row`` is where another goes on;
    ``all_events`` and ``all_dead_letters`` count every run of this source."""

    source: str
    rows: int
    events: int
    dead_letters: dict[str, int]
    seconds: float
    rows_per_second: float
    next_row: int
    all_events: int
    all_dead_letters: dict[str, int]
    stopped: bool = False


class _Sent(NamedTuple):
    """A row as it goes to Kafka: EVENTS, or the reason of a dead letter, which has no time."""

    record: Record
    time_ms: int | None
    outcome: str


def source_name(plan: Plan) -> str:
    """The source's key among the positions; reads the whole file once."""
    return f"{plan.name}@{plan.file.sha256()[:32]}"


def replay(
    settings: Settings,
    plan: Plan,
    *,
    stop: threading.Event,
    progress: Callable[[Summary], None] = lambda _: None,
    notice: Callable[[str], None] = lambda _: None,
) -> Summary:
    """Sends what is left of the plan's rows; returns when all are sent, or soon after ``stop``.

    Each transaction holds a chunk's events and dead letters and the number of the next row. Rows
    are checked by the stream's own rules, so that what is sent is a valid event. Waits for Kafka
    without limit. Raises SourceError when another run has taken over or the topics do not fit, and
    RowFileError.
    """
    source, order = source_name(plan), _order(plan)
    writer = SourceWriter(settings, source, stop=stop, notice=notice)
    began_s = time.monotonic()
    begin = Position()
    try:
        begin = writer.open()
        _check(settings, plan, order, writer)
        next_row = max(plan.first, begin.next.get(ROW, 0))
        for chunk in _chunks(_rows(settings, plan, next_row), plan.pace, stop):
            next_row += len(chunk)
            counts = Counter(writer.position.counts)
            counts.update(sent.outcome for sent in chunk)
            writer.commit(
                [sent.record for sent in chunk],
                Position(run=writer.run, next={ROW: next_row}, counts=dict(counts), order=order),
            )
            progress(_summary(writer.position, begin, source, began_s))
    except Stopped:
        pass  # stop is set: the summary says so
    finally:
        writer.close()
    done = _summary(writer.position, begin, source, began_s)
    return msgspec.structs.replace(done, stopped=stop.is_set())


def _check(settings: Settings, plan: Plan, order: str, writer: SourceWriter) -> None:
    topic, wanted = Topics(settings).events, settings.kafka.events_partitions
    found = writer.partitions(topic)
    if found != wanted:
        raise SourceError(
            f"topic {topic} has {found} partitions, kafka.events_partitions says {wanted}"
        )
    begun = writer.position.order
    if begun and begun != order:
        begun_by = begun.partition(" ")[0]
        mapping = " under another mapping" if plan.sort and begun_by == BY_TIME else ""
        raise SourceError(
            f"{plan.name} was begun in {begun_by} order{mapping} and stands at row"
            f" {writer.position.next.get(ROW, 0)}; go on as it was begun, or give another --name to"
            " send it all again"
        )


def _order(plan: Plan) -> str:
    """What a row's number counts in: another mapping may find another time in a row."""
    if not plan.sort:
        return BY_FILE
    mapping = (plan.mapping and plan.mapping.source, plan.file.columns())
    digest = hashlib.sha256(msgspec.json.encode(mapping, order="deterministic")).hexdigest()
    return f"{BY_TIME} {digest[:16]}"


def _rows(settings: Settings, plan: Plan, first: int) -> Iterator[_Sent]:
    """What is left of the plan, in its order, from ``first`` on."""
    if plan.until is not None and plan.until <= first:
        return
    outgoing = _Outgoing(settings, plan)
    if not plan.sort:
        yield from map(outgoing.of, islice(plan.file.rows(), first, plan.until))
        return
    by_time: list[tuple[int, _Sent]] = []
    time_ms = 0
    for row in plan.file.rows():
        sent = outgoing.of(row)
        # Whether a row is valid depends on clock and settings; its place in the order must not.
        named_ms = outgoing.named_time_ms(row) if sent.time_ms is None else sent.time_ms
        if named_ms is not None:  # else it stays with the row before it
            time_ms = named_ms
        by_time.append((time_ms, sent))
    by_time.sort(key=itemgetter(0))
    yield from (sent for _, sent in by_time[first : plan.until])


class _Outgoing:
    """Makes of a row the record that goes to Kafka."""

    def __init__(self, settings: Settings, plan: Plan) -> None:
        topics = Topics(settings)
        self._rules = settings.event_rules()
        self._mapping = plan.mapping
        self._partitions = settings.kafka.events_partitions
        self._events, self._dead_letters = topics.events, topics.dead_letters
        self._name = plan.name

    def of(self, row: Row) -> _Sent:
        try:
            event = self._event(row)
        except InvalidEvent as error:
            return _Sent(self._dead_letter(row, error), None, error.reason)
        partition = partition_of(event.user_id, self._partitions)
        record = Record(self._events, partition, event.user_id.encode(), encode_event(event))
        return _Sent(record, event.time_ms, EVENTS)

    def _event(self, row: Row) -> Event:
        if row.problem:
            raise InvalidEvent("wrong_type", row.problem)
        now_ms = time.time_ns() // 1_000_000
        if self._mapping is None:
            return self._rules.decode(row.original, now_ms)
        event = _mapped(self._mapping, row)
        self._rules.check(event, now_ms)
        return event

    def named_time_ms(self, row: Row) -> int | None:
        """The time in a row, valid or not, as far as file and mapping alone tell."""
        if row.problem:
            return None
        try:
            if self._mapping is None:
                return _decode_timed(row.original).time_ms
            return _mapped(self._mapping, row).time_ms
        except (InvalidEvent, msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            return None

    def _dead_letter(self, row: Row, error: InvalidEvent) -> Record:
        letter = DeadLetter(
            reason=error.reason,
            text=str(error),
            topic=self._name,
            partition=0,
            offset=row.number,
            append_time_ms=0,  # a row has not been in any log
            key=None,
            value=row.original[:MAX_DEAD_LETTER_BYTES],
            size=len(row.original),
            source=f"{FILE_SOURCE}{self._name}",
        )
        return Record(self._dead_letters, 0, None, encode_dead_letter(letter))


class _Timed(msgspec.Struct):
    time_ms: int


_decode_timed = msgspec.json.Decoder(_Timed).decode


def _mapped(mapping: EventMapping, row: Row) -> Event:
    if row.cells is None:
        return mapping.event_from_json(row.original)
    return mapping.event_from_row(row.cells)


def _chunks(rows: Iterator[_Sent], pace: Pace, stop: threading.Event) -> Iterator[list[_Sent]]:
    """The rows as they become due; what one transaction takes at a time. Ends early on ``stop``."""
    paced = bool(pace.rate or pace.speed)
    schedule, begin_s = Schedule(pace), time.monotonic()
    chunk: list[_Sent] = []
    size, commit_at_s = 0, begin_s
    for sent in rows:
        due_s = begin_s + schedule.due_s(sent.time_ms) if paced else begin_s
        while True:
            full = len(chunk) == CHUNK_ROWS or size >= CHUNK_BYTES
            now_s = time.monotonic()
            if full or (paced and chunk and now_s >= commit_at_s):
                yield chunk
                chunk, size = [], 0
                commit_at_s = time.monotonic() + LEAST_INTERVAL_S
            elif now_s >= due_s:
                break
            elif stop.wait((min(due_s, commit_at_s) if chunk else due_s) - now_s):
                return
        if stop.is_set():
            return
        chunk.append(sent)
        size += len(sent.record.value or b"")
    if chunk:
        yield chunk


def _summary(position: Position, begin: Position, source: str, began_s: float) -> Summary:
    seconds = time.monotonic() - began_s
    new = Counter(position.counts) - Counter(begin.counts)
    rows = sum(new.values())
    return Summary(
        source=source,
        rows=rows,
        events=new.pop(EVENTS, 0),
        dead_letters=dict(sorted(new.items())),
        seconds=round(seconds, 3),
        rows_per_second=round(rows / seconds, 1),
        next_row=position.next.get(ROW, 0),
        all_events=position.counts.get(EVENTS, 0),
        all_dead_letters={
            reason: count for reason, count in sorted(position.counts.items()) if reason != EVENTS
        },
    )
