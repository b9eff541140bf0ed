"""`rheos dead-letters`: what was refused, and sending it again, each letter exactly once."""

import threading
from collections import Counter
from collections.abc import Callable, Iterator
from typing import NamedTuple

import msgspec

from rheos.events import REASONS
from rheos.ids import id_problem, partition_of
from rheos.settings import Settings
from rheos.state import DeadLetter, decode_dead_letter
from rheos.topics import Topics
from stream.committed_log import CommittedLogError, end_of, read_committed
from stream.replay import FILE_SOURCE
from stream.source_writer import Position, Record, SourceError, SourceWriter, Stopped

CHUNK_LETTERS = 1000
CHUNK_BYTES = 4 << 20
"""In one transaction at most."""

SOURCE = "dead-letters"
"""The key of the letters' position."""

SENT = "sent"
KEPT = {
    "from_a_file": "rows of a file have no topic to go back to; correct the mapping or the file"
    " and replay it under another --name",
    "cut": "only the first 64 kB of the original were kept",
    "topic_is_gone": "the topic that it came from does not exist any more",
    "unreadable": "the record is no dead letter",
}
"""Why a letter is passed over by a replay, for good; it stays in the topic."""

UNREADABLE = "unreadable"
ALL_REASONS = frozenset((*REASONS, UNREADABLE))


class Letter(NamedTuple):
    """A dead letter and its number, which is its offset. ``content`` is None when unreadable."""

    number: int
    arrived_ms: int
    content: DeadLetter | None

    @property
    def reason(self) -> str:
        return self.content.reason if self.content else UNREADABLE


class Summary(msgspec.Struct, frozen=True, kw_only=True):
    """What a replay did with the letters that were due: sent again, or kept, by KEPT."""

    sent: int
    kept: dict[str, int]
    next_letter: int
    stopped: bool


def letters(settings: Settings, first: int = 0) -> Iterator[Letter]:
    """The letters from number ``first`` to the end, as it is now. Blocks; raises as
    ``read_committed`` does."""
    topic = Topics(settings).dead_letters
    for message in read_committed(settings.kafka.bootstrap, topic, 0, first):
        yield Letter(message.offset(), message.timestamp()[1], _content(message.value()))


def replay(
    settings: Settings,
    *,
    reasons: frozenset[str] = ALL_REASONS,
    stop: threading.Event,
    progress: Callable[[int, int], None] = lambda _next, _end: None,
    notice: Callable[[str], None] = lambda _: None,
) -> Summary:
    """Sends the letters of these reasons again to where they came from, original key and bytes.

    A letter of the events topic goes to its user's partition under the user's id, if one can be
    read in it. The next letter is kept for each reason; it and a chunk's originals are written in
    one transaction, so none is sent twice, however often this runs and ends. What is refused again
    becomes a new letter with a new number. This run leaves those alone: it ends where the topic
    ended at its start. Waits for Kafka without limit where it writes; raises SourceError, also when
    the letters cannot be read any further: another run goes on from there.
    """
    writer = SourceWriter(settings, SOURCE, stop=stop, notice=notice)
    done: Counter[str] = Counter()
    next_letter = 0
    try:
        next_of = dict(writer.open().next)
        next_letter = min(next_of.get(reason, 0) for reason in reasons)
        end = end_of(settings.kafka.bootstrap, Topics(settings).dead_letters, 0)
        address = _Address(settings, writer)
        for chunk in _chunks(letters(settings, next_letter), end):
            due = [
                (letter.content, address.why_kept(letter.content))
                for letter in chunk
                if letter.reason in reasons and letter.number >= next_of.get(letter.reason, 0)
            ]
            outcomes = Counter(kept or SENT for _, kept in due)
            next_letter = chunk[-1].number + 1
            writer.commit(
                [address.record(content) for content, kept in due if content and not kept],
                Position(
                    run=writer.run,
                    next={
                        **writer.position.next,
                        **{r: max(next_letter, next_of.get(r, 0)) for r in reasons},
                    },
                    counts=dict(Counter(writer.position.counts) + outcomes),
                ),
            )
            done += outcomes
            progress(next_letter, end)
            if stop.is_set():
                break
    except Stopped:
        pass  # stop is set: the summary says so
    except CommittedLogError as error:
        raise SourceError(
            f"{error}. The letters before {next_letter} are done; start again to go on from there"
        ) from None
    finally:
        writer.close()
    return Summary(
        sent=done.pop(SENT, 0),
        kept=dict(sorted(done.items())),
        next_letter=next_letter,
        stopped=stop.is_set(),
    )


def _chunks(found: Iterator[Letter], end: int) -> Iterator[list[Letter]]:
    chunk: list[Letter] = []
    size = 0
    for letter in found:
        if letter.number >= end:
            break
        chunk.append(letter)
        if letter.content:
            size += len(letter.content.key or b"") + len(letter.content.value or b"")
        if len(chunk) == CHUNK_LETTERS or size >= CHUNK_BYTES:
            yield chunk
            chunk, size = [], 0
    if chunk:
        yield chunk


class _Address:
    """Where letters go."""

    def __init__(self, settings: Settings, writer: SourceWriter) -> None:
        self._events = Topics(settings).events
        self._writer = writer
        self._partitions: dict[str, int] = {}

    def why_kept(self, letter: DeadLetter | None) -> str:
        """The name in KEPT of why a letter cannot be sent, or an empty string."""
        if letter is None:
            return UNREADABLE
        if letter.source.startswith(FILE_SOURCE):
            return "from_a_file"
        if letter.size > len(letter.value or b""):
            return "cut"
        return "" if self._count(letter.topic) else "topic_is_gone"

    def record(self, letter: DeadLetter) -> Record:
        count = self._count(letter.topic)
        user_id = _user_id(letter.value) if letter.topic == self._events else ""
        if user_id:
            home = partition_of(user_id, count)
            return Record(letter.topic, home, user_id.encode(), letter.value)
        # A topic that was made anew may have fewer partitions.
        return Record(letter.topic, letter.partition % count, letter.key, letter.value)

    def _count(self, topic: str) -> int:
        if topic not in self._partitions:
            self._partitions[topic] = self._writer.partitions(topic)
        return self._partitions[topic]


class _User(msgspec.Struct):
    user_id: str | int


_decode_user = msgspec.json.Decoder(_User).decode


def _user_id(value: bytes | None) -> str:
    """The user id in an event's bytes, or an empty string where there is no valid one."""
    try:
        user_id = str(_decode_user(value or b"").user_id)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return ""
    return "" if id_problem(user_id) else user_id


def _content(value: bytes | None) -> DeadLetter | None:
    try:
        return decode_dead_letter(value or b"")
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None
