"""Is every event counted exactly once, whatever dies?

Replays all rows of Online Retail through real processes while faults happen: two workers (one joins
late), twelve kill -9 at random moments, one SIGSTOP for longer than the session, then woken; the
replay killed and resumed once; the broker killed and restarted once. Then every user's and item's
history, counters and sums are compared with benchmarks/recomputation.py, which imports nothing of
the product. Bias: one broker on one disk, so an acknowledged record survives by design.
"""

import random
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

from kafka import KafkaConsumer, TopicPartition

if __package__ in (None, ""):
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks.recomputation import latest, recompute
from benchmarks.report import arguments, finish, note
from benchmarks.rig import Rig
from rheos.demo import online_retail

SHAPE = (
    *("--map", "user=CustomerID", "item=StockCode", "time=InvoiceDate", "value=Quantity"),
    *("--type", "purchase", "--time-unit", "iso"),
)
KILLS = 12
FAULTS = {"kill": KILLS, "woken": 1, "replay": 1, "broker": 1}
ROWS_PER_SECOND = 5_000
SESSION_TIMEOUT_S = 6
PAUSE_S = 12  # SIGSTOP: twice the session


def main() -> int:
    options = arguments(
        __doc__,
        ("--seed", {"type": int, "default": random.SystemRandom().randrange(10**6)}),
        ("--rate", {"type": int, "default": ROWS_PER_SECOND}),
    )
    tree = {"stream": {"session_timeout_s": SESSION_TIMEOUT_S, "transaction_timeout_s": 10}}
    with Rig("exactness", tree) as rig:
        outcome = run(rig, options.seed, options.rate)
    counted = outcome["accepted"] + outcome["duplicates"] + sum(outcome["dead_letters"].values())
    claims = {
        "accepted + duplicates + dead letters = rows sent": counted == outcome["rows"],
        "every user's and item's state equals its recomputation": not outcome["faults"],
        "every fault met a running process": outcome["met_running"] == FAULTS,
    }
    return finish("exactness", outcome, claims, as_json=options.json)


def run(rig: Rig, seed: int, rate: int) -> dict[str, Any]:
    draw = random.Random(seed)
    rows = online_retail.ROWS
    note(f"seed {seed}: {rows} rows at {rate}/s, about {rows / rate:.0f} s")
    replay_command = (
        "replay",
        str(online_retail.ROWS_FILE),
        *SHAPE,
        "--rate",
        str(rate),
    )
    workers = [rig.start("stream", label="stream-1")]
    rig.await_ready(rig.settings.stream.port)
    replay = rig.start(*replay_command, label="replay")
    begun = time.monotonic()
    length = rows / rate
    # Faults lie in the middle nine tenths of the replay, so that each meets running work.
    kinds = ["kill"] * KILLS + ["pause", "replay", "broker"]
    plan = [(draw.uniform(0.05, 0.95) * length, kind) for kind in kinds]
    plan = sorted([(0.04 * length, "join"), *plan])
    log: list[str] = []
    met: Counter[str] = Counter()
    wake: tuple[float, subprocess.Popen[bytes]] | None = None
    while plan or wake:
        now = time.monotonic() - begun
        if wake and now >= wake[0]:
            wake[1].send_signal(signal.SIGCONT)
            log.append(f"{now:.1f} woken")
            met["woken"] += wake[1].poll() is None
            wake = None
        if plan and now >= plan[0][0]:
            fault = plan.pop(0)[1]
            note(f"{now:5.1f} s {fault}")
            log.append(f"{now:.1f} {fault}")
            awake = [w for w in range(len(workers)) if not (wake and workers[w] is wake[1])]
            if fault == "join":
                workers.append(_worker(rig, 2))
            elif fault == "kill":
                victim = draw.choice(awake)
                met["kill"] += workers[victim].poll() is None
                _kill(workers[victim])
                workers[victim] = _worker(rig, victim + 1)
            elif fault == "pause":
                victim = draw.choice(awake)
                workers[victim].send_signal(signal.SIGSTOP)
                wake = (now + PAUSE_S, workers[victim])
            elif fault == "replay":
                met["replay"] += replay.poll() is None
                _kill(replay)
                replay = rig.start(*replay_command, label="replay")
            elif fault == "broker":
                met["broker"] += rig.kafka.running
                rig.kafka.kill()
                rig.kafka.start()
        time.sleep(0.05)
    note("faults are over; waiting for the replay and for the workers to be level")
    while replay.poll() is None:
        time.sleep(0.2)
    if replay.returncode != 0:
        raise RuntimeError(f"the replay ended with {replay.returncode}; see {rig.folder}")
    _until_level(rig, f"{rig.settings.kafka.prefix}.events", "user-state")
    _until_level(rig, f"{rig.settings.kafka.prefix}.transitions", "item-state")
    took_s = time.monotonic() - begun
    for worker in workers:
        worker.terminate()
    note("recomputing every state from the topics")
    outcome = recompute(rig.kafka.bootstrap, rig.settings.kafka.prefix, _told(rig))
    faults = outcome.pop("faults")
    return {
        "seed": seed,
        "rows": rows,
        "seconds": round(took_s, 1),
        "met_running": dict(met),
        "log": log,
        **outcome,
        "faults": faults[:20],
        "fault_count": len(faults),
    }


def _worker(rig: Rig, place: int) -> subprocess.Popen[bytes]:
    """Worker number ``place`` (from 1); all but the first listen on any free port."""
    stream = {**rig.tree["stream"], "port": rig.settings.stream.port if place == 1 else 0}
    return rig.start("stream", label=f"stream-{place}", extra={"stream": stream})


def _kill(child: subprocess.Popen[bytes]) -> None:
    child.kill()
    child.wait()


def _until_level(rig: Rig, input_topic: str, state: str, timeout_s: float = 300) -> None:
    """Until the checkpoints are past the last committed record of each input partition."""
    deadline = time.monotonic() + timeout_s
    ends = _last_records(rig, input_topic)
    while True:
        _, checkpoints = latest(rig.kafka.bootstrap, f"{rig.settings.kafka.prefix}.{state}")
        if all(checkpoints.get(p, [0])[0] > last for p, last in ends.items()):
            # The items agent's input grows until the users agent is level: look again at the end.
            if (now := _last_records(rig, input_topic)) == ends:
                return
            ends = now
        if time.monotonic() > deadline:
            raise TimeoutError(f"{input_topic}: {checkpoints} of {ends}; logs in {rig.folder}")
        time.sleep(1)


def _last_records(rig: Rig, topic: str) -> dict[int, int]:
    """The offset of the last committed record of each partition that has one."""
    consumer = KafkaConsumer(
        bootstrap_servers=rig.kafka.bootstrap,
        group_id=None,
        enable_auto_commit=False,
        isolation_level="read_committed",
    )
    try:
        places = [TopicPartition(topic, p) for p in consumer.partitions_for_topic(topic)]
        ends = consumer.end_offsets(places)
        # Markers stand behind the last record; a few offsets back there is one to be read.
        consumer.assign(places)
        found: dict[int, int] = {}
        for place in places:
            back = 0
            while ends[place] and place.partition not in found and back < ends[place]:
                back = min(ends[place], max(64, 4 * back))
                consumer.seek(place, ends[place] - back)
                while consumer.position(place) < ends[place]:
                    for record in consumer.poll(timeout_ms=500).get(place, []):
                        found[place.partition] = record.offset
        return found
    finally:
        consumer.close()


def _told(rig: Rig) -> dict[str, Any]:
    settings = rig.settings
    return {
        "weights": settings.events.weights,
        "history_size": settings.history.size,
        "session_gap_ms": settings.history.session_gap_s * 1000,
        "near_window": settings.transitions.near_window,
        "far_window": settings.transitions.far_window,
        "far_half_steps": settings.transitions.far_half_steps,
        "half_life_ms": round(settings.transitions.half_life_days * 86_400_000),
        "trend_half_lives_ms": [round(h * 3_600_000) for h in settings.trend.half_lives_hours],
        "neighbours": settings.transitions.neighbours,
    }


if __name__ == "__main__":
    sys.exit(main())
