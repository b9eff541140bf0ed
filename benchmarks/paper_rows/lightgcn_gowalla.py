"""LightGCN on Gowalla (He et al. 2020, table 4): K = 3, d = 64, full ranking.

How fast it learns is told beside: the embeddings are left at moments of the training, and
evaluating makes the curve. The fold-in is judged on Last.fm, where two trainings take seconds:
users held out of one training are folded in, and held against the vectors that the other, which
had them, gave them.
"""

import json
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import torch

from benchmarks import graph_splits
from benchmarks.paper_rows.row import PaperRow, at_least
from rheos.encoder import EncoderContext
from rheos.history_map import HistoryMap
from rheos.state import Float32s
from trainer.device import device_of
from trainer.models.interaction_graph import graph_of
from trainer.models.lightgcn import LightGCN
from trainer.models.model import Run
from trainer.models.propagation import adjacency_on, propagate

MODEL = LightGCN(
    steps=3600,
    batch=32_768,
    negatives=8,
    learning_rate=0.015,
    regularisation=1e-3,
    half_steps=1e6,
    last=1000,
)
"""The paper's loss, layers and length. Of eight negatives the hardest counts, and λ is ten times
the paper's: chosen on a tenth of the training edges. One negative wants many times the steps.
"""
SMALL = LightGCN(half_steps=1e6, last=1000)
MOMENTS = 8
"""The embeddings are left so often; the curve has one point each."""
CURVE_USERS = 3000
"""So many users make a point of the curve: its standard error is about .003."""
HELD_OUT = 0.2
"""Share of Last.fm's users that the second training does not see."""


def train(folder: Path, *, seed: int, threads: int) -> dict[str, Any]:
    curve: list[dict[str, float]] = []
    every = MODEL.steps // MOMENTS
    wall, cpu = time.perf_counter(), time.process_time()

    def leave(done: int, embeddings: torch.Tensor) -> None:
        if done % every and done != MODEL.steps:
            return
        moment = {
            "steps": done,
            "wall_seconds": round(time.perf_counter() - wall, 1),
            "cpu_seconds": round(time.process_time() - cpu, 1),
        }
        np.save(folder / f"embeddings.{done}.npy", embeddings.cpu().numpy())
        curve.append(moment)
        (folder / "curve.json").write_text(json.dumps(curve), "utf-8")

    run = Run(seed=seed, threads=threads, device="auto")
    MODEL.watched(graph_splits.gowalla().train, run, leave)
    _fold_in_pair(folder, run)
    return {"device": str(device_of("auto")), "settings": msgspec.to_builtins(MODEL)}


def evaluate(folder: Path) -> dict[str, Any]:
    split = graph_splits.gowalla()
    users, some = split.tested(), split.tested(CURVE_USERS)
    curve = json.loads((folder / "curve.json").read_text("utf-8"))
    figures: dict[str, float] = {}
    for moment in curve:
        embeddings = np.load(folder / f"embeddings.{moment['steps']}.npy")
        vectors = _propagated(split, embeddings)
        moment |= _figures(split, some, vectors)
        if moment is curve[-1]:
            figures = _figures(split, users, vectors)
    return {**figures, "curve": curve, "fold_in_on_lastfm": _fold_in_figures(folder)}


def _propagated(split: graph_splits.Split, embeddings: Float32s) -> Float32s:
    edges = graph_of(split.train).normalised()
    with ThreadPoolExecutor(1) as pool:
        adjacency = adjacency_on(torch.device("cpu"), edges, pool, 1)
        return propagate(adjacency, torch.from_numpy(embeddings), MODEL.layers).numpy()


def _fold_in_pair(folder: Path, run: Run) -> None:
    """Leaves the vectors of held-out users: folded in, and fitted by a training that had them."""
    split = graph_splits.lastfm()
    users = split.tested(int(HELD_OUT * len(split.train.user_ids)))
    fitted = SMALL.fit(split.train, run)
    without = SMALL.fit(split.without(users), run)
    row_of = {item: row for row, item in enumerate(without.item_ids)}
    context = EncoderContext(row_of, without.item_vectors)
    encoder = HistoryMap.load(without.encoder, without.tensors, context)
    arrays = {
        "users": users,
        "fitted": fitted.user_vectors[users],
        "fitted_items": fitted.item_vectors,
        "folded": encoder.encode(split.histories(users)),
        "folded_items": without.item_vectors,
    }
    for name, array in arrays.items():
        np.save(folder / f"fold_in.{name}.npy", array)


def _fold_in_figures(folder: Path) -> dict[str, float]:
    split = graph_splits.lastfm()
    users = np.load(folder / "fold_in.users.npy")
    place = np.zeros(len(split.train.user_ids), np.int64)
    place[users] = np.arange(len(users))

    def recall(name: str) -> float:
        vectors = np.load(folder / f"fold_in.{name}.npy")
        items = np.load(folder / f"fold_in.{name}_items.npy")
        ranked = graph_splits.ranking(split, users, lambda batch: vectors[place[batch]] @ items.T)
        return ranked["recall@20"]

    fitted, folded = recall("fitted"), recall("folded")
    return {
        "users": len(users),
        "fitted_recall@20": round(fitted, 4),
        "folded_recall@20": round(folded, 4),
        "share": round(folded / fitted, 4),
    }


def _figures(split: graph_splits.Split, users: np.ndarray, vectors: Float32s) -> dict[str, float]:
    """Of fitted vectors (U + N, d)."""
    count = len(split.train.user_ids)
    found = graph_splits.ranking(split, users, lambda batch: vectors[batch] @ vectors[count:].T)
    return {name: round(value, 4) for name, value in found.items()}


ROW = PaperRow(
    name="lightgcn-gowalla",
    data="gowalla",
    split="Gowalla, the LightGCN paper's split, full ranking",
    model="LightGCN, 3 layers, d = 64",
    train=train,
    evaluate=evaluate,
    shortfalls=at_least(recall_20=0.1820, ndcg_20=0.1545),
)
