"""The live metric: which answers were clicked, from ``rheos.impressions`` and the archive.

    <data_dir>/clicks.json      what has been counted, and up to when

An event names the answer that showed its item by ``request_id``. Answers are counted once their
time for a click is over; a restart reads again only those that were not.
"""

import logging
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Self

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.compute
from kafka import KafkaConsumer, TopicPartition

from rheos import metrics
from rheos.impressions import Impression
from rheos.settings import Settings
from rheos.snapshot import SnapshotError, is_name
from rheos.snapshot_store import SnapshotStore
from rheos.topics import Topics
from trainer.archive import Archive
from trainer.click_rates import BUCKETS, EARLIER, ClickRates, Comparison
from trainer.publish import Decisions, PublishError, withdraw

log = logging.getLogger(__name__)

FIRST_HOURS = 24
"""How far back the first look reads."""
GROWTH = 1.25
"""The question is put again when there are so many times more answers: asking each minute would
find by chance what is not there."""

_GRACE_MS = 60_000  # for events in transactions that are open yet, and for clocks that differ
_POLL_RECORDS = 5_000
_MOST_POLLS = 10  # a look never keeps the archiver waiting for more than these

_decode = msgspec.json.Decoder(Impression).decode


class _Kept(msgspec.Struct, frozen=True):
    """Answers shown before ``settled_ms`` are in ``hours``: by generation and hour since 1970,
    (answers, clicked) of each bucket.
    """

    settled_ms: int
    hours: dict[str, dict[int, list[tuple[int, int]]]]


class LiveClicks:
    """Reads and counts; one thread. Close it, or use ``with``. Raises KafkaError."""

    def __init__(self, settings: Settings, archive: Archive) -> None:
        self._settings = settings
        self._archive = archive
        self._file = Path(settings.data_dir) / "clicks.json"
        self._wait_ms = int(settings.trainer.live_minutes * 60_000)
        kept = _read(self._file)
        self._settled_ms = kept.settled_ms
        counts = {
            name: {hour: np.array(found, np.int64) for hour, found in hours.items()}
            for name, hours in kept.hours.items()
        }
        self.rates = ClickRates(self._wait_ms, counts)
        self._archived: Mapping[str, tuple[int, int]] = {}
        self._asked: dict[str, int] = {}  # answers when a generation was last judged
        self._consumer = KafkaConsumer(
            bootstrap_servers=settings.kafka.bootstrap.split(","),
            group_id=None,
            enable_auto_commit=False,
            isolation_level="read_committed",
            auto_offset_reset="earliest",
        )
        try:
            self._seek(Topics(settings).impressions)
        except BaseException:
            self._consumer.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def close(self) -> None:
        self._consumer.close()

    def look(self, complete_ms: int) -> bool:
        """Reads on, and counts what is settled; False where there is more to read at once.

        1. Answers, up to the topic's end. 2. Clicks, from what is archived since. 3. Answers whose
        time was over at ``complete_ms``, up to which all events are archived, are counted, and the
        counts kept. After an outage others would seem not clicked, whose clicks are still to be
        read. Raises ArchiveError, KafkaError, OSError.
        """
        if not self._read_answers():  # 1
            return False
        self._read_clicks()  # 2
        self._settled_ms = max(self._settled_ms, complete_ms - self._wait_ms - _GRACE_MS)
        self.rates.settle(self._settled_ms)  # 3
        self._keep()
        return True

    def judge(self, decisions: Decisions) -> Comparison | None:
        """Holds the serving generation against its predecessor; None where there is too little.

        Sets the gauges.
        """
        trainer = self._settings.trainer
        serving = decisions.serving
        predecessor = decisions.predecessor(serving) if serving else ""
        for which, name in (("serving", serving), ("predecessor", predecessor)):
            rate = self.rates.rate(name)
            metrics.LIVE_ANSWERS.labels(which).set(rate.answers)
            metrics.LIVE_CLICK_SHARE.labels(which).set(rate.share)
        answers = self.rates.rate(serving).answers
        enough = max(trainer.live_min_answers, int(GROWTH * self._asked.get(serving, 0)))
        if not predecessor or answers < enough:
            return None
        if self.rates.rate(predecessor).answers < trainer.live_min_answers:
            return None
        self._asked = {serving: answers}
        random = np.random.default_rng(trainer.seed)
        return self.rates.compare(
            serving, predecessor, trainer.live_margin, trainer.live_min_answers, random
        )

    def _seek(self, topic: str) -> None:
        numbers = self._consumer.partitions_for_topic(topic) or set()
        self._places = [TopicPartition(topic, number) for number in sorted(numbers)]
        self._consumer.assign(self._places)
        if not self._places:
            return
        found = self._consumer.offsets_for_times(dict.fromkeys(self._places, self._settled_ms))
        ends = self._consumer.end_offsets(self._places)
        for place in self._places:
            at = found.get(place)
            self._consumer.seek(place, ends[place] if at is None else at.offset)

    def _read_answers(self) -> bool:
        """Whether all that the topic held at the start of the call is read."""
        if not self._places:
            self._seek(Topics(self._settings).impressions)
            return True
        ends = self._consumer.end_offsets(self._places)
        for _ in range(_MOST_POLLS):
            if all(self._consumer.position(place) >= end for place, end in ends.items()):
                return True
            polled = self._consumer.poll(timeout_ms=200, max_records=_POLL_RECORDS)
            for place, records in polled.items():
                for record in records:
                    try:
                        found = _decode(record.value or b"")
                    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
                        where = f"{place.topic}[{place.partition}]@{record.offset}"
                        log.debug("%s is no impression: %s", where, error)
                        continue
                    if found.generation is not None and found.items:
                        self.rates.shown(
                            *(found.request_id, found.user_id, found.generation), record.timestamp
                        )
        return False

    def _read_clicks(self) -> None:
        """Tells what was archived since the last call of positive events that name an answer."""
        positive = [kind for kind, w in self._settings.events.weights.items() if w > 0]
        window = self._archive.window()
        since = {
            name: (self._archived.get(name, (0, begin))[1], end)
            for name, (begin, end) in window.items()
        }
        columns = ("append_time_ms", "type", "request_id")
        for _, rows in self._archive.scan(columns, since, since_ms=self._settled_ms):
            kinds = rows.column("type").cast(pa.string())
            named = pa.compute.and_(
                pa.compute.is_valid(rows.column("request_id")),
                pa.compute.is_in(kinds, pa.array(positive, pa.string())),
            )
            kept = rows.filter(named)
            for request_id, time_ms in zip(
                kept.column("request_id").to_pylist(),
                kept.column("append_time_ms").to_pylist(),
                strict=True,
            ):
                self.rates.clicked(request_id, time_ms)
        self._archived = window

    def _keep(self) -> None:
        hours = {
            name: {hour: counts.tolist() for hour, counts in found.items()}
            for name, found in self.rates.counts.items()
        }
        data = msgspec.json.encode(_Kept(self._settled_ms, hours))
        temporary = self._file.with_name(f".writing-{self._file.name}")
        temporary.write_bytes(data)
        temporary.rename(self._file)


def roll_back_if_fallen(settings: Settings, store: SnapshotStore, clicks: LiveClicks) -> str:
    """Withdraws the serving generation where its share of clicked answers has fallen. Returns the
    one that serves then, or an empty string.

    Fallen is: below (1 - ``live_margin``) times its predecessor's, in relation to what is usual at
    these hours, with a p-value below 1 - ``live_confidence``. One that a person let serve although
    it was withdrawn stays. Raises KafkaError.
    """
    decisions = Decisions(settings, store)
    serving, ruling = decisions.serving, decisions.ruling
    found = clicks.judge(decisions)
    if found is None or found.p_value >= 1 - settings.trainer.live_confidence:
        return serving
    earlier = decisions.withdrawn.get(serving)
    if earlier is not None and ruling is not None and ruling.time_ms > earlier.time_ms:
        return serving
    reason = (
        f"{found.serving.share:.2%} of {found.serving.answers:,} answers clicked, its predecessor's"
        f" {found.predecessor.share:.2%} of {found.predecessor.answers:,}, p = {found.p_value:.4f}"
    )
    if found.usual is not None:
        own, other = found.usual
        reason += f"; on the days before {own:.2%} and {other:.2%} at these hours"
    if not settings.trainer.auto_rollback:
        log.error("%s: %s; trainer.auto_rollback is off", serving, reason)
        return serving
    try:
        announcement = withdraw(settings, store, serving, reason)
    except (PublishError, SnapshotError) as error:
        log.error("%s: %s; it stays, since %s", serving, reason, error)
        return serving
    metrics.ROLLBACKS.inc()
    log.error("%s serves again: %s", announcement.generation, announcement.reason)
    return announcement.generation


def _read(file: Path) -> _Kept:
    """What was counted before; nothing where the file is not there or not sound."""
    anew = _Kept(time.time_ns() // 1_000_000 - FIRST_HOURS * 3_600_000, {})
    try:
        kept = msgspec.json.decode(file.read_bytes(), type=_Kept)
    except FileNotFoundError:
        return anew
    except (msgspec.DecodeError, UnicodeDecodeError, OSError) as error:
        log.warning("%s is passed over, clicks are counted anew: %s", file, error)
        return anew
    for name, hours in kept.hours.items():
        sound = all(
            len(found) == BUCKETS and min(min(pair) for pair in found) >= 0
            for found in hours.values()
        )
        if not sound or not (name == EARLIER or is_name(name)):
            log.warning("%s is passed over, clicks are counted anew: %s is odd", file, name)
            return anew
    return kept
