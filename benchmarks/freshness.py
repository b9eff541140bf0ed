"""From POST /v1/events to a GET that reflects it: idle, and under a replay of 1,000 events/s.

A trial takes the first item of a user's list, posts a click on it, and asks for the list again and
again until its ``as_of`` is at or past the place that POST returned and the item has left it. The
clock runs from before the POST until after that GET. In a control the stream worker is stopped
(SIGSTOP): then nothing may be reflected; and it must be once the worker goes on. Broker, stream
worker, indexer, replay and this client share the machine. The generation's vectors are random.
"""

import os
import signal
import statistics
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from kafka import KafkaConsumer, TopicPartition

if __package__ in (None, ""):
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks import random_generation
from benchmarks.connection import Connection, percentiles
from benchmarks.report import arguments, finish, note
from benchmarks.rig import Rig
from benchmarks.scrape import scrape
from benchmarks.zipf_shop import clicks, item_name
from rheos.settings import Settings
from rheos.state import decode_user_state
from rheos.topics import Topics

ITEMS, LOAD_USERS, TRIAL_USERS, DIMENSIONS = 3_000, 20_000, 300, 64
LOAD_PER_S = 1_000
IDLE_P99_MS, LOADED_P99_MS = 100.0, 250.0
POLL_S = 0.002
LONGEST_PAUSE_S = 0.05
GIVE_UP_S = 30.0
CONTROL_S = 3.0
QUERY = "k=20"


class Trial(NamedTuple):
    """When what happened, seconds since 1970; where the click stands; how many GETs it took."""

    user_id: str
    partition: int
    offset: int
    posted: float
    acknowledged: float
    reflected: float
    polls: int


class Moved(NamedTuple):
    """What trials took: seconds, the stream worker's metrics, each process's CPU seconds."""

    seconds: float
    metrics: dict[str, float]
    cpu_s: dict[str, float]


def main() -> int:
    asked = arguments(
        __doc__,
        ("--trials", {"type": int, "default": 1_000}),
        ("--seed", {"type": int, "default": 1}),
    )
    note(f"seed {asked.seed}")
    random = np.random.default_rng(asked.seed)
    with Rig("freshness", {}) as rig:
        settings = rig.settings
        names = [item_name(item) for item in range(ITEMS)]
        vectors = random_generation.item_vectors(ITEMS, DIMENSIONS, random)
        generation = random_generation.store(settings, 1, names, vectors)
        random_generation.serve(settings, 1, generation)
        stream = rig.start("stream")
        indexer = rig.start("indexer")
        pids = {"broker": rig.kafka.pid, "stream": stream.pid, "indexer": indexer.pid}
        pids["this client"] = os.getpid()
        rig.await_ready(settings.stream.port)
        rig.await_ready(settings.indexer.port)
        connection = Connection(settings.indexer.port)
        _open_shop(connection, random)
        _trials(connection, random, 50)  # warm: caches and code paths

        idle, idle_metrics = _measured(rig, connection, random, asked.trials, pids)
        note(f"idle: {percentiles([t.reflected - t.posted for t in idle])}")
        control = _control(connection, stream)
        note(f"with the stream worker stopped: {control}")
        load = _start_load(rig, random, seconds=asked.trials // 2 + 60)
        _await_load(settings, load)
        pids["replay"] = load.pid
        loaded, loaded_metrics = _measured(rig, connection, random, asked.trials, pids)
        if load.poll() is not None:
            raise RuntimeError("the replay ended before the trials did")
        load.terminate()
        note(f"loaded: {percentiles([t.reflected - t.posted for t in loaded])}")
        written = _states_written(settings)
        connection.close()

    outcome = {
        "seed": asked.seed,
        "trials": asked.trials,
        "items": ITEMS,
        "idle": _summary(idle, idle_metrics, written),
        "loaded": _summary(loaded, loaded_metrics, written),
        "control": control,
        "bias": "Asking again takes a GET and 2 ms: a change is seen that much late; the client's"
        " own work is in all figures.",
    }
    idle_p99, loaded_p99 = (outcome[name]["milliseconds"]["p99"] for name in ("idle", "loaded"))
    rate = outcome["loaded"]["events_per_second"]
    return finish(
        "freshness",
        outcome,
        {
            f"idle: p99 at most {IDLE_P99_MS:g} ms": idle_p99 <= IDLE_P99_MS,
            f"under load: p99 at most {LOADED_P99_MS:g} ms": loaded_p99 <= LOADED_P99_MS,
            f"the load is {LOAD_PER_S} events/s (3 % less is let pass; the trials' own count)": (
                rate >= 0.97 * LOAD_PER_S
            ),
            "nothing is reflected while the stream worker is stopped": not control["reflected"],
            "it is once the worker goes on": control["reflected_after"],
        },
        as_json=asked.json,
    )


def _open_shop(connection: Connection, random: np.random.Generator) -> None:
    """Gives each user of a trial a short history, and waits until it shows."""
    users = [*map(_trial_user, range(TRIAL_USERS)), "control"]
    for user in users:
        drawn = random.integers(0, ITEMS, 3)
        clicked = [item_name(int(item)) for item in drawn]
        _post(connection, [{"user_id": user, "item_id": i, "type": "click"} for i in clicked])
    deadline = time.monotonic() + GIVE_UP_S
    while any(_list(connection, user)["as_of"] is None for user in users):
        if time.monotonic() > deadline:
            raise TimeoutError("the first events are not reflected")
        time.sleep(0.5)


def _trial_user(number: int) -> str:
    return f"trial-{number:04d}"


def _trials(connection: Connection, random: np.random.Generator, count: int) -> list[Trial]:
    return [_trial(connection, random) for _ in range(count)]


def _trial(connection: Connection, random: np.random.Generator) -> Trial:
    time.sleep(float(random.uniform(0, LONGEST_PAUSE_S)))  # not in step with the commits
    user_id = _trial_user(int(random.integers(TRIAL_USERS)))
    clicked = _list(connection, user_id)["items"][0]["item_id"]
    posted = time.time()
    place = _click(connection, user_id, clicked)
    acknowledged = time.time()
    polls = 1
    while not _reflects(_list(connection, user_id), place, clicked):
        if time.time() > posted + GIVE_UP_S:
            raise TimeoutError(f"{user_id}'s click at {place} is not reflected")
        time.sleep(POLL_S)
        polls += 1
    return Trial(
        user_id, place["partition"], place["offset"], posted, acknowledged, time.time(), polls
    )


def _list(connection: Connection, user_id: str) -> Any:
    response = connection.recommendations(user_id, QUERY)
    if response.status != 200:
        raise RuntimeError(f"GET answered {response}")
    return response.json()


def _click(connection: Connection, user_id: str, item_id: str) -> Any:
    return _post(connection, {"user_id": user_id, "item_id": item_id, "type": "click"})[0]


def _post(connection: Connection, events: object) -> Any:
    response = connection.ask("POST", "/v1/events", events)
    if response.status != 202:
        raise RuntimeError(f"POST answered {response}")
    return response.json()["events"]


def _reflects(answer: Any, place: Any, clicked: str) -> bool:
    as_of = answer["as_of"]
    return (
        as_of is not None
        and as_of["partition"] == place["partition"]
        and as_of["offset"] >= place["offset"]
        and all(item["item_id"] != clicked for item in answer["items"])
    )


def _measured(
    rig: Rig,
    connection: Connection,
    random: np.random.Generator,
    count: int,
    pids: Mapping[str, int],
) -> tuple[list[Trial], Moved]:
    """Trials, and what moved in the meantime."""
    port = rig.settings.stream.port
    before, used = scrape(port), {name: rig.cpu_s(pid) for name, pid in pids.items()}
    began = time.monotonic()
    trials = _trials(connection, random, count)
    seconds, after = time.monotonic() - began, scrape(port)
    return trials, Moved(
        seconds,
        {name: after[name] - before.get(name, 0.0) for name in after},
        {name: rig.cpu_s(pid) - used[name] for name, pid in pids.items()},
    )


def _control(connection: Connection, stream: "subprocess.Popen[bytes]") -> dict[str, Any]:
    """With the stream worker stopped a click must not show; afterwards it must."""
    clicked = _list(connection, "control")["items"][0]["item_id"]
    stream.send_signal(signal.SIGSTOP)
    try:
        place = _click(connection, "control", clicked)
        seen, asked_until, polls = False, time.monotonic() + CONTROL_S, 0
        while time.monotonic() < asked_until:
            answer = _list(connection, "control")
            left = all(item["item_id"] != clicked for item in answer["items"])
            seen = seen or left or answer["as_of"]["offset"] >= place["offset"]
            polls += 1
            time.sleep(0.01)
    finally:
        stream.send_signal(signal.SIGCONT)
    until, reflected_after = time.monotonic() + GIVE_UP_S, False
    while not reflected_after and time.monotonic() < until:
        reflected_after = _reflects(_list(connection, "control"), place, clicked)
        time.sleep(0.01)
    return {
        "seconds": CONTROL_S,
        "polls": polls,
        "reflected": seen,
        "reflected_after": reflected_after,
    }


def _start_load(rig: Rig, random: np.random.Generator, seconds: int) -> "subprocess.Popen[bytes]":
    """``rheos replay`` of a Zipf shop's clicks at LOAD_PER_S, for that many seconds at most."""
    log = clicks(
        seconds * LOAD_PER_S,
        users=LOAD_USERS,
        items=ITEMS,
        random=random,
        end_ms=time.time_ns() // 1_000_000,
    )
    file = rig.folder / "load.jsonl"
    with file.open("wb") as out:
        out.writelines(click.value + b"\n" for click in log)
    return rig.start("replay", str(file), "--rate", str(LOAD_PER_S), label="replay")


def _await_load(settings: Settings, load: "subprocess.Popen[bytes]") -> None:
    """Until events flow, and ten seconds more: histories and tables fill."""
    name = "rheos_events_accepted_total"
    before = scrape(settings.stream.port)[name]
    deadline = time.monotonic() + 60
    while scrape(settings.stream.port)[name] < before + LOAD_PER_S:
        if load.poll() is not None:
            raise RuntimeError(f"the replay ended with {load.returncode}")
        if time.monotonic() > deadline:
            raise TimeoutError("the replay does not get going")
        time.sleep(0.5)
    time.sleep(10)


def _states_written(settings: Settings) -> dict[tuple[int, int], tuple[float, float]]:
    """By place of the click: when it was appended, and when the state with it was."""
    topic = Topics(settings).user_state
    consumer = KafkaConsumer(
        bootstrap_servers=settings.kafka.bootstrap,
        group_id=None,
        enable_auto_commit=False,
        isolation_level="read_committed",
        auto_offset_reset="earliest",
        max_poll_records=5_000,
    )
    found = {}
    try:
        places = [TopicPartition(topic, p) for p in range(settings.kafka.events_partitions)]
        consumer.assign(places)
        ends = consumer.end_offsets(places)
        while any(consumer.position(place) < ends[place] for place in places):
            for place, records in consumer.poll(timeout_ms=500).items():
                for record in records:
                    if record.key.startswith(b"trial-") and record.value is not None:
                        state = decode_user_state(record.value)
                        times = state.append_time_ms / 1000, record.timestamp / 1000
                        found[place.partition, state.offset] = times
    finally:
        consumer.close()
    return found


def _summary(
    trials: list[Trial],
    moved: Moved,
    written: dict[tuple[int, int], tuple[float, float]],
) -> dict[str, Any]:
    """Percentiles of the whole and of its parts; the broker's times are whole milliseconds."""
    parts: dict[str, list[float]] = {
        "POST, sent to acknowledged": [t.acknowledged - t.posted for t in trials],
        "POST, sent to the click in its log": [],
        "stream, from there to the state in its log": [],
        "commit, indexer, GET, from there to reflected": [],
    }
    for trial in trials:
        times = written.get((trial.partition, trial.offset))
        if times is not None:  # else compacted, or overtaken in the same commit
            appended, state_appended = times
            for name, seconds in zip(
                list(parts)[1:],
                (
                    appended - trial.posted,
                    state_appended - appended,
                    trial.reflected - state_appended,
                ),
                strict=True,
            ):
                parts[name].append(max(0.0, seconds))
    accepted = moved.metrics["rheos_events_accepted_total"]
    commits = max(1.0, moved.metrics["rheos_commit_seconds_count"])
    return {
        "milliseconds": percentiles([t.reflected - t.posted for t in trials]),
        "parts": {name: percentiles(seconds) for name, seconds in parts.items() if seconds},
        "polls_median": statistics.median(t.polls for t in trials),
        "events_per_second": round(accepted / moved.seconds, 1),
        "commits_per_second": round(commits / moved.seconds, 1),
        "commit_ms_mean": round(1000 * moved.metrics["rheos_commit_seconds_sum"] / commits, 1),
        "cores_used": {name: round(s / moved.seconds, 3) for name, s in moved.cpu_s.items()},
    }


if __name__ == "__main__":
    sys.exit(main())
