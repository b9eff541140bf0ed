"""What the rows on the split of "Neural Collaborative Filtering" (WWW 2017) have in common."""

from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from benchmarks.paper_rows.row import DATA
from rheos.generation import Generation
from rheos.settings import Settings
from rheos.snapshot_store import LocalStore
from trainer import fitting
from trainer.evaluation import metrics, split
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
    return {"hr@10": found.hit_rate, "ndcg@10": found.ndcg}


def served(folder: Path, history: int | None = None) -> dict[str, Any]:
    """The same through the path that serves: encoder, retrieval to a depth, ranker.

    Users are encoded from ``history`` of their interactions, which have no times here, or all; as
    many items are retrieved for the ranker as the settings say. What retrieval leaves behind stands
    below all that the ranker saw.
    """
    depth = Settings().retrieval.vector_depth
    store = LocalStore(folder / STORE)
    (name,) = store.names()
    snapshot = store.get(name)
    size = len(snapshot.item_ids) if history is None else history
    snapshot.manifest.encoder["last"] = size
    generation, given = Generation(snapshot), split.read_ncf(DATA / FOLDER)
    assert generation.ranker is not None
    data, begins, better, tied = given.train, given.train.begins(), [], []
    for row, user in enumerate(data.user_ids):
        span = slice(int(begins[row]), int(begins[row + 1]))
        kept = slice(max(span.start, span.stop - size), span.stop)
        vector = generation.encoder.encode([data.history(kept)])[0]
        scores = generation.item_vectors @ vector[: generation.dimensions]
        scores[data.items[span]] = -np.inf
        reached = np.argpartition(-scores, depth)[:depth]
        scores -= 1e6
        scores[reached] = generation.ranker.score(vector, reached)
        rows = np.array([generation.row_of.get(item, -1) for item in given.candidates[user]])
        of_candidates = np.where(rows >= 0, scores[rows], -np.inf)
        above, beside = metrics.compare(of_candidates, 0)
        better.append(above)
        tied.append(beside)
    found = metrics.of_targets(better, tied, K)
    return {"hr@10": found.hit_rate, "ndcg@10": found.ndcg, "depth": depth, "history": history}
