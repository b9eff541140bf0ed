"""How fast do our models learn, beside others' implementations of the same?

    python benchmarks/training_speed.py [--json]

LightGCN against PyTorch Geometric's, ALS against implicit's, NeuMF against a plain PyTorch loop,
in the same process on one thread: seconds a step (sweep, epoch) on Gowalla, and seconds to equal
quality (Recall@20, 98 % of the lower one of both ends) on Last.fm. All seconds are of the CPU, so
that other work on the machine counts little. Also: the bytes that a propagation has to move against
what a copy of a large array moves in the same time. Data: ../shared/data. Peers: the extra
``peers``; without one its part is left out, and said to be.

Bias: the peers run as their documentation has them; batches, rates and draws are ours. The claim is
about PyG's LightGCN on a list of edges, which is what its class takes; handed a compressed
adjacency instead, it is far faster, and that ratio is printed beside, without a claim.
"""

import importlib.util
import statistics
import sys
import time
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch
from msgspec import structs
from threadpoolctl import threadpool_limits
from torch import Tensor

if __package__ in (None, ""):
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks import graph_splits, training_peers
from benchmarks.graph_splits import Split
from benchmarks.paper_rows.row import DATA
from benchmarks.report import arguments, finish, note
from rheos.neumf_ranker import NeumfRanker
from rheos.state import Float32s
from trainer.device import device_of
from trainer.models.als import Als
from trainer.models.interaction_graph import graph_of
from trainer.models.lightgcn import REPORT, LightGCN
from trainer.models.model import Run
from trainer.models.neumf import NeuMF
from trainer.models.propagation import adjacency_on, propagate

LEAST_RATIO = 5.0
LARGE = LightGCN(
    steps=2 * REPORT, batch=2048, negatives=1, learning_rate=0.001, regularisation=1e-4
)
"""The paper's own settings: the second half of the steps is timed on Gowalla, without set-up."""
SMALL = LightGCN(steps=4 * REPORT, batch=4096, negatives=1, learning_rate=0.03, regularisation=1e-4)
SWEEPS, FEW_SWEEPS = 3, (1, 2, 4, 8)
EPOCHS = (3, 6, 9)
USERS = 400
"""So many users judge the quality."""

Point = tuple[float, float]
"""Seconds of the CPU so far, and Recall@20 there."""


def median(values: Iterable[float]) -> float:
    return round(statistics.median(values), 4)


def differences(moments: list[float]) -> list[float]:
    return [after - before for before, after in pairwise(moments)]


def equal_quality(ours: list[Point], theirs: list[Point]) -> dict[str, Any]:
    """Seconds of both to 98 % of the lower one of the best recalls."""
    target = 0.98 * min(max(recall for _, recall in curve) for curve in (ours, theirs))
    first = [
        next(seconds for seconds, recall in curve if recall >= target) for curve in (ours, theirs)
    ]
    return {
        "recall@20": round(target, 4),
        "ours_seconds": round(first[0], 2),
        "theirs_seconds": round(first[1], 2),
        "ratio": round(first[1] / first[0], 2),
    }


def recall(split: Split, score: Callable[[np.ndarray], Float32s]) -> float:
    return graph_splits.ranking(split, split.tested(USERS), score)["recall@20"]


def recall_of_nodes(split: Split, vectors: Float32s) -> float:
    items = vectors[len(split.train.user_ids) :]
    return recall(split, lambda batch: vectors[batch] @ items.T)


def lightgcn(large: Split, small: Split) -> dict[str, Any]:
    note("LightGCN: ours")
    moments: list[float] = []
    LARGE.watched(large.train, Run(), lambda *_: moments.append(time.process_time()))
    step = round(differences(moments)[0] / REPORT, 4)
    graph = graph_of(small.train)
    curve: list[Point] = []
    spent, began = 0.0, time.process_time()
    with ThreadPoolExecutor(1) as pool:
        adjacency = adjacency_on(torch.device("cpu"), graph.normalised(), pool, 1)

        def look(done: int, embeddings: Tensor) -> None:
            nonlocal spent, began
            spent += time.process_time() - began
            vectors = propagate(adjacency, embeddings, SMALL.layers).numpy()
            curve.append((spent, recall_of_nodes(small, vectors)))
            began = time.process_time()

        SMALL.watched(small.train, Run(), look)
    outcome: dict[str, Any] = {"step_seconds": step}
    if importlib.util.find_spec("torch_geometric") is None:
        return {**outcome, "peer": "torch_geometric is not installed: pip install 'rheos[peers]'"}
    for name, compressed, steps in (("edges", False, 3), ("compressed", True, 4)):
        note(f"LightGCN: PyTorch Geometric, {name}")
        loop = training_peers.pyg_lightgcn(graph_of(large.train), LARGE, compressed=compressed)
        theirs = [_seconds(lambda loop=loop: next(loop)) for _ in range(steps)][1:]
        outcome[f"pyg_{name}_step_seconds"] = median(theirs)
        outcome[f"pyg_{name}_ratio"] = round(median(theirs) / step, 1)
    loop = training_peers.pyg_lightgcn(graph, SMALL, compressed=True)
    other: list[Point] = []
    spent = 0.0
    for done in range(1, SMALL.steps + 1):
        began = time.process_time()
        vectors = next(loop)
        spent += time.process_time() - began
        if done % REPORT == 0:
            other.append((spent, recall_of_nodes(small, vectors.numpy())))
    return {**outcome, "to_equal_quality": equal_quality(curve, other)}


def bandwidth(large: Split) -> dict[str, Any]:
    """Of one product with LARGE's adjacency: what it moves at least, and what it asks for."""
    device, graph = device_of("auto"), graph_of(large.train)
    nodes, d = graph.user_count + graph.item_count, LARGE.factors
    x = torch.randn(nodes, d, device=device)
    source = torch.ones(1 << 26, device=device)
    target = torch.empty_like(source)

    def seconds(work: Callable[[], Any]) -> float:
        """The median of seven, on a GPU of wall time until it is done."""
        if device.type == "cpu":
            work()
            return statistics.median(_seconds(work) for _ in range(7))
        taken = []
        for _ in range(8):
            torch.cuda.synchronize()
            began = time.perf_counter()
            work()
            torch.cuda.synchronize()
            taken.append(time.perf_counter() - began)
        return statistics.median(taken[1:])

    with ThreadPoolExecutor(1) as pool:
        adjacency = adjacency_on(device, graph.normalised(), pool, 1)
        product = seconds(lambda: adjacency.times(x))
    # Read and written, as STREAM counts a copy.
    peak = 2 * source.nbytes / seconds(lambda: target.copy_(source))
    edges = 2 * len(graph.users)
    once = edges * 8 + 2 * nodes * d * 4  # indices and values, then x and the product once each
    asked = edges * (8 + d * 4) + nodes * d * 4  # a row of x for each non-zero
    return {
        "device": str(device),
        "product_seconds": round(product, 5),
        "copy_gigabytes_a_second": round(peak / 1e9, 1),
        "fraction_of_peak_at_least": round(once / product / peak, 3),
        "fraction_of_peak_asked_for": round(asked / product / peak, 3),
    }


def als(large: Split, small: Split) -> dict[str, Any]:
    note("ALS")
    moments: list[float] = []
    model = Als(iterations=SWEEPS + 1)
    model.fit(large.train, Run(progress=lambda *_: moments.append(time.process_time())))
    outcome: dict[str, Any] = {"sweep_seconds": median(differences(moments))}
    if importlib.util.find_spec("implicit") is None:
        return {**outcome, "peer": "implicit is not installed: pip install 'rheos[peers]'"}
    # Ours: α (1 + ln(1 + n)) of n interactions; here every pair stands once.
    sizes: dict[str, Any] = {
        "factors": model.factors,
        "confidence": model.alpha * (1 + np.log(2)),
        "regularisation": model.regularisation,
    }
    _, _, seconds = training_peers.implicit_als(large.had, **sizes, sweeps=SWEEPS + 1)
    outcome |= {"implicit_sweep_seconds": median(seconds[1:])}
    outcome["ratio"] = round(outcome["implicit_sweep_seconds"] / outcome["sweep_seconds"], 2)
    ours, theirs = [], []
    for sweeps in FEW_SWEEPS:
        began = time.process_time()
        fitted = Als(iterations=sweeps).fit(small.train, Run())
        spent = time.process_time() - began
        x, y = fitted.user_vectors, fitted.item_vectors
        ours.append((spent, recall(small, lambda batch, x=x, y=y: x[batch] @ y.T)))
        began = time.process_time()
        x, y, _ = training_peers.implicit_als(small.had, **sizes, sweeps=sweeps)
        spent = time.process_time() - began
        theirs.append((spent, recall(small, lambda batch, x=x, y=y: x[batch] @ y.T)))
    return {**outcome, "to_equal_quality": equal_quality(ours, theirs)}


def neumf(small: Split) -> dict[str, Any]:
    note("NeuMF")
    model = NeuMF(gmf_epochs=0, mlp_epochs=0, negatives=4, learning_rate=0.02)
    ours: list[Point] = []
    epochs: list[float] = []
    for count in EPOCHS:
        moments: list[float] = []
        began = time.process_time()
        fitted = structs.replace(model, epochs=count).fit(
            small.train, Run(progress=lambda *_, m=moments: m.append(time.process_time()))
        )
        spent = moments[-1] - began  # without what makes it serve, which the plain loop does not
        epochs += differences(moments)
        assert fitted.ranker is not None
        tensors = {**fitted.tensors, "item_vectors": fitted.item_vectors}
        ranker = NeumfRanker.load(fitted.ranker, tensors)
        rows, vectors = np.arange(len(fitted.item_ids)), fitted.user_vectors

        def score(
            batch: np.ndarray,
            ranker: NeumfRanker = ranker,
            rows: np.ndarray = rows,
            vectors: Float32s = vectors,
        ) -> Float32s:
            return np.stack([ranker.score(vectors[user], rows) for user in batch])

        ours.append((spent, recall(small, score)))
    graph = graph_of(small.train)
    torch.manual_seed(0)
    network = training_peers.PlainNeuMF(
        *(graph.user_count, graph.item_count),
        *(model.factors, model.mlp_factors, model.mlp_layers),
    )
    loop = training_peers.plain_neumf(graph, network, batch=512, negatives=4, rate=0.005)
    theirs: list[Point] = []
    plain: list[float] = []
    for _ in range(EPOCHS[-1]):
        began = time.process_time()
        scored = next(loop)
        plain.append(time.process_time() - began)
        theirs.append((sum(plain), recall(small, scored)))
    return {
        "epoch_seconds": median(epochs),
        "plain_epoch_seconds": median(plain),
        "ratio": round(median(plain) / median(epochs), 1),
        "to_equal_quality": equal_quality(ours, theirs),
    }


def _seconds(work: Callable[[], Any]) -> float:
    began = time.process_time()
    work()
    return time.process_time() - began


def main() -> int:
    options = arguments(__doc__)
    if not (DATA / "gowalla").is_dir() or not (DATA / "lastfm").is_dir():
        note(f"the data of this benchmark is not here: {DATA}/gowalla and {DATA}/lastfm")
        return 2
    torch.set_num_threads(1)
    with threadpool_limits(1):
        large, small = graph_splits.gowalla(), graph_splits.lastfm()
        outcome = {
            "lightgcn": lightgcn(large, small),
            "propagation": bandwidth(large),
            "als": als(large, small),
            "neumf": neumf(small),
        }
    claims = {}
    ratio = outcome["lightgcn"].get("pyg_edges_ratio")
    if ratio is not None:
        claim = f"a step of LightGCN is {LEAST_RATIO:g} times as fast as PyG's as its class has it"
        claims[claim] = ratio >= LEAST_RATIO
    return finish("training_speed", outcome, claims, as_json=options.json)


if __name__ == "__main__":
    sys.exit(main())
