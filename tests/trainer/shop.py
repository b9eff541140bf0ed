"""A small shop whose customers have taste: events to train on, and putting them into Kafka."""

import contextlib
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import msgspec
import numpy as np
from kafka import KafkaProducer

from rheos import topics
from rheos.events import Event
from rheos.ids import partition_of
from rheos.impressions import Impression, ShownItem, encode_impression
from rheos.settings import Settings, from_tree

START_MS = 1_600_000_000_000
MINUTE_MS = 60_000


def settings_for(bootstrap: str, prefix: str, data_dir: Path, **trainer: object) -> Settings:
    """Two partitions, a small quick ALS, and a gate that needs few events."""
    return from_tree(
        {
            "data_dir": str(data_dir),
            "kafka": {"bootstrap": bootstrap, "prefix": prefix, "events_partitions": 2},
            "trainer": {
                "port": 0,
                "min_events": 300,
                "gate_min_events": 50,
                "threads": 1,
                "gate_tolerance": 0.2,
                "parameters": {"factors": 6, "iterations": 4},
                **trainer,
            },
        }
    )


def taste(count: int, *, start: int = 0, users: int = 40, items: int = 100) -> list[Event]:
    """``count`` purchases a second apart; nearly all in the user's own department of five."""
    random = np.random.default_rng(start + 1)
    events = []
    for number in range(start, start + count):
        user = int(random.integers(users))
        department = user % 5 if random.random() < 0.95 else int(random.integers(5))
        item = 5 * int(random.integers(items // 5)) + department
        events.append(
            Event(
                user_id=f"u{user}",
                item_id=f"i{item}",
                type="purchase",
                time_ms=START_MS + 1000 * number,
            )
        )
    return events


def visits(count: int, *, start: int = 0) -> list[Event]:
    """Purchases in visits of some minutes, each in one department, hours after the one before."""
    random = np.random.default_rng(start + 1)
    events: list[Event] = []
    visit = start
    while len(events) < count:
        visit += 1
        user, department = int(random.integers(40)), int(random.integers(6))
        events += [
            Event(
                user_id=f"u{user}",
                item_id=f"i{6 * int(item) + department}",
                type="purchase",
                time_ms=START_MS + (60 * visit + step) * MINUTE_MS,
            )
            for step, item in enumerate(random.integers(0, 50, random.integers(3, 8)))
        ]
    return events


@contextlib.contextmanager
def producer(settings: Settings, **more: object) -> Iterator[KafkaProducer]:
    made = KafkaProducer(
        bootstrap_servers=settings.kafka.bootstrap.split(","),
        acks="all",
        **{"linger_ms": 5, **more},
    )
    try:
        yield made
    finally:
        made.close()


def send(settings: Settings, events: Sequence[Event]) -> None:
    """Creates the topics if need be, and puts the events where they belong, a sixteenth of them
    after the other.

    Each part of a partition arrives in one batch, and a millisecond later than the one before: by
    these times the gate divides the events, and a producer left to itself may well send all of them
    in one or two milliseconds.
    """
    assert topics.ensure(settings) == []
    size = max(1, len(events) // 16)
    with producer(settings, linger_ms=60_000, batch_size=1 << 20) as out:
        for begin in range(0, len(events), size):
            parts: dict[int, list[Event]] = {}
            for event in events[begin : begin + size]:
                partition = partition_of(event.user_id, settings.kafka.events_partitions)
                parts.setdefault(partition, []).append(event)
            for part in parts.values():
                for event in part:
                    put(out, settings, event)
                out.flush()
                time.sleep(0.001)


def put(out: KafkaProducer, settings: Settings, event: Event) -> None:
    partition = partition_of(event.user_id, settings.kafka.events_partitions)
    out.send(
        topics.Topics(settings).events,
        key=event.user_id.encode(),
        value=msgspec.json.encode(event),
        partition=partition,
    )


def show(settings: Settings, generation: str | None, answers: int, every: int) -> None:
    """Answers to 60 users, and a click on every ``every``-th one (0: on none)."""
    events: list[Event] = []
    shown: list[Impression] = []
    for number in range(answers):
        user, name = f"u{number % 60}", f"{generation}/{number}/{time.time_ns()}"
        shown.append(
            Impression(
                request_id=name,
                user_id=user,
                generation=generation,
                time_ms=START_MS,
                items=[ShownItem(item_id="i1", score=1.0, source="vector")],
            )
        )
        if every and number % every == 0:
            events.append(click(user, number, name))
    send_shown(settings, shown, events)


def click(user: str, number: int, request_id: str | None, kind: str = "click") -> Event:
    return Event(
        user_id=user,
        item_id="i1",
        type=kind,
        time_ms=START_MS + number,
        request_id=request_id,
        event_id=f"{kind}/{request_id}/{number}",
    )


def send_shown(
    settings: Settings, shown: Sequence[Impression | bytes], events: Sequence[Event]
) -> None:
    topic = topics.Topics(settings).impressions
    with producer(settings) as out:
        for found in shown:
            if isinstance(found, bytes):
                out.send(topic, value=found, partition=0)
            else:
                place = partition_of(found.user_id or "", settings.kafka.events_partitions)
                out.send(topic, value=encode_impression(found), partition=place)
        out.flush()
        for event in events:
            put(out, settings, event)
        out.flush()
