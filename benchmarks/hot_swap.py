"""A hundred swaps while eight connections ask and events flow: no answer fails, none is mixed.

Every generation draws its vectors half anew, turns its space by a random rotation of its own and
permutes its rows, so that a vector, a row or an id of one makes no sense in another. Each answer
(``sources=vector``) is recomputed from the snapshot that it names and the history that user-state
held at its ``as_of``, in plain NumPy that shares nothing with the product but the file formats. The
same check is made against the generation before, which no answer may fit.
"""

import json
import sys
import threading
import time
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from confluent_kafka import Producer
from safetensors.numpy import load_file

if __package__ in (None, ""):
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks import random_generation
from benchmarks.connection import Connection, percentiles
from benchmarks.recomputation import CHECKPOINT, read
from benchmarks.report import arguments, finish, note
from benchmarks.rig import Rig
from benchmarks.zipf_shop import item_name
from rheos.events import Event, encode_event
from rheos.ids import partition_of
from rheos.settings import Settings
from rheos.state import decode_user_state
from rheos.topics import Topics

ITEMS, DIMENSIONS, K = 5_000, 32, 10
CHANGING_USERS, STATIC_USERS, FIRST_EVENTS = 300, 1_000, 8
HISTORY = 50
EVENTS_PER_S = 200
CONNECTIONS = 8
QUERY = f"k={K}&sources=vector"
TOLERANCE = 1e-3  # of the largest score; a user vector is held to 1e-4
TYPES = ("click", "click", "purchase", "view", "dislike")


class Asked(NamedTuple):
    """A query: when it was sent and answered (monotonic seconds), and what came."""

    sent: float
    answered: float
    body: bytes


class Swap(NamedTuple):
    """When a generation was announced and when the first answer named it (monotonic seconds)."""

    announced: float
    seen: float


def main() -> int:
    asked = arguments(
        __doc__,
        ("--queries", {"type": int, "default": 100_000}),
        ("--swaps", {"type": int, "default": 100}),
        ("--seed", {"type": int, "default": 1}),
    )
    note(f"seed {asked.seed}")
    random = np.random.default_rng(asked.seed)
    with Rig("swap", {"history": {"size": HISTORY}}) as rig:
        settings = rig.settings
        generations = _store_generations(settings, asked.swaps + 1, random)
        random_generation.serve(settings, 1, generations[0])
        rig.start("stream")
        rig.start("indexer")
        rig.await_ready(settings.stream.port)
        rig.await_ready(settings.indexer.port)
        users = [f"user-{number:05d}" for number in range(CHANGING_USERS + STATIC_USERS)]
        _open_shop(settings, users, random)

        note(f"{len(generations)} generations are stored; asking")
        traffic = Traffic(settings, users, asked.seed)
        traffic.start()
        try:
            swaps = _swap(settings, generations, traffic, asked.queries)
        finally:
            traffic.stop()
        note(f"{len(traffic.answers)} answers, {len(traffic.failures)} failures; recomputing")
        check = Check(settings, generations)
        found = check.all(traffic.answers)
    inside, outside = _inside_and_outside(traffic.answers, swaps)
    outcome = {
        "seed": asked.seed,
        "items": ITEMS,
        "users": {"changing": CHANGING_USERS, "static": STATIC_USERS},
        "swaps": len(swaps),
        "queries": len(traffic.answers) + len(traffic.failures),
        "queries_per_second": round(len(traffic.answers) / traffic.seconds, 1),
        "events_per_second": round(traffic.events / traffic.seconds, 1),
        "failed": len(traffic.failures),
        **found,
        "generations_named": len(check.named),
        "milliseconds_inside_swaps": percentiles(inside),
        "milliseconds_outside_swaps": percentiles(outside),
        "queries_inside_swaps": len(inside),
        "swap_milliseconds": percentiles([swap.seen - swap.announced for swap in swaps]),
        "first_failures": traffic.failures[:3],
        "first_mixed": check.examples,
        "bias": "Client, broker, stream worker and indexer share the machine. Inside a swap: from"
        " its announcement to the first answer that names it.",
    }
    return finish(
        "hot_swap",
        outcome,
        {
            f"{asked.swaps} swaps": len(swaps) == asked.swaps,
            f"at least {asked.queries} queries": outcome["queries"] >= asked.queries,
            f"{EVENTS_PER_S} events/s": outcome["events_per_second"] >= 0.97 * EVENTS_PER_S,
            "no failed query": not traffic.failures,
            "no mixed answer": found["mixed"] == 0,
            "every answer is recomputed": found["recomputed"] == len(traffic.answers),
            "answers follow the histories": found["users_seen_to_change"] > 0,
            "the check tells generations apart": found["fit_the_generation_before"] == 0,
        },
        as_json=asked.json,
    )


def _store_generations(settings: Settings, count: int, random: np.random.Generator) -> list[str]:
    base = random_generation.item_vectors(ITEMS, DIMENSIONS, random)
    names = []
    for number in range(1, count + 1):
        drawn = random_generation.item_vectors(ITEMS, DIMENSIONS, random)
        rotation, _ = np.linalg.qr(random.standard_normal((DIMENSIONS, DIMENSIONS)))
        vectors = ((0.7 * base + 0.7 * drawn) @ rotation).astype(np.float32)
        order = random.permutation(ITEMS)
        item_ids = [item_name(int(item)) for item in order]
        names.append(random_generation.store(settings, number, item_ids, vectors[order]))
    return names


def _event(random: np.random.Generator, user_id: str) -> Event:
    return Event(
        user_id=user_id,
        item_id=item_name(int(random.integers(ITEMS))),
        type=TYPES[int(random.integers(len(TYPES)))],
        time_ms=time.time_ns() // 1_000_000,
        event_id=f"{random.integers(1 << 62):x}",
    )


def _send(producer: Producer, settings: Settings, event: Event) -> None:
    producer.produce(
        Topics(settings).events,
        encode_event(event),
        event.user_id.encode(),
        partition_of(event.user_id, settings.kafka.events_partitions),
    )


def _open_shop(settings: Settings, users: list[str], random: np.random.Generator) -> None:
    """Gives each user a history and waits until the API shows it."""
    producer = Producer({"bootstrap.servers": settings.kafka.bootstrap})
    for user in users:
        for _ in range(FIRST_EVENTS):
            _send(producer, settings, _event(random, user))
    producer.flush(30)
    connection = Connection(settings.indexer.port)
    deadline = time.monotonic() + 60
    for user in users:
        while connection.recommendations(user, QUERY).json()["as_of"] is None:
            if time.monotonic() > deadline:
                raise TimeoutError("the first events are not reflected")
            time.sleep(0.1)
    time.sleep(1)  # a history is perhaps in two commits
    connection.close()


class Traffic:
    """The threads that ask and the one that sends events, until ``stop``."""

    def __init__(self, settings: Settings, users: list[str], seed: int) -> None:
        self.answers: list[Asked] = []
        self.failures: list[str] = []
        self.events = 0
        self.seconds = 0.0
        self.first_named: dict[str, float] = {}
        """Generation to the monotonic second of its first answer."""
        self._settings = settings
        self._users = users
        self._seed = seed
        self._stop = threading.Event()
        self._threads = [
            *(threading.Thread(target=self._ask, args=(n,)) for n in range(CONNECTIONS)),
            threading.Thread(target=self._send_events),
        ]

    def start(self) -> None:
        self._began = time.monotonic()
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        self._stop.set()
        self.seconds = time.monotonic() - self._began
        for thread in self._threads:
            thread.join()

    def await_answers(self, count: int, stuck_s: float = 60) -> None:
        """Until there are so many. Raises TimeoutError when none comes for ``stuck_s``."""
        had, since = -1, time.monotonic()
        while len(self.answers) < count:
            if len(self.answers) > had:
                had, since = len(self.answers), time.monotonic()
            elif time.monotonic() > since + stuck_s:
                raise TimeoutError(f"no answers any more; failures: {self.failures[-3:]}")
            time.sleep(0.01)

    def _ask(self, number: int) -> None:
        random = np.random.default_rng([self._seed, number])
        connection = Connection(self._settings.indexer.port)
        while not self._stop.is_set():
            # Changing and static users alike.
            low, high = (
                (0, CHANGING_USERS) if random.random() < 0.5 else (CHANGING_USERS, len(self._users))
            )
            user = self._users[int(random.integers(low, high))]
            sent = time.monotonic()
            try:
                response = connection.recommendations(user, QUERY)
            except OSError as error:
                self.failures.append(repr(error))
                connection = self._connect_again()
                continue
            answered = time.monotonic()
            if response.status != 200 or b'"generation":"' not in response.body:
                self.failures.append(f"{response.status} {response.body[:200]!r}")
                continue
            self.answers.append(Asked(sent, answered, response.body))
            self.first_named.setdefault(_generation_of(response.body), answered)
        connection.close()

    def _connect_again(self) -> Connection:
        while True:
            try:
                return Connection(self._settings.indexer.port)
            except OSError:
                if self._stop.wait(0.1):
                    raise

    def _send_events(self) -> None:
        random = np.random.default_rng([self._seed, CONNECTIONS])
        producer = Producer({"bootstrap.servers": self._settings.kafka.bootstrap, "linger.ms": 5})
        while not self._stop.wait(0.02):
            due = int((time.monotonic() - self._began) * EVENTS_PER_S)
            while self.events < due:
                user = self._users[int(random.integers(CHANGING_USERS))]
                _send(producer, self._settings, _event(random, user))
                self.events += 1
            producer.poll(0)
        producer.flush(10)


def _generation_of(body: bytes) -> str:
    """Without decoding the whole answer, in the thread that measures."""
    head = body.index(b'"generation":"') + len(b'"generation":"')
    return body[head : body.index(b'"', head)].decode()


def _swap(settings: Settings, generations: list[str], traffic: Traffic, queries: int) -> list[Swap]:
    """Announces one generation after the other, spread over the queries."""
    swaps = []
    for number, name in enumerate(generations[1:], 2):
        due = (number - 1) * queries // len(generations)
        traffic.await_answers(due)
        announced = time.monotonic()
        random_generation.serve(settings, number, name)
        while name not in traffic.first_named:
            if time.monotonic() > announced + 60:
                raise TimeoutError(f"generation {name} does not come into service")
            time.sleep(0.005)
        swaps.append(Swap(announced, traffic.first_named[name]))
    traffic.await_answers(queries)
    return swaps


def _inside_and_outside(answers: list[Asked], swaps: list[Swap]) -> tuple[list[float], list[float]]:
    """Seconds of the queries that overlap a swap, and of the others."""
    starts = np.array([swap.announced for swap in swaps])
    ends = np.array([swap.seen for swap in swaps])
    inside: list[float] = []
    outside: list[float] = []
    for one in answers:
        # The last swap announced before this query was answered.
        place = int(np.searchsorted(starts, one.answered, "right")) - 1
        overlaps = place >= 0 and ends[place] >= one.sent
        (inside if overlaps else outside).append(one.answered - one.sent)
    return inside, outside


class Check:
    """Recomputes answers from snapshots and the log of user-state."""

    def __init__(self, settings: Settings, generations: list[str]) -> None:
        self._settings = settings
        self._order = {name: place for place, name in enumerate(generations)}
        self._generations = generations
        self._weights = self._histories()
        self.named: set[str] = set()
        self.examples: list[str] = []

    def _histories(self) -> dict[tuple[str, int], tuple[list[str], np.ndarray]]:
        """(user, offset of the last event) to items and weights, oldest first."""
        found = {}
        topic = Topics(self._settings).user_state
        for _, _, key, value in read(self._settings.kafka.bootstrap, topic):
            if key and value and key != CHECKPOINT:
                state = decode_user_state(value)
                weights = np.frombuffer(state.weights, "<f4").astype(np.float64)
                found[key.decode(), state.offset] = state.item_ids, weights
        return found

    def all(self, answers: list[Asked]) -> dict[str, int]:
        """Counts of answers by what was found."""
        of_generation: dict[str, list[Any]] = {}
        offsets: dict[str, set[int]] = {}
        for one in answers:
            answer = json.loads(one.body)
            of_generation.setdefault(answer["generation"], []).append(answer)
            offsets.setdefault(answer["user_id"], set()).add(answer["as_of"]["offset"])
        self.named = set(of_generation)
        recomputed = mixed = before = 0
        for name, group in of_generation.items():
            for start in range(0, len(group), 500):
                part = group[start : start + 500]
                fits = self._fits(name, part)
                recomputed += len(fits)
                mixed += int((~fits).sum())
                for place in np.flatnonzero(~fits)[: 3 - len(self.examples)]:
                    self.examples.append(json.dumps(part[int(place)])[:600])
                earlier = self._order[name] - 1
                if earlier >= 0:
                    before += int(self._fits(self._generations[earlier], part).sum())
        return {
            "recomputed": recomputed,
            "mixed": mixed,
            "fit_the_generation_before": before,
            "users_seen_to_change": sum(1 for seen in offsets.values() if len(seen) > 1),
        }

    def _fits(self, name: str, answers: list[Any]) -> np.ndarray:
        """Whether each answer is what the snapshot and the history of its ``as_of`` make of it."""
        snapshot = self._snapshot(name)
        histories = [self._weights[a["user_id"], a["as_of"]["offset"]] for a in answers]
        users = np.stack([snapshot.fold_in(*history) for history in histories])  # (B, d)
        scores = users @ snapshot.vectors.T  # (B, N)
        scale = np.abs(scores).max(axis=1)
        for place, (item_ids, _) in enumerate(histories):
            scores[place, [snapshot.row_of[item] for item in item_ids]] = -np.inf
        edge = np.partition(scores, ITEMS - K, axis=1)[:, ITEMS - K]  # the K-th best
        fits = np.zeros(len(answers), bool)
        for place, answer in enumerate(answers):
            rows = [snapshot.row_of.get(item["item_id"], -1) for item in answer["items"]]
            told = np.array([item["score"] for item in answer["items"]])
            if len(set(rows)) != K or -1 in rows:
                continue
            true, slack = scores[place, rows], TOLERANCE * scale[place]
            fits[place] = (
                bool((np.abs(told - true) <= slack).all())
                and bool((true >= edge[place] - slack).all())
                and bool((np.diff(told) <= 1e-6).all())
                and all(item["source"] == "vector" for item in answer["items"])
            )
        return fits

    def _snapshot(self, name: str) -> "PlainSnapshot":
        return PlainSnapshot(self._settings.store_dir / name)


class PlainSnapshot:
    """A snapshot read and encoded by the formulas: Hu, Koren & Volinsky (2008), eq. 4.

    x = (YᵀY + Yᵀ D Y + λI)⁻¹ Yᵀ c over the latest ``last`` distinct items, newest first, each with
    its strongest weight; D = α |w| r, r = 2^(-rank / half_steps) + floor, c = 1 + D or 0.
    """

    def __init__(self, folder: Path) -> None:
        manifest = json.loads((folder / "manifest.json").read_bytes())
        item_ids = json.loads((folder / "items.json").read_bytes())
        self.vectors = load_file(folder / "tensors.safetensors")["item_vectors"].astype(np.float64)
        self.row_of = {item: row for row, item in enumerate(item_ids)}
        self._encoder = manifest["encoder"]
        identity = self._encoder["regularisation"] * np.eye(self.vectors.shape[1])
        self._gram = self.vectors.T @ self.vectors + identity

    def fold_in(self, item_ids: list[str], weights: np.ndarray) -> np.ndarray:
        """(d,) float64."""
        latest: dict[int, float] = {}
        for item, weight in zip(reversed(item_ids), weights[::-1].tolist(), strict=True):
            row = self.row_of[item]
            if row not in latest and len(latest) == self._encoder["last"]:
                break
            latest[row] = max(latest.get(row, 0.0), weight, key=abs)
        rows, strongest = list(latest), np.array(list(latest.values()))
        recency = 0.5 ** (np.arange(len(rows)) / self._encoder["half_steps"])
        recency += self._encoder["floor"]
        confidence = self._encoder["alpha"] * np.abs(strongest) * recency
        target = np.where(strongest > 0, 1.0 + confidence, 0.0)
        y = self.vectors[rows]
        return np.linalg.solve(self._gram + y.T @ (confidence[:, None] * y), y.T @ target)


if __name__ == "__main__":
    sys.exit(main())
