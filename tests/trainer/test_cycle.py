"""Whole cycles on a real Kafka: what serves afterwards, and what a bad run leaves alone."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

import msgspec
import numpy as np
import pytest
from kafka.errors import KafkaTimeoutError

from rheos import topics
from rheos.announcements import ruling
from rheos.events import Event
from rheos.generation import Generation
from rheos.local_kafka import KafkaProcess
from rheos.settings import Settings, SettingsError
from rheos.snapshot_store import LocalStore
from tests.trainer.shop import send, settings_for, taste
from trainer import cycle, fitting, models, refused
from trainer import publish as publishing
from trainer.archive import ArchiveError
from trainer.archiver import Archiver
from trainer.blending import learning
from trainer.cycle import Outcome, TrainerBusyError, train_once
from trainer.data_set import DataSet
from trainer.evaluation import report, report_page
from trainer.fitting import FitError
from trainer.models.als import Als
from trainer.models.model import Fitted, Model, Run, Start
from trainer.publish import promote, roll_back
from trainer.warm_start import WarmStarts

pytestmark = pytest.mark.kafka


@pytest.fixture
def settings(broker: KafkaProcess, prefix: str, tmp_path: Path) -> Settings:
    return settings_for(broker.bootstrap, prefix, tmp_path)


def serving(settings: Settings) -> str:
    found = ruling(settings)
    return "" if found is None else found.generation


@pytest.fixture
def served(settings: Settings) -> Settings:
    """Settings of a system with a first generation and 400 newer events."""
    send(settings, taste(600))
    assert train_once(settings).kind == "promoted"
    send(settings, taste(400, start=600))
    return settings


def test_a_first_cycle_ends_with_a_generation_on_all_events(settings: Settings) -> None:
    send(settings, taste(600))
    told: list[tuple[str, int, int]] = []
    outcome = train_once(settings, lambda *stage: told.append(stage))
    assert (outcome.kind, outcome.troubles) == ("promoted", [])
    assert outcome.generation == serving(settings)
    assert outcome.model == "als"
    assert outcome.interactions == 600
    assert outcome.candidate_ndcg is not None
    assert outcome.against_ndcg is not None
    assert outcome.candidate_ndcg > outcome.against_ndcg
    manifest = Generation(LocalStore(settings.store_dir).get(outcome.generation)).manifest
    assert manifest.interactions == 600  # fitted again with what the gate had set aside
    assert sum(end - begin for begin, end in manifest.window.values()) == 600
    assert manifest.topic_id
    assert manifest.metrics == outcome.metrics
    assert manifest.metrics["gate_ndcg@20"] == outcome.candidate_ndcg
    assert manifest.metrics["gate_hr@20"] == manifest.metrics["gate_recall@20"] <= 1
    assert 0 < manifest.metrics["gate_mrr@20"] < manifest.metrics["gate_ndcg@20"]
    assert manifest.metrics["gate_queries"] >= 50
    store = LocalStore(settings.store_dir)
    told_of_it = msgspec.json.decode(store.extra(outcome.generation, "report.json"))
    assert told_of_it["number"] == manifest.number
    ndcg = told_of_it["rows"][0]["all"]["measures"]["ndcg"]["mean"]
    assert ndcg == pytest.approx(outcome.candidate_ndcg)
    assert told_of_it["gate"]["passed"]
    assert Path(outcome.report) == store.path(outcome.generation) / "report.html"
    assert (
        f"Generation {manifest.number}" in store.extra(outcome.generation, "report.html").decode()
    )
    assert manifest.metrics["gate_against_ndcg@20"] == outcome.against_ndcg
    gain = manifest.metrics["gate_difference"]
    assert manifest.metrics["gate_difference_low"] < gain < manifest.metrics["gate_difference_high"]
    assert manifest.metrics["gate_p_value"] > 0.9
    stages = list(dict.fromkeys(stage for stage, _, _ in told))
    assert stages == ["archive", "data set", "fit", "gate", "refit", "publish"]
    for stage in stages:
        assert [(done, total) for name, done, total in told if name == stage][-1] in (
            (1, 1),
            (4, 4),
            (600, 600),
        )
    assert not (Path(settings.data_dir) / "candidates").exists()


def test_item_weights_stand_beside_the_vectors_where_the_settings_say_so(
    settings: Settings,
) -> None:
    send(settings, taste(600))
    trainer = msgspec.structs.replace(settings.trainer, item_weights="ease")
    outcome = train_once(msgspec.structs.replace(settings, trainer=trainer))
    assert outcome.kind == "promoted"
    generation = Generation(LocalStore(settings.store_dir).get(outcome.generation))
    assert generation.manifest.model == "als"
    assert generation.item_weights is not None
    assert len(generation.item_weights.weights)
    assert generation.item_weights.parameters["by"] == "ease"


def test_a_second_cycle_is_judged_on_newer_events_and_goes_on(served: Settings) -> None:
    first = serving(served)
    outcome = train_once(served)
    assert outcome.kind == "promoted"
    assert f"of {first} on" in outcome.reason
    found = ruling(served)
    assert found is not None
    assert (found.generation, found.predecessor) == (outcome.generation, first)
    assert outcome.interactions == 1000


def test_without_newer_events_it_waits(served: Settings) -> None:
    first = train_once(served).generation
    outcome = train_once(served)
    assert outcome.kind == "waiting"
    assert outcome.reason.startswith("0 events newer than all that was fitted")
    assert serving(served) == first


def test_with_too_few_events_the_first_waits(settings: Settings) -> None:
    assert topics.ensure(settings) == []
    assert train_once(settings).kind == "waiting"
    send(settings, taste(299))
    outcome = train_once(settings)
    assert outcome.kind == "waiting"
    assert "299 interactions, 300 are needed (trainer.min_events)" in outcome.reason
    assert serving(settings) == ""


class Bad(Als, frozen=True):
    """An ALS that goes wrong in the way that ``how`` says."""

    how: str = "noise"
    name: ClassVar[str] = "bad"

    def fit(self, data: DataSet, run: Run) -> Fitted:
        fitted = super().fit(data, run)
        if self.how == "crash":
            raise ZeroDivisionError("a bug")
        random = np.random.default_rng(0)
        vectors = {
            "nan": np.full_like(fitted.item_vectors, np.nan),
            "infinite": np.where(random.random(fitted.item_vectors.shape) < 0.01, np.inf, 1.0),
            "noise": random.normal(size=fitted.item_vectors.shape),
            "zeros": np.zeros_like(fitted.item_vectors),
            "huge": np.full_like(fitted.item_vectors, 3e38),
            "too few": fitted.item_vectors[:-1],
            "fine": fitted.item_vectors,
        }[self.how].astype(np.float32)
        return fitted._replace(item_vectors=vectors)


@pytest.fixture
def bad_model(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(models, "model_class", lambda name: Bad if name == "bad" else Als)


def with_model(settings: Settings, **parameters: Any) -> Settings:
    parameters = {"factors": 6, "iterations": 2} | parameters
    trainer = msgspec.structs.replace(settings.trainer, model="bad", parameters=parameters)
    return msgspec.structs.replace(settings, trainer=trainer)


@pytest.mark.parametrize(
    ("how", "kind", "reason"),
    [
        ("crash", "failed", "ZeroDivisionError: a bug"),
        ("nan", "failed", "NaN"),
        ("infinite", "failed", "infinite"),
        ("too few", "failed", "items"),
        ("noise", "refused", "NDCG@20"),
        ("zeros", "refused", "NDCG@20"),
        ("huge", "failed", ""),
    ],
)
@pytest.mark.filterwarnings("ignore:overflow encountered", "ignore:invalid value encountered")
@pytest.mark.usefixtures("bad_model")
def test_a_bad_run_leaves_the_serving_generation_alone(
    served: Settings, how: str, kind: str, reason: str
) -> None:
    first = serving(served)
    stored = LocalStore(served.store_dir).names()
    outcome = train_once(with_model(served, how=how))
    assert outcome.kind == kind or (how == "huge" and outcome.kind == "refused")
    assert reason in outcome.reason
    assert outcome.generation == ""
    assert serving(served) == first
    assert LocalStore(served.store_dir).names() == stored
    assert not (Path(served.data_dir) / "candidates").exists()
    # The next good one is judged as if nothing had been.
    assert train_once(served).kind == "promoted"


@pytest.mark.usefixtures("bad_model")
def test_a_bad_first_run_serves_nothing(settings: Settings) -> None:
    send(settings, taste(600))
    assert train_once(with_model(settings, how="nan")).kind == "failed"
    assert serving(settings) == ""


class Warm(Bad, frozen=True):
    """An ALS that notes with what it starts, and keeps its item vectors for the next fit."""

    name: ClassVar[str] = "warm"
    can = Als.can | {"warm_start"}
    started: ClassVar[list[Start | None]] = []
    is_spoilt: ClassVar[bool] = False

    def fit(self, data: DataSet, run: Run) -> Fitted:
        self.started.append(run.start)
        fitted = super().fit(data, run)
        if self.is_spoilt:
            return fitted._replace(item_vectors=np.zeros_like(fitted.item_vectors))
        return fitted._replace(keep={"item.q": fitted.item_vectors})


@pytest.fixture
def warm_model(monkeypatch: pytest.MonkeyPatch, settings: Settings) -> Settings:
    """Settings with that model, whose first generation serves; 400 newer events have come."""
    monkeypatch.setattr(models, "model_class", lambda name: Warm)
    monkeypatch.setattr(Warm, "started", [])
    made = with_model(settings, how="fine")
    send(made, taste(600))
    assert train_once(made).kind == "promoted"
    send(made, taste(400, start=600))
    assert Warm.started == [None, None]
    Warm.started.clear()
    return made


def test_a_fit_starts_where_the_serving_generations_ended(warm_model: Settings) -> None:
    first = serving(warm_model)
    assert train_once(warm_model).kind == "promoted"
    store = LocalStore(warm_model.store_dir)
    for start in Warm.started:  # the fit on the older events, and the one on all
        assert start is not None
        np.testing.assert_array_equal(
            start.tensors["item.q"], store.get(first).tensors["item_vectors"]
        )
    assert len(Warm.started) == 2
    assert store.get(serving(warm_model)).manifest.start == first
    assert store.get(first).manifest.start == ""


def test_a_setting_turns_it_off(warm_model: Settings) -> None:
    trainer = msgspec.structs.replace(warm_model.trainer, warm_start=False)
    assert train_once(msgspec.structs.replace(warm_model, trainer=trainer)).kind == "promoted"
    assert Warm.started == [None, None]


def test_after_a_refused_fit_the_next_starts_anew(
    warm_model: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(Warm, "is_spoilt", True)
        assert train_once(warm_model).kind == "refused"
    assert Warm.started[0] is not None
    Warm.started.clear()
    assert train_once(warm_model).kind == "promoted"
    assert Warm.started == [None, None]


def test_with_other_parameters_a_fit_starts_anew(warm_model: Settings) -> None:
    changed = with_model(warm_model, how="fine", iterations=3)
    assert train_once(changed).kind == "promoted"
    assert Warm.started == [None, None]


def test_after_a_roll_back_the_fit_of_what_was_rolled_back_is_no_start(
    warm_model: Settings,
) -> None:
    assert train_once(warm_model).kind == "promoted"
    roll_back(warm_model, LocalStore(warm_model.store_dir))
    Warm.started.clear()
    assert train_once(warm_model).kind == "promoted"
    assert Warm.started == [None, None]


def test_a_refit_that_fails_after_the_gate_publishes_nothing(served: Settings) -> None:
    first = serving(served)
    seen: list[DataSet] = []

    def fit(model: Model, data: DataSet, run: Run) -> Fitted:
        seen.append(data)
        if len(seen) == 2:
            raise FitError("out of memory")
        return fitting.fit(model, data, run)

    outcome = train_once(served, fit=fit)
    assert (outcome.kind, outcome.reason) == ("failed", "out of memory")
    assert serving(served) == first


def told_reason(settings: Settings) -> str:
    found = ruling(settings)
    return "" if found is None else found.reason


def failing(*_: Any, **__: Any) -> Any:
    raise MemoryError("all is full")


@pytest.mark.parametrize(
    ("owner", "step", "trouble"),
    [
        (learning, "learn_for", "no blend: MemoryError: all is full"),
        (report, "make", "no report: MemoryError: all is full"),
        (report_page, "page", "no report: MemoryError: all is full"),
        (WarmStarts, "keep", "no beginning for the next fit: MemoryError: all is full"),
    ],
)
def test_what_a_generation_can_do_without_does_not_cost_it(
    served: Settings, monkeypatch: pytest.MonkeyPatch, owner: object, step: str, trouble: str
) -> None:
    first = serving(served)
    monkeypatch.setattr(owner, step, failing)
    outcome = train_once(served)
    assert (outcome.kind, outcome.troubles) == ("promoted", [trouble])
    assert serving(served) == outcome.generation != first
    if step != "keep":  # that comes after the announcement
        assert told_reason(served).endswith(f"; {trouble}")
    generation = Generation(LocalStore(served.store_dir).get(outcome.generation))
    assert generation.blend is None
    assert set(generation.manifest.files) == {"items.json", "tensors.safetensors"} | (
        set() if "no report" in trouble else {"report.json", "report.html"}
    )
    assert bool(outcome.report) == ("no report" not in trouble)


def test_old_generations_that_cannot_be_cleared_away_do_not_cost_the_new_one(
    served: Settings, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def denied(*_: Any) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(publishing, "prune", denied)
    outcome = train_once(served)
    assert outcome.kind == "promoted"
    assert serving(served) == outcome.generation
    assert "old generations are cleared away the next time" in caplog.text


def test_a_generation_that_could_not_be_announced_is_kept_for_a_person(
    served: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = serving(served)
    with monkeypatch.context() as patch:

        def away(*_: Any) -> None:
            raise KafkaTimeoutError("the broker is away")

        patch.setattr(publishing, "announce", away)
        outcome = train_once(served)
    assert outcome.kind == "failed"
    assert serving(served) == first
    name = LocalStore(served.store_dir).names()[-1]
    assert name != first
    assert outcome.reason.startswith(f"{name} is stored, but Kafka failed before")
    assert outcome.reason.endswith(f"`rheos generations promote {name}` lets it serve")
    promote(served, LocalStore(served.store_dir), name)
    assert serving(served) == name


@pytest.mark.usefixtures("bad_model")
def test_a_refused_candidate_leaves_a_report_and_only_the_newest_ones_stay(
    served: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(refused, "KEPT", 2)
    pages = []
    for _ in range(3):
        outcome = train_once(with_model(served, how="noise"))
        assert (outcome.kind, outcome.troubles) == ("refused", [])
        pages.append(Path(outcome.report))
    assert [page.is_file() for page in pages] == [False, True, True]
    assert "It did not pass the gate." in pages[-1].read_text("utf-8")
    found = msgspec.json.decode((pages[-1].parent / "report.json").read_bytes())
    assert not found["gate"]["passed"]
    assert found["gate"]["reason"] == outcome.reason
    assert found["metrics"] == outcome.metrics
    assert found["model"] == "bad"
    assert [row["role"] for row in found["rows"]] == ["candidate", "serving", "popularity"]
    assert refused.of(served).names() == [page.parent.name for page in pages[1:]]
    # A report that cannot be kept changes nothing.
    monkeypatch.setattr(refused.RefusedReports, "keep", failing)
    outcome = train_once(with_model(served, how="noise"))
    assert (outcome.kind, outcome.report) == ("refused", "")
    assert outcome.troubles == ["no report: MemoryError: all is full"]


def test_a_roll_back_during_a_fit_stands(served: Settings) -> None:
    first, second = serving(served), train_once(served).generation
    send(served, taste(400, start=1000))

    def fit(model: Model, data: DataSet, run: Run) -> Fitted:
        if serving(served) == second:
            roll_back(served, LocalStore(served.store_dir))
        return fitting.fit(model, data, run)

    outcome = train_once(served, fit=fit)
    assert (outcome.kind, outcome.generation) == ("refused", "")
    assert outcome.reason == "the serving generation changed meanwhile"
    assert serving(served) == first


def test_wrong_models_and_parameters_are_named_before_the_work(settings: Settings) -> None:
    trainer = msgspec.structs.replace(settings.trainer, model="mystery")
    with pytest.raises(SettingsError, match=r"trainer\.model = 'mystery'"):
        train_once(msgspec.structs.replace(settings, trainer=trainer))
    trainer = msgspec.structs.replace(settings.trainer, parameters={"factors": 0})
    with pytest.raises(SettingsError, match="factors = 0"):
        train_once(msgspec.structs.replace(settings, trainer=trainer))


@pytest.mark.parametrize("how", ["gone", "torn", "not a generation"])
def test_a_store_that_lost_the_serving_generation_is_no_end(served: Settings, how: str) -> None:
    first = serving(served)
    directory = served.store_dir / first
    if how == "gone":
        LocalStore(served.store_dir).delete(first)
    elif how == "torn":
        (directory / "items.json").chmod(0o644)
        (directory / "items.json").write_text("[")
    else:
        (directory / "manifest.json").chmod(0o644)
        (directory / "manifest.json").write_text("{}")
    outcome = train_once(served)
    assert outcome.kind == "promoted"
    assert "of popularity on" in outcome.reason
    assert serving(served) == outcome.generation != first


def test_a_store_that_cannot_be_written_publishes_nothing(
    served: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = serving(served)

    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        train_once(served)
    assert serving(served) == first


def test_a_corrupt_archive_is_named_and_stops_the_cycle(served: Settings) -> None:
    file = next(served.archive_dir.rglob("events-*.parquet"))
    file.write_bytes(file.read_bytes()[:-9])
    with pytest.raises(ArchiveError, match="read from Kafka again"):
        train_once(served)
    # What the message says helps: Kafka still has the events.
    for later in file.parent.glob("events-*.parquet"):
        if later.name >= file.name:
            later.unlink()
    assert train_once(served).interactions == 1000


HOLD_LOCK = """
import sys, time
from pathlib import Path
from trainer import cycle
with cycle._cycle_lock(Path(sys.argv[1]), wait=False):
    print("held", flush=True)
    time.sleep(600)
"""


@pytest.fixture
def held(settings: Settings) -> Iterator[subprocess.Popen[bytes]]:
    """A process that holds the lock of a cycle until it is killed."""
    argv = [sys.executable, "-c", HOLD_LOCK, settings.data_dir]
    root = Path(__file__).parents[2]
    with subprocess.Popen(argv, cwd=root, stdout=subprocess.PIPE) as child:
        assert child.stdout is not None
        assert child.stdout.readline() == b"held\n"
        yield child
        child.kill()


def test_two_cycles_never_run_together(settings: Settings, held: subprocess.Popen[bytes]) -> None:
    send(settings, taste(600))
    with pytest.raises(TrainerBusyError, match=f"process {held.pid} is fitting"):
        train_once(settings)
    held.kill()  # the kernel frees a dead process's lock
    held.wait()
    assert train_once(settings).kind == "promoted"


def test_the_workers_cycle_waits_for_one_that_runs(
    settings: Settings, held: subprocess.Popen[bytes]
) -> None:
    order = cycle.Order(settings=settings, topic_id="nothing is archived of it")
    argv = [sys.executable, "-m", "trainer.cycle"]
    root = Path(__file__).parents[2]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with subprocess.Popen(argv, cwd=root, **pipes) as child:
        assert child.stdin is not None
        assert child.stdout is not None
        with child.stdin as pipe:
            pipe.write(msgspec.json.encode(order))
        with pytest.raises(subprocess.TimeoutExpired):
            child.wait(5)
        held.kill()
        outcome = msgspec.json.decode(child.stdout.read(), type=Outcome)
    assert (outcome.kind, outcome.reason[:14]) == ("waiting", "0 interactions")


def drifted(settings: Settings) -> Outcome:
    """What the worker's look for drift finds in all that is there."""
    with Archiver(settings) as archiver:
        archiver.catch_up()
    return cycle.run_cycle(settings, archiver.archive, only_if_drifted=True)


def test_a_look_for_drift_ends_where_there_is_none(served: Settings) -> None:
    first = serving(served)
    outcome = drifted(served)
    assert outcome.kind == "waiting"
    assert outcome.reason.startswith("no drift: NDCG@20 ")
    assert outcome.drift is not None
    assert not outcome.drift.has_fallen
    manifest = LocalStore(served.store_dir).get(first).manifest
    assert outcome.drift.at_gate == manifest.metrics["gate_ndcg@20"]
    assert serving(served) == first


def test_where_taste_has_turned_a_new_generation_serves(settings: Settings) -> None:
    send(settings, taste(600))
    first = train_once(settings).generation
    send(settings, turned(taste(900, start=600)))
    outcome = drifted(settings)
    assert outcome.drift is not None
    assert outcome.drift.has_fallen
    assert outcome.drift.now < 0.8 * outcome.drift.at_gate
    assert outcome.kind == "promoted"
    assert serving(settings) == outcome.generation != first


def turned(events: list[Event]) -> list[Event]:
    """The same shop after its items have changed departments: what goes together is new."""
    moved = np.random.default_rng(0).permutation(100)
    return [
        msgspec.structs.replace(found, item_id=f"i{moved[int(found.item_id[1:])]}")
        for found in events
    ]


PRINTING = """
import sys
from trainer.cycle import stdout_for_the_answer
with stdout_for_the_answer():
    print("from a fit")
print("{}")
"""


def test_the_command_prints_the_outcome_alone() -> None:
    done = subprocess.run(
        [sys.executable, "-c", PRINTING],
        check=True,
        cwd=Path(__file__).parents[2],
        capture_output=True,
    )
    assert (done.stdout, done.stderr) == (b"{}\n", b"from a fit\n")


def test_the_same_events_and_seed_give_the_same_generation_content(
    settings: Settings, tmp_path: Path
) -> None:
    send(settings, taste(600))
    vectors = []
    for _ in range(2):
        outcome = train_once(settings)
        vectors.append(LocalStore(settings.store_dir).get(outcome.generation).tensors)
        settings = msgspec.structs.replace(settings, data_dir=str(tmp_path / "another"))
    np.testing.assert_array_equal(vectors[0]["item_vectors"], vectors[1]["item_vectors"])


TALKATIVE = """
import os, sys
from trainer import cycle
def run_cycle(*_, **__):
    print("from Python")
    sys.stdout.flush()
    os.write(1, b"from C")
    return cycle.Outcome(kind="waiting", reason="a test")
cycle.run_cycle = run_cycle
sys.exit(cycle.main())
"""


def test_what_a_fit_prints_does_not_get_into_the_answer() -> None:
    done = subprocess.run(
        [sys.executable, "-c", TALKATIVE],
        check=True,
        cwd=Path(__file__).parents[2],
        input=msgspec.json.encode(cycle.Order(settings=Settings(), topic_id="t")),
        capture_output=True,
    )
    outcome = msgspec.json.decode(done.stdout, type=Outcome)
    assert (outcome.kind, outcome.reason) == ("waiting", "a test")
    assert b"from Python" in done.stderr
    assert b"from C" in done.stderr


def test_an_outcome_is_json_both_ways() -> None:
    outcome = Outcome(kind="refused", reason="worse", candidate_ndcg=0.1)
    assert msgspec.json.decode(msgspec.json.encode(outcome), type=Outcome) == outcome
