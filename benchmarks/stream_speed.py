"""How many events a second one stream worker takes, beside a bare Faust loop that does nothing.

The worker does all of its work: it decodes, checks and dedupes events, keeps histories, encodes
vectors of a serving generation, derives transitions, folds items, and commits everything in
transactions. The peer is Faust's ``async for`` over the same records, at the better of two
``broker_max_poll_records``. Both are pinned to the first core, the broker to the second. The
records lie in a transaction that is committed when the worker has warmed up; the clock runs from
there until the last record of user-state and item-state stands in the log. Users and items follow
Zipf's law (exponent 1), sessions have four clicks on average, a thousand are open at once.
"""

import json
import os
import signal
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from confluent_kafka import OFFSET_END, Consumer, Producer, TopicPartition

if __package__ in (None, ""):
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks import random_generation
from benchmarks.report import arguments, finish, note
from benchmarks.rig import Rig
from benchmarks.scrape import scrape
from benchmarks.zipf_shop import Click, clicks, item_name, partition
from rheos import topics
from rheos.events import EventRules
from rheos.settings import Settings, from_tree
from rheos.topics import Topics

USERS, ITEMS, DIMENSIONS = 20_000, 5_000, 64
WORKER_CPU, BROKER_CPU = "0", "1"
POLL_RECORDS = (500, 4_000)
LEAST_RATIO = 2.0


class Run(NamedTuple):
    """Events per second of wall time, and CPU microseconds per event."""

    per_second: float
    cpu_us: float

    def __str__(self) -> str:
        return f"{self.per_second:,.0f} events/s, {self.cpu_us:.1f} us of CPU each"


def main() -> int:
    asked = arguments(
        __doc__,
        ("--rounds", {"type": int, "default": 3}),
        ("--events", {"type": int, "default": 250_000}),
        ("--warm-up", {"type": int, "default": 50_000}),
        ("--bare-events", {"type": int, "default": 60_000}),
        ("--seed", {"type": int, "default": 1}),
    )
    note(f"seed {asked.seed}; {USERS} users, {ITEMS} items, {asked.events} events a round")
    random = np.random.default_rng(asked.seed)
    log = clicks(
        asked.warm_up + asked.events,
        users=USERS,
        items=ITEMS,
        random=random,
        end_ms=time.time_ns() // 1_000_000,
    )
    os.sched_setaffinity(0, {int(BROKER_CPU)})
    full: list[Run] = []
    bare: dict[int, list[Run]] = {poll: [] for poll in POLL_RECORDS}
    with Rig("speed", {}, broker_cpus=BROKER_CPU) as rig:
        names = [item_name(item) for item in range(ITEMS)]
        vectors = random_generation.item_vectors(ITEMS, DIMENSIONS, random)
        generation = random_generation.store(rig.settings, 1, names, vectors)
        for number in range(asked.rounds + 1):
            timed = number == asked.rounds  # the last round is for the table alone
            settings = _round_settings(rig, number)
            run, spent = _full(rig, settings, generation, log, asked.warm_up, timed=timed)
            note(f"round {number}: {run}{' with timers' if timed else ''}")
            if timed:
                break
            full.append(run)
            for poll in POLL_RECORDS:
                bare[poll].append(_bare(rig, settings, poll, asked.bare_events))
                note(f"round {number}: bare Faust, {poll} at a poll: {bare[poll][-1]}")
    worker = _median(full)
    peer = max((_median(runs) for runs in bare.values()), key=lambda run: run.per_second)
    ratio = worker.per_second / peer.per_second
    return finish(
        "stream_speed",
        {
            "seed": asked.seed,
            "events": asked.events,
            "users": USERS,
            "items": ITEMS,
            "events_per_second": round(worker.per_second),
            "bare_faust_per_second": round(peer.per_second),
            "ratio": round(ratio, 2),
            "cpu_microseconds_per_event": {
                "worker": round(worker.cpu_us, 1),
                "bare Faust": round(peer.cpu_us, 1),
                "ratio": round(peer.cpu_us / worker.cpu_us, 2),
            },
            "runs_per_second": {
                "worker": [round(run.per_second) for run in full],
                **{
                    f"bare, {poll} a poll": [round(run.per_second) for run in runs]
                    for poll, runs in bare.items()
                },
            },
            "where_cpu_microseconds_go": _table(spent, log[asked.warm_up :]),
            "bias": "The peer reads uncommitted records and keeps nothing; the run with timers is"
            " not among the timed ones.",
        },
        {f"at least {LEAST_RATIO:g} times bare Faust": ratio >= LEAST_RATIO},
        as_json=asked.json,
    )


def _round_settings(rig: Rig, number: int) -> Settings:
    """The rig's settings under a prefix of the round's own, whose topics are there."""
    kafka = {**rig.tree["kafka"], "prefix": f"round{number}"}
    settings = from_tree({**rig.tree, "kafka": kafka})
    problems = topics.ensure(settings)
    if problems:
        raise RuntimeError("; ".join(problems))
    return settings


def _full(
    rig: Rig,
    settings: Settings,
    generation: str,
    log: list[Click],
    warm_up: int,
    *,
    timed: bool,
) -> tuple[Run, dict[str, Any]]:
    """A worker with all of its work, and what its timers say."""
    random_generation.serve(settings, 1, generation)
    out = rig.folder / "timers.json"
    worker = rig.start(
        *([str(out)] if timed else ["stream"]),
        module="benchmarks.timed_worker" if timed else "rheos.cli",
        label=f"{settings.kafka.prefix}-worker",
        cpus=WORKER_CPU,
        extra={"kafka": {**rig.tree["kafka"], "prefix": settings.kafka.prefix}},
    )
    rig.await_ready(settings.stream.port)
    # Histories and neighbours are there when it counts, as they are in a shop.
    _send(settings, log[:warm_up], f"{settings.kafka.prefix}-warm-up")
    _await_folded(settings, worker, warm_up)
    if timed:
        worker.send_signal(signal.SIGUSR1)
    used_s = rig.cpu_s(worker.pid)
    began_s = _send(settings, log[warm_up:], f"{settings.kafka.prefix}-log")
    _await_folded(settings, worker, len(log))
    seconds, used_s = _last_append_s(settings) - began_s, rig.cpu_s(worker.pid) - used_s
    spent = {}
    if timed:
        worker.send_signal(signal.SIGUSR2)
        while not out.exists():
            time.sleep(0.1)
        spent = json.loads(out.read_text("utf-8"))
    worker.terminate()
    worker.wait(30)
    count = len(log) - warm_up
    return Run(count / seconds, 1e6 * used_s / count), spent


def _send(settings: Settings, log: list[Click], transactional_id: str) -> float:
    """Writes clicks in one transaction, so that all are there at once; returns when it ended."""
    producer = Producer(
        {
            "bootstrap.servers": settings.kafka.bootstrap,
            "transactional.id": transactional_id,
            "transaction.timeout.ms": 600_000,
            "queue.buffering.max.messages": len(log) + 1,
            "linger.ms": 20,
        }
    )
    producer.init_transactions(30)
    producer.begin_transaction()
    topic, partitions = Topics(settings).events, settings.kafka.events_partitions
    for click in log:
        producer.produce(topic, click.value, click.user_id.encode(), partition(click, partitions))
    producer.flush(120)
    began_s = time.time()
    producer.commit_transaction(30)
    return began_s


def _await_folded(
    settings: Settings, worker: "subprocess.Popen[bytes]", accepted: int, timeout_s: float = 300
) -> None:
    """Until all events are accepted, and no input lags, of the items agent neither."""
    deadline = time.monotonic() + timeout_s
    still = 0
    while still < 2:  # the lag is measured once a second
        time.sleep(1.1)
        if worker.poll() is not None:
            raise RuntimeError(f"the worker ended with {worker.returncode}")
        now = scrape(settings.stream.port)
        done = (
            now["rheos_events_accepted_total"] + now["rheos_events_duplicate_total"] >= accepted
            and now["rheos_lag_messages"] == 0
        )
        still = still + 1 if done else 0
        if time.monotonic() > deadline:
            raise TimeoutError(f"{now['rheos_events_accepted_total']:.0f} of {accepted} events")


def _last_append_s(settings: Settings) -> float:
    """When the last record of user-state and item-state was appended, seconds since 1970."""
    consumer = Consumer(
        {"bootstrap.servers": settings.kafka.bootstrap, "group.id": "speed-last-append"}
    )
    places = [
        TopicPartition(topic, number)
        for topic, count in (
            (Topics(settings).user_state, settings.kafka.events_partitions),
            (Topics(settings).item_state, settings.kafka.items_partitions),
        )
        for number in range(count)
    ]
    ends = {}
    for place in places:
        _, end = consumer.get_watermark_offsets(place, timeout=10)
        ends[place.topic, place.partition] = end
        place.offset = max(0, end - 2) if end else OFFSET_END  # its marker, and before it a record
    consumer.assign(places)
    latest_ms = 0
    left = {place for place, end in ends.items() if end}
    while left:
        message = consumer.poll(10)
        if message is None or message.error():
            raise RuntimeError(f"no last record of {left}: {message and message.error()}")
        latest_ms = max(latest_ms, message.timestamp()[1])
        left.discard((message.topic(), message.partition()))
    consumer.close()
    return latest_ms / 1000


def _bare(rig: Rig, settings: Settings, poll: int, count: int) -> Run:
    """The bare loop over ``count`` records; the first tenth is its warm-up."""
    out = rig.folder / f"bare-{settings.kafka.prefix}-{poll}.txt"
    subprocess.run(
        [
            *("taskset", "-c", WORKER_CPU, sys.executable, "-m", "benchmarks.bare_faust"),
            str(out),
            settings.kafka.bootstrap,
            Topics(settings).events,
            f"{settings.kafka.prefix}-bare-{poll}",
            *map(str, (poll, count // 10, count)),
        ],
        stdout=subprocess.DEVNULL,
        timeout=300,
        check=True,
    )
    seconds, used_s = map(float, out.read_text("utf-8").split())
    measured = count - count // 10
    return Run(measured / seconds, 1e6 * used_s / measured)


def _median(runs: list[Run]) -> Run:
    rates, used = zip(*runs, strict=True)
    return Run(statistics.median(rates), statistics.median(used))


def _table(spent: dict[str, Any], log: list[Click]) -> dict[str, float]:
    """CPU microseconds per event by what they go to; by thread where no timer tells more."""
    count = len(log)
    rules: EventRules = Settings().event_rules()
    values, arrival_ms = [click.value for click in log], time.time_ns() // 1_000_000
    began = time.thread_time()
    for value in values:
        rules.decode(value, arrival_ms)
    decoding = time.thread_time() - began
    seconds = dict(spent["timers"])
    seconds["users: fold"] -= decoding
    seconds["users: decode and check (measured alone)"] = decoding
    threads = dict(spent["threads"])
    ours = sum(value for name, value in threads.items() if name.endswith(" partition"))
    seconds["partition threads: not timed"] = ours - sum(spent["timers"].values())
    for name, value in threads.items():
        if name.startswith("rdk:"):
            seconds["librdkafka's threads"] = seconds.get("librdkafka's threads", 0.0) + value
        elif not name.endswith(" partition"):
            seconds[f"thread {name}"] = value
    seconds["in all"] = sum(threads.values())
    table = {name: round(1e6 * value / count, 2) for name, value in seconds.items()}
    return dict(sorted(table.items(), key=lambda pair: -pair[1]))


if __name__ == "__main__":
    sys.exit(main())
