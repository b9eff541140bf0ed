"""Tuning on a real Kafka: better than where it began, and going on where it was left."""

from collections.abc import Mapping
from pathlib import Path
from typing import ClassVar

import msgspec
import pytest

from rheos.local_kafka import KafkaProcess
from rheos.settings import Settings
from tests.trainer.shop import send, settings_for, taste
from trainer import models, tuning
from trainer.data_set import DataSet
from trainer.models.als import Als
from trainer.models.model import Fitted, Run
from trainer.search_space import Range
from trainer.tuning import TuneError, tune

pytestmark = pytest.mark.kafka


class Fragile(Als, frozen=True):
    """An ALS whose fit fails with many factors, and which is bad with few iterations."""

    name: ClassVar[str] = "fragile"
    space: ClassVar[Mapping[str, Range]] = {
        "factors": Range(1, 12),
        "alpha": Range(1e-4, 40.0, log=True),
    }

    def fit(self, data: DataSet, run: Run) -> Fitted:
        if self.factors > 10:
            raise MemoryError("too many factors")
        return super().fit(data, run)


@pytest.fixture
def settings(
    broker: KafkaProcess, prefix: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Settings:
    monkeypatch.setattr(models, "model_class", lambda name: Fragile)
    monkeypatch.setattr(tuning, "model_class", lambda name: Fragile)
    # Nearly no confidence in what was taken: a bad place to begin.
    parameters = {"factors": 2, "iterations": 3, "alpha": 1e-4}
    made = settings_for(broker.bootstrap, prefix, tmp_path, model="fragile", parameters=parameters)
    send(made, taste(800))
    return made


def test_it_finds_better_parameters_and_goes_on_where_it_was_left(settings: Settings) -> None:
    told: list[tuple[str, int, int]] = []
    first = tune(settings, 4, progress=lambda *stage: told.append(stage))
    assert first.trials + first.failed == 4
    assert first.first_ndcg is not None
    assert first.best_ndcg >= first.first_ndcg > 0
    assert set(first.best) == {"factors", "iterations", "alpha"}
    assert first.best["iterations"] == 3
    assert first.queries >= 50
    assert [step for step in told if step[0] == "trials"] == [
        ("trials", done, 4) for done in range(5)
    ]
    # What has come meanwhile is not read: the trials are on one and the same window.
    send(settings, taste(400, start=800))
    again = tune(settings, 6)
    assert again.trials + again.failed == 10
    assert again.queries == first.queries
    assert again.first_ndcg == first.first_ndcg
    assert again.best_ndcg >= max(first.best_ndcg, 1.1 * first.first_ndcg)
    anew = tune(settings, 1, fresh=True)
    assert anew.trials == 1
    assert anew.best == settings.trainer.parameters
    assert not list((Path(settings.data_dir) / "tune").glob(".candidate-*"))


def test_a_trial_that_fails_is_passed_over(settings: Settings) -> None:
    trainer = msgspec.structs.replace(settings.trainer, parameters={"factors": 11})
    broken = msgspec.structs.replace(settings, trainer=trainer)
    with pytest.raises(TuneError, match="every trial failed"):
        tune(broken, 1)
    found = tune(broken, 4)
    assert found.failed >= 1
    assert found.first_ndcg is None
    assert found.best["factors"] <= 10


def test_what_cannot_be_tuned_is_said(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    trainer = msgspec.structs.replace(settings.trainer, gate_min_events=5000)
    with pytest.raises(TuneError, match="5000 are needed"):
        tune(msgspec.structs.replace(settings, trainer=trainer), 1)
    monkeypatch.setattr(Fragile, "space", {})
    with pytest.raises(TuneError, match="the model fragile declares nothing to tune"):
        tune(settings, 1)
