"""What the rows on the split of "Neural Collaborative Filtering" (WWW 2017) have in common."""

from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from benchmarks.paper_rows.row import DATA
from rheos.generation import Generation
from rheos.snapshot_store import LocalStore
from trainer import fitting
from trainer.evaluation import split
from trainer.models.model import Model, Run, silent

FOLDER = "ncf-ml-1m"
K = 10
STORE, USERS = "generations", "user_vectors.npy"


def train(model: Model, folder: Path, seed: int, threads: int) -> dict[str, Any]:
    """Leaves the model's generation and its fitted user vectors in ``folder``; tells settings."""
    data = split.read_ncf(DATA / FOLDER).train
    fitted = fitting.fit(model, data, Run(seed=seed, threads=threads))
    LocalStore(folder / STORE).put(*fitting.make(1, model, fitted, data, {}))
    np.save(folder / USERS, fitted.user_vectors)
    return {"model": model.name, "parameters": msgspec.to_builtins(model)}


def evaluate(folder: Path) -> dict[str, float]:
    """Reads what ``train`` left there."""
    store = LocalStore(folder / STORE)
    (name,) = store.names()
    given = split.read_ncf(DATA / FOLDER)
    vectors = np.load(folder / USERS)
    found = split.judge(given, Generation(store.get(name)), vectors, K, silent)
    return {"hr@10": found.hr, "ndcg@10": found.ndcg}
