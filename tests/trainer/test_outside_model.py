"""A model of an installed package is found, fitted, served and listed like one of ours."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from rheos.generation import Generation
from rheos.settings import SettingsError
from rheos.snapshot_store import LocalStore
from trainer.data_set import of_interactions
from trainer.fitting import fit, make
from trainer.models import known_models, model_class, model_of
from trainer.models.model import Run

PACKAGE = Path(__file__).with_name("outside_model")


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder into which pip has installed the package; no index is asked."""
    folder = tmp_path_factory.mktemp("site")
    options = "--quiet --no-deps --no-build-isolation --disable-pip-version-check --no-index"
    pip = [sys.executable, "-m", "pip", "install", *options.split()]
    subprocess.run([*pip, "--target", str(folder), str(PACKAGE)], check=True)
    return folder


@pytest.fixture
def installed(site: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.syspath_prepend(str(site))
    yield
    sys.modules.pop("rheos_most_taken", None)


@pytest.mark.usefixtures("installed")
def test_it_is_fitted_and_served_from_a_snapshot(tmp_path: Path) -> None:
    data = of_interactions(["a", "a", "b"], ["x", "y", "x"], [1, 2, 3])
    model = model_of("most_taken", {"power": 1.0})
    store = LocalStore(tmp_path)
    name = store.put(*make(1, model, fit(model, data, Run()), data, {}))
    generation = Generation(store.get(name))
    assert generation.manifest.model == "most_taken"
    np.testing.assert_allclose(generation.item_vectors[:, 0], [1.0, 0.5])


@pytest.mark.usefixtures("installed")
def test_a_wrong_parameter_of_it_is_named() -> None:
    with pytest.raises(SettingsError, match=r"trainer\.parameters\.power = -1"):
        model_of("most_taken", {"power": -1})


@pytest.mark.usefixtures("installed")
def test_our_own_names_stay_ours() -> None:
    assert list(known_models())[-1] == "most_taken"
    assert known_models()["als"] == "trainer.models.als:Als"


def test_without_the_package_there_is_no_such_model() -> None:
    with pytest.raises(SettingsError, match="'most_taken': known are als"):
        model_class("most_taken")


def test_the_command_lists_it_among_ours(site: Path) -> None:
    environment = {**os.environ, "PYTHONPATH": str(site), "RHEOS_TRAINER_MODEL": "most_taken"}
    command = [sys.executable, "-m", "rheos.cli", "models", "--json"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    listed = {model["name"]: model for model in json.loads(done.stdout)}
    assert listed["most_taken"]["can"] == ["explain", "fold_in", "item_vectors"]
    assert listed["most_taken"]["chosen"]
    assert "rerank" in listed["neumf"]["can"]


def test_a_package_that_does_not_load_is_told_and_hides_no_other(tmp_path: Path) -> None:
    facts = tmp_path / "broken-1.dist-info"
    facts.mkdir()
    (facts / "METADATA").write_text("Metadata-Version: 2.1\nName: broken\nVersion: 1\n")
    (facts / "entry_points.txt").write_text("[rheos.models]\nbroken = no_such_module:Model\n")
    environment = {**os.environ, "PYTHONPATH": str(tmp_path)}
    command = [sys.executable, "-m", "rheos.cli", "models"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    assert "No module named 'no_such_module'" in done.stdout
    assert "* als" in done.stdout
