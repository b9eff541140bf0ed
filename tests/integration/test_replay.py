"""A file's rows arrive in Kafka exactly once, whatever ends the runs that send them."""

import csv
import json
import random
import signal
import subprocess
import sys
import textwrap
import threading
import time
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from confluent_kafka import KafkaError, KafkaException

from rheos import topics
from rheos.events import Event, EventRules
from rheos.ids import partition_of
from rheos.local_kafka import KafkaProcess
from rheos.mapping import EventMapping, source_from_words
from rheos.row_file import RowFile
from rheos.settings import Settings, from_tree
from rheos.state import DeadLetter, decode_dead_letter
from rheos.topics import Topics
from stream import replay as replay_file
from stream.pace import Pace
from stream.replay import Plan, Summary, replay
from stream.source_writer import SourceError, SourceWriter, read_position
from tests.committed import committed

pytestmark = pytest.mark.kafka

HEADER = ["user", "item", "at", "count"]


@pytest.fixture
def settings(broker: KafkaProcess, prefix: str) -> Settings:
    made = from_tree(
        {
            "kafka": {"bootstrap": broker.bootstrap, "prefix": prefix},
            "stream": {"transaction_timeout_s": 3},
        }
    )
    assert topics.ensure(made) == []
    return made


def table(path: Path, rows: int, first: int = 0) -> Path:
    """Rows of 97 users, a second apart; every tenth one is a cancellation."""
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(HEADER)
        for n in range(first, first + rows):
            writer.writerow([f"u{n % 97}", f"i{n}", 1_291_191_960 + n, -1 if n % 10 == 0 else n])
    return path


def mapping() -> EventMapping:
    words = ["user=user", "item=item", "time=at", "value=count"]
    return EventMapping(source_from_words(words, fixed_type="purchase", time_unit="s"))


def plan_of(path: Path, **options: Any) -> Plan:
    return Plan(RowFile(path), mapping(), options.pop("name", path.name), **options)


def run(settings: Settings, plan: Plan, **options: Any) -> Summary:
    return replay(settings, plan, stop=options.pop("stop", threading.Event()), **options)


def events(settings: Settings) -> list[Event]:
    rules = settings.event_rules()
    found = []
    for partition, key, value in committed(settings, Topics(settings).events):
        event = rules.decode(value, 1 << 50)
        assert key == event.user_id.encode()
        assert partition == partition_of(event.user_id, settings.kafka.events_partitions)
        found.append(event)
    return found


def dead_letters(settings: Settings) -> list[DeadLetter]:
    letters = committed(settings, Topics(settings).dead_letters)
    return [decode_dead_letter(value) for _, _, value in letters]


def assert_each_once(settings: Settings, rows: int) -> None:
    assert sorted(int(event.item_id[1:]) for event in events(settings)) == [
        n for n in range(rows) if n % 10
    ]
    assert sorted(letter.offset for letter in dead_letters(settings)) == list(range(0, rows, 10))


def test_each_row_becomes_an_event_or_a_dead_letter(settings: Settings, tmp_path: Path) -> None:
    path = table(tmp_path / "shop.csv", 1000)
    done = run(settings, plan_of(path))
    assert (done.rows, done.events, done.dead_letters) == (1000, 900, {"out_of_range": 100})
    assert (done.next_row, done.stopped) == (1000, False)
    assert_each_once(settings, 1000)
    by_item = {event.item_id: event for event in events(settings)}
    assert by_item["i7"] == Event(
        user_id="u7", item_id="i7", type="purchase", time_ms=1_291_191_967_000, value=7.0
    )
    letter = min(dead_letters(settings), key=lambda letter: letter.offset)
    assert (letter.reason, letter.text) == ("out_of_range", "value -1; at least 0")
    assert (letter.place, letter.source) == ("shop.csv[0]@0", "file:shop.csv")
    assert (letter.value, letter.size) == (b"u0,i0,1291191960,-1\r\n", 21)


def test_events_of_a_user_stay_in_the_file_s_order(settings: Settings, tmp_path: Path) -> None:
    run(settings, plan_of(table(tmp_path / "shop.csv", 500)))
    seen: dict[str, int] = {}
    for event in events(settings):
        assert seen.get(event.user_id, -1) < int(event.item_id[1:])
        seen[event.user_id] = int(event.item_id[1:])


def test_a_second_run_adds_nothing(settings: Settings, tmp_path: Path) -> None:
    plan = plan_of(table(tmp_path / "shop.csv", 300))
    run(settings, plan)
    again = run(settings, plan)
    assert (again.rows, again.events, again.dead_letters) == (0, 0, {})
    assert (again.all_events, again.all_dead_letters) == (270, {"out_of_range": 30})
    assert_each_once(settings, 300)


def test_another_content_or_another_name_is_another_source(
    settings: Settings, tmp_path: Path
) -> None:
    path = tmp_path / "shop.csv"
    run(settings, plan_of(table(path, 20)))
    run(settings, plan_of(table(path, 20, first=20)))
    assert len({event.item_id for event in events(settings)}) == 36
    assert run(settings, plan_of(path)).rows == 0
    assert run(settings, plan_of(path, name="again")).events == 18
    assert len(events(settings)) == 36 + 18


def test_parts_of_a_file_can_be_sent_one_after_the_other(
    settings: Settings, tmp_path: Path
) -> None:
    path = table(tmp_path / "shop.csv", 200)
    assert run(settings, plan_of(path, until=120)).next_row == 120
    assert run(settings, plan_of(path, until=100)).rows == 0
    assert run(settings, plan_of(path, first=50)).rows == 80
    assert_each_once(settings, 200)


def test_rows_before_the_first_wanted_one_are_skipped(settings: Settings, tmp_path: Path) -> None:
    path = table(tmp_path / "shop.csv", 100)
    assert run(settings, plan_of(path, first=90)).rows == 10
    assert run(settings, plan_of(path)).rows == 0


def test_a_replay_that_is_stopped_goes_on_later(settings: Settings, tmp_path: Path) -> None:
    # Ten seconds' worth, of which it takes half a one: a slow commit must not make all of it due.
    plan = plan_of(table(tmp_path / "shop.csv", 400), pace=Pace(rate=40))
    stop = threading.Event()

    def stop_soon(summary: Summary) -> None:
        if summary.rows >= 20:
            stop.set()

    first = run(settings, plan, stop=stop, progress=stop_soon)
    assert first.stopped
    assert 20 <= first.rows < 400
    assert run(settings, plan._replace(pace=Pace())).rows == 400 - first.rows
    assert_each_once(settings, 400)


def test_a_rate_is_kept(settings: Settings, tmp_path: Path) -> None:
    done = run(settings, plan_of(table(tmp_path / "shop.csv", 300), pace=Pace(rate=200)))
    assert 1.4 < done.seconds < 12
    assert_each_once(settings, 300)


def test_a_recorded_speed_is_kept(settings: Settings, tmp_path: Path) -> None:
    done = run(settings, plan_of(table(tmp_path / "shop.csv", 31), pace=Pace(speed=20)))
    assert 1.4 < done.seconds < 12


def test_a_file_is_ordered_by_time_when_told(settings: Settings, tmp_path: Path) -> None:
    path = tmp_path / "mixed.csv"
    cells = [("a", 30), ("b", 10), ("c", "never"), ("d", 20), ("e", 10)]
    path.write_text("user,item,at,count\n" + "".join(f"u,{item},{at},1\n" for item, at in cells))
    plan = plan_of(path, sort=True)
    run(settings, plan._replace(until=2))
    run(settings, plan)
    assert [event.item_id for event in events(settings)] == ["b", "e", "d", "a"]
    [letter] = dead_letters(settings)
    assert letter.place == "mixed.csv[0]@2"
    with pytest.raises(SourceError, match="begun in time order and stands at row 5"):
        run(settings, plan._replace(sort=False))
    words = ["user=user", "item=item", "time=count"]
    other = EventMapping(source_from_words(words, fixed_type="purchase"))
    with pytest.raises(SourceError, match="begun in time order under another mapping and stands"):
        run(settings, plan._replace(mapping=other))


@pytest.mark.parametrize("mapped", [True, False])
def test_a_row_s_place_in_time_depends_on_neither_clock_nor_rules(
    settings: Settings, tmp_path: Path, mapped: bool
) -> None:
    """Else rows would change places between two runs, and some be sent twice and some never."""
    if mapped:
        path = tmp_path / "mixed.csv"
        cells = [("a", 30), ("b", 10), ("c", 1 << 50), ("d", 20)]
        path.write_text("user,item,at,count\n" + "".join(f"u,{i},{at},1\n" for i, at in cells))
        plan = plan_of(path, sort=True, until=3)
    else:
        path = tmp_path / "mixed.jsonl"
        kinds = [("a", 30, "view"), ("b", 10, "view"), ("c", 40, "poke"), ("d", 20, "view")]
        rows = [
            {"user_id": "u", "item_id": item, "time_ms": at, "type": kind}
            for item, at, kind in kinds
        ]
        path.write_text("".join(f"{json.dumps(row)}\n" for row in rows))
        plan = Plan(RowFile(path), None, path.name, sort=True, until=3)
    done = run(settings, plan)
    # "c" is refused today. Its own time makes it the last, not its neighbour's.
    assert (done.events, done.dead_letters) == (3, {})
    assert [event.item_id for event in events(settings)] == ["b", "d", "a"]


def test_lines_of_json_are_events_already_or_mapped(settings: Settings, tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    event = {"user_id": 1, "item_id": "a", "type": "view", "time_ms": 5, "context": {"page": "x"}}
    path.write_text(f'{json.dumps(event)}\n{{"user_id": "1"}}\nnot json\n')
    run(settings, Plan(RowFile(path), None, "events"))
    foreign = tmp_path / "foreign.jsonl"
    foreign.write_text('{"who": {"id": 2}, "item_id": "b", "time_ms": 7}\n')
    source = source_from_words(["user=who.id"], fixed_type="cart")
    run(settings, Plan(RowFile(foreign), EventMapping(source), "foreign"))
    assert sorted(events(settings), key=lambda event: event.item_id) == [
        Event(user_id="1", item_id="a", type="view", time_ms=5, context={"page": "x"}),
        Event(user_id="2", item_id="b", type="cart", time_ms=7),
    ]
    assert [(letter.reason, letter.offset) for letter in dead_letters(settings)] == [
        ("missing_field", 1),
        ("not_json", 2),
    ]


def test_hostile_rows_become_dead_letters_with_their_bytes(
    settings: Settings, tmp_path: Path
) -> None:
    hostile = [
        (b",i,5,1\n", "missing_field"),
        (b"u,i,NaN,1\n", "missing_field"),
        (b"u,i,tomorrow,1\n", "wrong_type"),
        (b"u,i,99999999999,1\n", "in_the_future"),
        (b"u,i,5,many\n", "wrong_type"),
        (b"u,i,5,inf\n", "out_of_range"),
        (b"u,i\n", "wrong_type"),
        (b"u,i,5,1,extra\n", "wrong_type"),
        (b"\xff\xfe,i,5,1\n", "not_unicode"),
        (b"u\x00,i,5,1\n", "control_character"),
        (b"u" * 300 + b",i,5,1\n", "long_id"),
        (b"u" * 100_000 + b",i,5,1\n", "long_id"),
        (b'"' + b"u" * 200_000 + b'",i,5,1\n', "wrong_type"),
    ]
    path = tmp_path / "hostile.csv"
    path.write_bytes(b"user,item,at,count\n" + b"".join(row for row, _ in hostile) + b"u,i,5,1\n")
    done = run(settings, plan_of(path))
    assert (done.rows, done.events) == (len(hostile) + 1, 1)
    for letter, (row, reason) in zip(dead_letters(settings), hostile, strict=True):
        assert (letter.reason, letter.size) == (reason, len(row))
        assert letter.value == row[: 64 * 1024]
        assert letter.text


def test_large_rows_are_sent_in_several_transactions(
    settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(replay_file, "CHUNK_BYTES", 100_000)
    path = tmp_path / "large.csv"
    path.write_bytes(b"user,item,at,count\n" + 5 * (b"u" * 40_000 + b",i,5,1\n"))
    steps: list[int] = []
    run(settings, plan_of(path), progress=lambda summary: steps.append(summary.next_row))
    assert steps == [2, 4, 5]  # 40 kB are 53 kB in base64


def test_topics_that_do_not_fit_stop_the_replay(settings: Settings, tmp_path: Path) -> None:
    plan = plan_of(table(tmp_path / "shop.csv", 10))
    kafka = {"bootstrap": settings.kafka.bootstrap, "prefix": settings.kafka.prefix}
    with pytest.raises(SourceError, match=r"has 4 partitions, kafka\.events_partitions says 8"):
        run(from_tree({"kafka": {**kafka, "events_partitions": 8}}), plan)


SCRIPT = textwrap.dedent(
    """
    import sys, threading
    from pathlib import Path
    from rheos.mapping import EventMapping, source_from_words
    from rheos.row_file import RowFile
    from rheos.settings import from_tree
    from stream.pace import Pace
    from stream.replay import Plan, replay
    bootstrap, prefix, file, rate = sys.argv[1:]
    kafka = {"bootstrap": bootstrap, "prefix": prefix}
    settings = from_tree({"kafka": kafka, "stream": {"transaction_timeout_s": 3}})
    words = ["user=user", "item=item", "time=at", "value=count"]
    mapping = EventMapping(source_from_words(words, fixed_type="purchase", time_unit="s"))
    plan = Plan(RowFile(Path(file)), mapping, "shop", Pace(rate=float(rate)))
    replay(settings, plan, stop=threading.Event(), progress=lambda summary: print(flush=True))
    """
)


def started(settings: Settings, path: Path, rate: float) -> subprocess.Popen[bytes]:
    kafka = settings.kafka
    command = [sys.executable, "-c", SCRIPT, kafka.bootstrap, kafka.prefix, str(path), str(rate)]
    return subprocess.Popen(command, stdout=subprocess.PIPE)


@pytest.mark.slow
def test_a_replay_killed_at_any_moment_sends_each_row_once(
    settings: Settings, tmp_path: Path
) -> None:
    rows = 12_000
    path = table(tmp_path / "shop.csv", rows)
    draw = random.Random(7)
    kills = 0
    while True:
        # At first so slowly that a pause of the machine's does not let it reach the end.
        process = started(settings, path, rate=1000 if kills < 6 else 0)
        assert process.stdout is not None
        process.stdout.readline()  # it has committed once, then it works on the next ones
        time.sleep(draw.uniform(0.0, 0.4))
        if process.poll() is None and kills < 6:
            process.send_signal(signal.SIGKILL)
            kills += 1
        else:
            assert process.wait(240) == 0
        process.stdout.close()
        process.wait()
        if process.returncode == 0:
            break
    assert kills == 6
    assert_each_once(settings, rows)


@pytest.mark.slow
def test_a_broker_that_crashes_and_comes_back_costs_no_row(
    broker: KafkaProcess, settings: Settings, tmp_path: Path
) -> None:
    plan = plan_of(table(tmp_path / "shop.csv", 3000), pace=Pace(rate=1000))
    notices: list[str] = []
    crashed = threading.Event()

    def crash(summary: Summary) -> None:
        if summary.rows > 500:
            crashed.set()

    result: list[Summary] = []
    thread = threading.Thread(
        target=lambda: result.append(run(settings, plan, progress=crash, notice=notices.append))
    )
    thread.start()
    assert crashed.wait(120)
    broker.kill()
    time.sleep(1)
    broker.start()
    thread.join(300)
    assert not thread.is_alive()
    assert result[0].rows == 3000
    assert_each_once(settings, 3000)


def test_of_two_runs_at_once_the_later_one_wins(settings: Settings, tmp_path: Path) -> None:
    path = table(tmp_path / "shop.csv", 1000)
    going = threading.Event()
    ended: list[str] = []

    def earlier() -> None:
        try:
            run(
                settings,
                plan_of(path, pace=Pace(rate=10)),  # it cannot have ended before the later one
                progress=lambda summary: going.set(),
            )
        except SourceError as error:
            ended.append(str(error))

    thread = threading.Thread(target=earlier)
    thread.start()
    assert going.wait(120)
    later = run(settings, plan_of(path))
    thread.join(120)
    assert "another run has taken over shop.csv@" in ended[0]
    assert later.next_row == 1000
    assert_each_once(settings, 1000)


class Interference:
    """Stands in for the writer's transaction and spoils the wanted ones."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, spoil: dict[int, str]) -> None:
        self._transact = SourceWriter._transact
        self._spoil = spoil
        self.calls = 0
        monkeypatch.setattr(SourceWriter, "_transact", lambda *given: self.transact(*given))

    def transact(self, writer: SourceWriter, records: Any, position: Any) -> None:
        self.calls += 1
        how = self._spoil.get(self.calls, "")
        lost = KafkaException(KafkaError(KafkaError._TIMED_OUT))
        if how == "fails before it begins":
            raise lost
        if how == "fails half way":
            writer._producer.begin_transaction()
            for topic, partition, key, value in records:
                writer._producer.produce(topic, value, key, partition)
            writer._producer.flush(5)
            raise lost
        if how == "takes too long":
            writer._producer.begin_transaction()
            for topic, partition, key, value in records:
                writer._producer.produce(topic, value, key, partition)
            writer._producer.flush(5)
            time.sleep(6)
            writer._producer.commit_transaction(5)
            return
        self._transact(writer, records, position)
        if how == "is committed unheard":
            raise lost


@pytest.mark.parametrize(
    "how", ["fails before it begins", "fails half way", "is committed unheard"]
)
def test_a_transaction_that_fails_is_settled_by_the_position(
    settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    monkeypatch.setattr(replay_file, "CHUNK_ROWS", 40)
    # The first is the claim, then three chunks.
    interference = Interference(monkeypatch, {1: how, 3: how, 4: how if "un" in how else ""})
    done = run(settings, plan_of(table(tmp_path / "shop.csv", 120)))
    assert interference.calls >= 4
    assert (done.rows, done.events) == (120, 108)
    assert_each_once(settings, 120)


def test_a_run_that_slept_through_its_transaction_goes_on_when_it_is_alone(
    settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Interference(monkeypatch, {2: "takes too long"})
    notices: list[str] = []
    done = run(settings, plan_of(table(tmp_path / "shop.csv", 50)), notice=notices.append)
    assert done.rows == 50
    assert any("fenced" in notice for notice in notices)
    assert_each_once(settings, 50)


def test_a_transaction_that_can_never_succeed_ends_the_run(
    settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("stream.source_writer.FIRST_WAIT_S", 0.01)
    Interference(monkeypatch, dict.fromkeys(range(2, 100), "fails before it begins"))
    with pytest.raises(SourceError, match=r"shop\.csv@"):
        run(settings, plan_of(table(tmp_path / "shop.csv", 50)))
    assert events(settings) == []


def test_waiting_for_a_kafka_that_is_away_ends_when_told(
    tmp_path: Path, prefix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("stream.source_writer.KAFKA_TIMEOUT_S", 0.1)
    nobody = from_tree({"kafka": {"bootstrap": "127.0.0.1:1", "prefix": prefix}})
    stop = threading.Event()
    notices: list[str] = []

    def told(notice: str) -> None:
        notices.append(notice)
        stop.set()

    done = run(nobody, plan_of(table(tmp_path / "shop.csv", 5)), stop=stop, notice=told)
    assert done.stopped
    assert "waiting for Kafka at 127.0.0.1:1" in notices[0]


def test_positions_of_several_sources_stand_beside_each_other(
    settings: Settings, tmp_path: Path
) -> None:
    plans = [plan_of(table(tmp_path / f"{n}.csv", 10 * n)) for n in (1, 2)]
    for plan in plans:
        run(settings, plan)
    found = [read_position(settings, replay_file.source_name(plan)) for plan in plans]
    assert [position.next for position in found] == [{"row": 10}, {"row": 20}]
    assert Counter(found[1].counts) == {"events": 18, "out_of_range": 2}


def test_the_stream_s_rules_agree_with_what_was_sent(settings: Settings, tmp_path: Path) -> None:
    """What the replay lets through, the users agent must not refuse."""
    run(settings, plan_of(table(tmp_path / "shop.csv", 100)))
    rules = EventRules(settings.events.weights, 0)
    for _, _, value in committed(settings, Topics(settings).events):
        rules.check(rules.decode(value, int(time.time() * 1000)), int(time.time() * 1000))
