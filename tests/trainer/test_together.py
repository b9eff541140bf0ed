"""Two processes of torchrun fit one model: over gloo, on CPUs."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rheos.announcements import ruling
from rheos.settings import Settings
from tests.trainer.shop import send, settings_for, taste
from tests.trainer.torchrun_program import some_data
from trainer.models import MODELS, model_class, model_of
from trainer.models.model import Run

TORCHRUN = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
PARAMETERS: dict[str, dict[str, Any]] = {
    "lightgcn": {"factors": 8, "steps": 40, "batch": 256},
    "bpr": {"factors": 8, "epochs": 2},
    "gmf": {"factors": 8, "epochs": 2},
    "mlp": {"mlp_factors": 8, "epochs": 2, "dropout": 0.3},
    "neumf": {"factors": 8, "mlp_factors": 8, "epochs": 2, "gmf_epochs": 20},
    # 436 examples: the last batch has one, so that one process has nothing to do.
    "two_tower": {"factors": 8, "hidden": 8, "epochs": 3, "batch": 29, "negatives": 8},
}
"""What makes a fit of the small shop quick, for each model that several processes can fit."""

OWN_DRAWS = {"lightgcn"}
"""Models whose processes draw for themselves; the others share out what one alone would draw."""


def torchrun(*words: str, **environment: str) -> str:
    """What the processes print; waits for them."""
    done = subprocess.run(
        [*TORCHRUN, *words],
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": ".", **environment},
        capture_output=True,
        text=True,
        timeout=900,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_every_model_that_says_so_is_tested_here() -> None:
    assert set(PARAMETERS) == {name for name in MODELS if "distributed" in model_class(name).can}


@pytest.mark.parametrize("name", PARAMETERS)
def test_both_processes_end_with_the_same_model(name: str, tmp_path: Path) -> None:
    parameters = PARAMETERS[name]
    torchrun("tests/trainer/torchrun_program.py", name, json.dumps(parameters), str(tmp_path))
    first, second = (np.load(tmp_path / f"{rank}.npz") for rank in (0, 1))
    np.testing.assert_allclose(first["items"], second["items"], atol=1e-6)
    alone = model_of(name, parameters).fit(some_data(), Run(seed=5, device="cpu"))
    if name not in OWN_DRAWS:  # the sum over two processes is rounded otherwise
        np.testing.assert_allclose(first["items"], alone.item_vectors, atol=5e-3)


def test_a_cycle_is_fitted_by_two_processes_and_published_once(
    broker: Any, prefix: str, tmp_path: Path
) -> None:
    settings: Settings = settings_for(broker.bootstrap, prefix, tmp_path / "data")
    send(settings, taste(600))
    file = tmp_path / "rheos.toml"
    file.write_text(
        f"""
        data_dir = "{settings.data_dir}"
        [kafka]
        bootstrap = "{broker.bootstrap}"
        prefix = "{prefix}"
        events_partitions = 2
        [trainer]
        model = "lightgcn"
        min_events = 300
        gate_min_events = 50
        gate_tolerance = 0.9
        threads = 1
        parameters = {{ factors = 8, steps = 300, batch = 512, learning_rate = 0.02 }}
        """,
        "utf-8",
    )
    outcome = json.loads(torchrun("-m", "trainer.together", RHEOS_CONFIG=str(file)))
    assert outcome["kind"] == "promoted", outcome
    assert outcome["model"] == "lightgcn"
    found = ruling(settings)
    assert found is not None
    assert found.generation == outcome["generation"]


@pytest.mark.parametrize(
    ("environment", "text"),
    [
        ({}, "start this with torchrun"),
        ({"RANK": "0", "RHEOS_TRAINER_MODEL": "als"}, "als is fitted by one process: rheos train"),
        ({"RANK": "0", "RHEOS_TRAINER_MODEL": "mystery"}, "setting trainer.model = 'mystery'"),
    ],
)
def test_a_wrong_start_is_told_in_a_line(environment: dict[str, str], text: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "trainer.together"],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2
    assert text in done.stderr
    assert done.stderr.count("\n") == 1
