"""LightGCN: embeddings smoothed over the graph of users and items, and nothing else.

He, Deng, Wang, Li, Zhang & Wang, "LightGCN: Simplifying and Powering Graph Convolution Network for
Recommendation" (SIGIR 2020): propagation eq. 3, layers eq. 4, loss eq. 15.
"""

from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Annotated, ClassVar

import numpy as np
import torch
from msgspec import Meta, Struct
from torch import Tensor

from rheos.state import Float32s
from trainer.data_set import DataSet
from trainer.device import device_of, torch_threads
from trainer.distributed import add_up, processes, rank
from trainer.models.interaction_graph import InteractionGraph, graph_of
from trainer.models.model import Capability, Fitted, Run
from trainer.models.propagation import Adjacency, adjacency_on, layers, propagate
from trainer.models.triples import Draws, bpr
from trainer.search_space import Range
from trainer.validation import Score, Validation

BLOCK = 8192
"""On a CPU so many triples at once: their three (8192, 64) float32 matrices stay in the cache."""
WARM_RATE = 0.5
"""A fit that starts from the last one begins with so much of the learning rate."""
LAST_RATE = 0.05
"""The learning rate falls to this share: large steps early, small ones at the end."""
REPORT = 50
"""Steps from one report of progress to the next; on a GPU only there the host waits."""
BATCHES, LEAST_BATCH = 16, 1024
"""By default so many steps draw as many triples as there are edges, and a step so many at least:
propagation and draws then both take a time that follows the edges.
"""
RIDGE = 1e-2
"""Of the encoder's regression, as a share of the mean diagonal."""


class LightGCN(Struct, frozen=True, forbid_unknown_fields=True):
    """Minimises -ln σ(ŷᵤᵢ - ŷᵤⱼ) + λ/2 |E|² (eq. 15) over users, their items i and others j.

    A pair is an edge of the graph where its mean weight is above 0. Each step draws users, an item
    of each and one that she does not have, and propagates once for all of them.
    """

    factors: Annotated[int, Meta(ge=1, le=1024, description="Length d of the vectors.")] = 64
    layers: Annotated[int, Meta(ge=0, le=10, description="Layers K of the propagation.")] = 3
    steps: Annotated[int, Meta(ge=1, description="Steps of the optimiser.")] = 200
    warm_steps: Annotated[
        int, Meta(ge=1, description="Steps where a fit starts from the last one.")
    ] = 100
    batch: Annotated[
        int,
        Meta(
            ge=0,
            description="Users drawn for a step, an item of each;"
            " 0: a sixteenth of the edges, 1,024 at least.",
        ),
    ] = 0
    negatives: Annotated[
        int,
        Meta(ge=1, le=1000, description="Items drawn against each; the hardest counts. Paper: 1."),
    ] = 8
    learning_rate: Annotated[float, Meta(gt=0, description="Adam's step at the start.")] = 0.03
    regularisation: Annotated[
        float, Meta(ge=0, description="λ, on the embeddings before any propagation.")
    ] = 3e-3
    patience: Annotated[
        int,
        Meta(ge=0, le=1000, description="Early stopping: reports without a gain; 0: none."),
    ] = 0
    half_steps: Annotated[
        float, Meta(gt=0, description="Encoder: items after which a history's weight halves.")
    ] = 8.0
    last: Annotated[
        int, Meta(ge=1, le=10_000, description="Encoder: latest distinct items that it reads.")
    ] = 100

    name: ClassVar[str] = "lightgcn"
    can: ClassVar[frozenset[Capability]] = frozenset(
        {"item_vectors", "fold_in", "explain", "warm_start", "distributed"}
    )
    space: ClassVar[Mapping[str, Range]] = {
        "factors": Range(16, 256, log=True),
        "layers": Range(1, 4),
        "steps": Range(100, 2000, log=True),
        "negatives": Range(1, 32, log=True),
        "learning_rate": Range(0.003, 0.1, log=True),
        "regularisation": Range(1e-5, 3e-2, log=True),
        "half_steps": Range(1.0, 50.0, log=True),
    }

    def fit(self, data: DataSet, run: Run) -> Fitted:
        return self.watched(data, run, lambda done, embeddings: None)

    def watched(self, data: DataSet, run: Run, watch: Callable[[int, Tensor], None]) -> Fitted:
        """``fit`` that shows steps done and the embeddings E (U + N, d) at each report.

        ``watch`` copies what it wants to keep.
        """
        device, users = device_of(run.device), len(data.user_ids)
        random = np.random.default_rng(run.seed)
        validation = Validation[Tensor](data, self.patience, run.start, random)
        graph = graph_of(validation.train)
        steps = self.steps if run.start is None else self.warm_steps
        with torch_threads(run.threads), ThreadPoolExecutor(max(1, run.threads)) as pool:
            adjacency = adjacency_on(device, graph.normalised(), pool, run.threads)
            embeddings = torch.nn.Parameter(torch.from_numpy(self._start(data, run)).to(device))

            def scores() -> Score:
                vectors = propagate(adjacency, embeddings, self.layers).detach().cpu().numpy()
                return lambda rows: vectors[rows] @ vectors[users:].T

            for done, loss in self._train(embeddings, adjacency, graph, run, steps):
                validation.check(loss)
                run.progress("fit", done, steps)
                watch(done, embeddings.detach())
                if validation.ends(done, scores, lambda: embeddings.detach().clone()):
                    break
            run.progress("fit", steps, steps)
            best = embeddings if validation.best is None else validation.best
            made = [part.cpu().numpy() for part in layers(adjacency, best, self.layers)]
        return self._fitted(data, graph, made)._replace(curve=validation.curve())

    def _start(self, data: DataSet, run: Run) -> Float32s:
        """The last fit's embeddings where there are any, normal numbers elsewhere."""
        random = np.random.default_rng(run.seed)
        users = random.normal(0, 0.1, (len(data.user_ids), self.factors)).astype(np.float32)
        items = random.normal(0, 0.1, (len(data.item_ids), self.factors)).astype(np.float32)
        if run.start is not None:
            run.start.carry("user.embeddings", data.user_ids, users)
            run.start.carry("item.embeddings", data.item_ids, items)
        return np.concatenate([users, items])

    def _train(
        self,
        embeddings: torch.nn.Parameter,
        adjacency: Adjacency,
        graph: InteractionGraph,
        run: Run,
        steps: int,
    ) -> Iterator[tuple[int, float]]:
        """Trains; yields how many steps are done and the mean loss since the last report, each
        REPORT ones and at the end. On a GPU everything stays there in between.
        """
        device = embeddings.device
        draws = Draws(graph, device, torch.Generator(device).manual_seed(run.seed + rank()))
        batch = self.batch or max(LEAST_BATCH, len(graph.users) // BATCHES)
        share = -(-batch // processes())  # this process's part of a batch
        block = BLOCK if device.type == "cpu" else share
        # Of a batch's mean an embedding's gradient is about 1e-7: Adam's usual 1e-8 would count.
        rate = self.learning_rate * (1.0 if run.start is None else WARM_RATE)
        optimiser = torch.optim.Adam([embeddings], rate, eps=1e-12, fused=True)
        schedule = torch.optim.lr_scheduler.LinearLR(optimiser, 1.0, LAST_RATE, steps)
        loss, before = torch.zeros((), device=device), 0
        for done in range(1, steps + 1):
            vectors = propagate(adjacency, embeddings, self.layers)  # (U + N, d)
            fixed = vectors.detach()
            gradient = torch.zeros_like(fixed)
            for begin in range(0, share, block):
                count = min(block, share - begin)
                loss += bpr(fixed, draws.draw(count, self.negatives, fixed), gradient)
            add_up([gradient])
            gradient.div_(share * processes())
            (gradient,) = torch.autograd.grad(vectors, [embeddings], gradient)
            # λ/2 |E|² over a triple's nodes, in its expectation: nothing more is drawn for it.
            embeddings.grad = gradient.addcmul_(
                draws.chances, embeddings.detach(), value=self.regularisation
            )
            optimiser.step()
            schedule.step()
            if done % REPORT == 0 or done == steps:
                add_up([loss])  # all go on, or all stop
                yield done, float(loss) / ((done - before) * share * processes())
                loss.zero_()
                before = done

    def _fitted(self, data: DataSet, graph: InteractionGraph, made: list[Float32s]) -> Fitted:
        users = graph.user_count
        vectors: Float32s = np.mean(np.stack(made), axis=0)  # (U + N, d)
        features, matrix = _encoder(graph, made, vectors)
        return Fitted(
            data.item_ids,
            np.ascontiguousarray(vectors[users:]),
            {"kind": "history_map", "half_steps": [self.half_steps], "last": self.last},
            None,
            {"encoder.features": features, "encoder.matrix": matrix},
            vectors[:users],
            keep={"user.embeddings": made[0][:users], "item.embeddings": made[0][users:]},
        )


def _encoder(
    graph: InteractionGraph, made: list[Float32s], vectors: Float32s
) -> tuple[Float32s, Float32s]:
    """Features (N, f) and matrix (1, f, d) of the history map.

    A user's vector is the mean of her own embedding and of Σᵢ (eᵢ⁽⁰⁾ + … + eᵢ⁽ᴷ⁻¹⁾) / √(|u| |i|)
    (eq. 3 and 4). A new user lacks the first part, but that is learned from her items too: so a
    ridge regression on what the second is made of, on the items' vectors and on a 1 gives the
    direction of the fitted users' vectors from their items' means.
    """
    users = graph.user_count
    degrees = np.maximum(graph.item_degrees(), 1)[:, None]
    inner = np.stack(made[: max(1, len(made) - 1)])[:, users:].sum(axis=0)
    ones = np.ones((graph.item_count, 1), np.float32)
    features = np.concatenate(
        [_unit(inner / np.sqrt(degrees)), _unit(vectors[users:]), ones], axis=1, dtype=np.float32
    )  # (N, 2d + 1)
    known = np.flatnonzero(graph.user_degrees())
    x = (graph.means()[known] @ features).astype(np.float64)  # (V, 2d + 1)
    y = vectors[:users][known]
    y = y / np.maximum(np.linalg.norm(y, axis=1, keepdims=True), 1e-12)
    gram = x.T @ x
    ridge = RIDGE * np.trace(gram) / len(gram)
    matrix = np.linalg.solve(gram + ridge * np.eye(len(gram)), x.T @ y)
    return features, matrix.astype(np.float32)[None]


def _unit(vectors: Float32s) -> Float32s:
    """Vectors scaled to a root mean square length of 1: one regularisation suits all parts."""
    scaled: Float32s = vectors / max(float(np.square(vectors).sum(axis=1).mean()) ** 0.5, 1e-12)
    return scaled
