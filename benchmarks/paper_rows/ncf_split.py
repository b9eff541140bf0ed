"""What the rows on the split of "Neural Collaborative Filtering" (WWW 2017) have in common."""

import csv
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from benchmarks import movielens_1m
from benchmarks.paper_rows.row import DATA, PaperRow, at_least
from rheos.generation import Generation
from rheos.settings import Settings
from rheos.snapshot import Snapshot
from rheos.snapshot_store import LocalStore
from trainer import fitting
from trainer.data_set import DataSet, of_interactions
from trainer.evaluation import metrics, split
from trainer.models.model import Model, Run, silent

FOLDER = "ncf-ml-1m"
ITEM_MAP = DATA / FOLDER / "item_map.csv"
K = 10
UNDAMPED = 1e9
AT_ONCE = 64
"""Histories of any length, encoded together."""
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
    generation, vectors = Generation(_snapshot(folder)), np.load(folder / USERS)
    found = split.judge(split.read_ncf(DATA / FOLDER), generation, vectors, K, silent)
    return {"hr@10": found.hit_rate, "ndcg@10": found.ndcg}


def evaluate_as_served(folder: Path) -> dict[str, float]:
    """The same with the vectors that would serve, folded in from the users' histories.

    The split does not say when its interactions were. MovieLens' own file does, here for half of
    the users; the others have their fitted vectors.
    """
    generation, vectors = Generation(_snapshot(folder)), np.load(folder / USERS)
    given = split.read_ncf(DATA / FOLDER)
    fitted = split.judge(given, generation, vectors, K, silent)
    timed = _timed(given.train)
    row_of = {user: row for row, user in enumerate(given.train.user_ids)}
    for span, histories in timed.histories(AT_ONCE):
        rows = [row_of[user] for user in timed.user_ids[span]]
        vectors[rows] = generation.encoder.encode(histories)
    found = split.judge(given, generation, vectors, K, silent)
    return {
        "hr@10": found.hit_rate,
        "ndcg@10": found.ndcg,
        "users folded in": len(timed.user_ids),
        "hr@10, fitted vectors": fitted.hit_rate,
        "ndcg@10, fitted vectors": fitted.ndcg,
    }


def _snapshot(folder: Path) -> Snapshot:
    store = LocalStore(folder / STORE)
    (name,) = store.names()
    return store.get(name)


def _timed(data: DataSet) -> DataSet:
    """The interactions, with their times, of the users of whom all times are known."""
    with ITEM_MAP.open(encoding="utf-8") as lines:
        item_of = {row["movie_id"]: row["ncf_item"] for row in csv.DictReader(lines)}
    # The split numbers users from 0, in MovieLens' order.
    times_of = {
        (str(int(rating.user) - 1), item_of[rating.movie]): rating.time_ms
        for rating in movielens_1m.ratings()
    }
    users = [data.user_ids[row] for row in data.users.tolist()]
    items = [data.item_ids[row] for row in data.items.tolist()]
    times = [times_of.get(pair) for pair in zip(users, items, strict=True)]
    cut_short = {user for user, time in zip(users, times, strict=True) if time is None}
    rows = [row for row, user in enumerate(users) if user not in cut_short]
    return of_interactions(
        [users[row] for row in rows],
        [items[row] for row in rows],
        [times[row] or 0 for row in rows],
    )


def row(
    name: str,
    model: Model,
    described: str,
    *,
    hr_10: float,
    ndcg_10: float,
    evaluate: Callable[[Path], dict[str, float]] = evaluate,
    most_seconds: float | None = None,
) -> PaperRow:
    """The row of ``model``, which owes at least ``hr_10`` and ``ndcg_10``."""

    def trained(folder: Path, *, seed: int, threads: int) -> dict[str, Any]:
        return train(model, folder, seed, threads)

    return PaperRow(
        name=name,
        data=FOLDER,
        split="ML-1M, one item a user held out, among 99 sampled ones (He et al. 2017)",
        model=described,
        train=trained,
        evaluate=evaluate,
        shortfalls=at_least(hr_10=hr_10, ndcg_10=ndcg_10),
        most_seconds=most_seconds,
    )


def served(
    folder: Path, history: int | None = None, *, in_time: bool = False
) -> dict[str, float | int | None]:
    """The same through the path that serves, encoder, retrieval to a depth and ranker, beside the
    fitted vectors of the same users.

    Users are encoded from ``history`` of their interactions, or all, none of them damped: they have
    no times. Or ``in_time``: those of whom times are known, from their latest, damped as the model
    has it. As many items are retrieved for the ranker as the settings say. What retrieval leaves
    behind stands below all that the ranker saw.
    """
    depth = Settings().retrieval.vector_depth
    snapshot, given = _snapshot(folder), split.read_ncf(DATA / FOLDER)
    data = _timed(given.train) if in_time else given.train
    asked = given._replace(candidates={user: given.candidates[user] for user in data.user_ids})
    fitted = split.judge(asked, Generation(snapshot), np.load(folder / USERS), K, silent)
    size = len(snapshot.item_ids) if history is None else history
    snapshot.manifest.encoder["last"] = size
    if not in_time:
        snapshot.manifest.encoder["half_steps"] = UNDAMPED
    generation = Generation(snapshot)
    assert generation.ranker is not None
    begins, better, tied = data.begins(), [], []
    for row, user in enumerate(data.user_ids):
        span = slice(int(begins[row]), int(begins[row + 1]))
        kept = slice(max(span.start, span.stop - size), span.stop)
        vector = generation.encoder.encode([data.history(kept)])[0]
        scores = generation.item_vectors @ vector[: generation.dimensions]
        had = [generation.row_of[item] for item in data.history(span).item_ids]
        scores[had] = -np.inf
        reached = np.argpartition(-scores, depth)[:depth]
        scores -= 1e6
        scores[reached] = generation.ranker.score(vector, reached)
        rows = np.array([generation.row_of.get(item, -1) for item in given.candidates[user]])
        of_candidates = np.where(rows >= 0, scores[rows], -np.inf)
        above, beside = metrics.compare(of_candidates, 0)
        better.append(above)
        tied.append(beside)
    found = metrics.of_targets(better, tied, K)
    return {
        "users": len(data.user_ids),
        "depth": depth,
        "history": history,
        "hr@10_fitted": fitted.hit_rate,
        "hr@10": found.hit_rate,
        "ndcg@10": found.ndcg,
        "kept": round(found.hit_rate / fitted.hit_rate, 4),
    }
