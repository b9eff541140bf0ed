"""NeuMF: generalised matrix factorisation and a multi-layer perceptron, fused.

He, Liao, Zhang, Nie, Hu & Chua, "Neural Collaborative Filtering" (WWW 2017): GMF eq. 9, MLP eq. 10,
NeuMF eq. 12, the loss eq. 7, pre-training section 3.4.1.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from itertools import pairwise
from typing import Annotated, ClassVar, NamedTuple

import numpy as np
import torch
from msgspec import Meta, Struct
from torch import Tensor, nn
from torch.nn import functional

from rheos.encoder import EncoderContext
from rheos.history_map import HistoryMap, damped
from rheos.latest_items import LatestItems
from rheos.state import Float32s, Int64s
from trainer.data_set import DataSet, pairs
from trainer.models.model import Fitted, Progress

HALF_STEPS = (1.5, 8.0, 1e6)
"""The recencies of the history map: the last items, the visit, and taste of long standing."""
MAP_HISTORIES = 200_000
MAP_BATCH = 2048
"""So many moments of the users' past teach the map, in batches."""


class NeuMF(Struct, frozen=True, forbid_unknown_fields=True):
    """Minimises the binary cross-entropy of taken items against items drawn at random (eq. 7).

    A pair counts with the size of its mean weight; a pair of negative weight is a target of 0.
    """

    factors: Annotated[
        int, Meta(ge=1, le=512, description="Length d of GMF's vectors, which retrieve.")
    ] = 32
    mlp_factors: Annotated[
        int, Meta(ge=2, le=512, description="Length of MLP's vectors; its first layer has as many.")
    ] = 32
    mlp_layers: Annotated[
        int, Meta(ge=1, le=8, description="Layers of MLP, each half as wide as the one before.")
    ] = 3
    epochs: Annotated[int, Meta(ge=1, le=1000, description="Passes over the interactions.")] = 20
    pretrain_epochs: Annotated[
        int, Meta(ge=0, le=1000, description="Passes for GMF and MLP apart before; 0: none.")
    ] = 0
    negatives: Annotated[
        int, Meta(ge=1, le=100, description="Items drawn at random against each taken one.")
    ] = 4
    batch: Annotated[
        int, Meta(ge=1, description="Interactions a step, the drawn ones not counted.")
    ] = 4096
    learning_rate: Annotated[float, Meta(gt=0, description="Adam's step at the start.")] = 0.004
    regularisation: Annotated[
        float, Meta(ge=0, description="L2 on the vectors of each step's users and items.")
    ] = 1e-6
    last: Annotated[
        int, Meta(ge=1, le=1000, description="Latest distinct items that the encoder reads.")
    ] = 50
    map_epochs: Annotated[
        int, Meta(ge=0, le=1000, description="Passes for the history map after its first solution.")
    ] = 3

    name: ClassVar[str] = "neumf"
    ranks: ClassVar[bool] = True
    explains: ClassVar[bool] = True

    def fit(self, data: DataSet, *, seed: int, threads: int, progress: Progress) -> Fitted:
        with _threads(threads):
            random = torch.Generator().manual_seed(seed)
            examples = _examples(data)
            users, items = len(data.user_ids), len(data.item_ids)
            total = self.epochs + (2 * self.pretrain_epochs) + self.map_epochs
            done = 0

            def train(network: Network, epochs: int) -> None:
                nonlocal done
                for _ in self._epochs(network, examples, epochs, random):
                    done += 1
                    progress("fit", done, total)

            network = Network(self, users, items, random, gmf=True, mlp=True)
            if self.pretrain_epochs:
                parts = [
                    Network(self, users, items, random, gmf=is_gmf, mlp=not is_gmf)
                    for is_gmf in (True, False)
                ]
                for part in parts:
                    train(part, self.pretrain_epochs)
                network.join(*parts)
            train(network, self.epochs)
            past = _past(data, self.last, random)
            matrix = _solve_map(network, past)
            for _ in _tune_map(network, matrix, past, self, random):
                done += 1
                progress("fit", done, total)
            return _fitted(network, data, matrix, self.last)

    def _epochs(
        self, network: "Network", examples: "_Examples", epochs: int, random: torch.Generator
    ) -> Iterator[float]:
        """Trains; yields each epoch's mean loss."""
        optimiser = torch.optim.Adam(network.parameters(), self.learning_rate, fused=True)
        steps = -(-len(examples.users) // self.batch) * epochs
        # To a tenth at the end: large batches want a large step, and the last passes a small one.
        schedule = torch.optim.lr_scheduler.LinearLR(optimiser, 1.0, 0.1, steps)
        for _ in range(epochs):
            order = torch.randperm(len(examples.users), generator=random)
            losses = []
            for picked in torch.split(order, self.batch):
                user, target = examples.users[picked], examples.targets[picked]
                drawn = examples.draw(user, self.negatives, random)  # (B, k)
                item = torch.cat([examples.items[picked][:, None], drawn], 1)  # (B, 1 + k)
                logits, squares = network(user, item)
                aims = torch.zeros_like(logits)
                aims[:, 0] = target
                losses_of = functional.binary_cross_entropy_with_logits(
                    logits, aims, reduction="none"
                )
                loss = (losses_of * examples.weights[picked][:, None]).mean()
                optimiser.zero_grad(set_to_none=True)
                (loss + self.regularisation * squares).backward()
                optimiser.step()
                schedule.step()
                losses.append(loss.detach())
            yield float(torch.stack(losses).mean())


class Network(nn.Module):
    """The GMF branch, the MLP branch, or both: logits of one user's items.

    MLP's first layer is kept in its users' and its items' half, so that a user's half is computed
    once for all items.
    """

    def __init__(
        self,
        shape: NeuMF,
        users: int,
        items: int,
        random: torch.Generator,
        *,
        gmf: bool,
        mlp: bool,
    ) -> None:
        super().__init__()
        self.gmf, self.mlp = gmf, mlp
        width = shape.mlp_factors

        def table(rows: int, columns: int, scale: float) -> nn.Parameter:
            return nn.Parameter(torch.randn(rows, columns, generator=random) * scale)

        self.bias = nn.Parameter(torch.zeros(()))
        if gmf:
            self.p = table(users, shape.factors, 0.05)
            self.q = table(items, shape.factors, 0.05)
            self.h = nn.Parameter(torch.ones(shape.factors))
        if mlp:
            self.user = table(users, width, 0.05)
            self.item = table(items, width, 0.05)
            # The first layer halves the two vectors' 2 * width to width; He's initial scale.
            self.user_half = table(width, width, width**-0.5)
            self.item_half = table(width, width, width**-0.5)
            self.first_bias = nn.Parameter(torch.zeros(width))
            widths = [max(1, width >> layer) for layer in range(shape.mlp_layers)]
            self.weights = nn.ParameterList(
                table(before, after, (2 / before) ** 0.5) for before, after in pairwise(widths)
            )
            self.biases = nn.ParameterList(nn.Parameter(torch.zeros(after)) for after in widths[1:])
            self.out = nn.Parameter(torch.randn(widths[-1], generator=random) * widths[-1] ** -0.5)

    def forward(self, user: Tensor, item: Tensor) -> tuple[Tensor, Tensor]:
        """Logits (B, k) of ``item`` (B, k) for ``user`` (B,), and the users' mean square."""
        p = functional.embedding(user, self.p) if self.gmf else None
        a = functional.embedding(user, self.user) if self.mlp else None
        squares = sum((part.square().sum() for part in (p, a) if part is not None), torch.zeros(()))
        halves = a @ self.user_half if a is not None else None
        return self.score(p, halves, item), squares / len(user)

    def score(self, p: Tensor | None, half: Tensor | None, item: Tensor) -> Tensor:
        """Logits (B, k) from p (B, d) and the users' half (B, m) of MLP's first layer."""
        logits = self.bias.expand(item.shape)
        if p is not None:
            q = functional.embedding(item, self.q)  # (B, k, d)
            logits = logits + torch.matmul(q, (p * self.h)[:, :, None])[:, :, 0]
        if half is not None:
            items = functional.embedding(item, self.item) @ self.item_half  # (B, k, m)
            hidden = torch.relu(items + half[:, None, :] + self.first_bias)
            for weight, bias in zip(self.weights, self.biases, strict=True):
                hidden = torch.relu(hidden @ weight + bias)
            logits = logits + hidden @ self.out
        return logits

    @torch.no_grad()
    def join(self, gmf: "Network", mlp: "Network") -> None:
        """Starts from two trained branches, each with half a say (section 3.4.1, α = .5)."""
        trained = {**dict(gmf.named_parameters()), **dict(mlp.named_parameters())}
        for name, parameter in self.named_parameters():
            parameter.copy_(trained[name])
        self.h.mul_(0.5)
        self.out.mul_(0.5)
        self.bias.copy_((gmf.bias + mlp.bias) / 2)


class _Examples(NamedTuple):
    """Distinct pairs: rows (n,), targets 1 or 0, weights; ``keys`` (n,) ascend: user * N + item."""

    users: Tensor
    items: Tensor
    targets: Tensor
    weights: Tensor
    keys: Tensor
    item_count: int

    def draw(self, users: Tensor, count: int, random: torch.Generator) -> Tensor:
        """Items (B, count) at random; drawn again, up to three times, where the user has them."""
        rows = users.repeat_interleave(count) * self.item_count  # (B count,)
        drawn = torch.randint(self.item_count, rows.shape, generator=random)
        check = torch.arange(len(rows))
        for _ in range(3):
            keys = rows[check] + drawn[check]
            place = torch.searchsorted(self.keys, keys).clamp_(max=len(self.keys) - 1)
            check = check[self.keys[place] == keys]
            if not len(check):
                break
            drawn[check] = torch.randint(self.item_count, check.shape, generator=random)
        return drawn.view(len(users), count)


def _examples(data: DataSet) -> _Examples:
    found = pairs(data)
    if not (found.mean_weights > 0).any():
        raise ValueError("neumf: no interaction has a weight above 0")
    users = torch.from_numpy(found.users.astype(np.int64))
    items = torch.from_numpy(found.items.astype(np.int64))
    weights = torch.from_numpy(found.mean_weights)
    return _Examples(
        users,
        items,
        (weights > 0).float(),
        weights.abs(),
        users * len(data.item_ids) + items,
        len(data.item_ids),
    )


class _Past(NamedTuple):
    """Moments of the users' past: the latest items before each, newest first, and what came next.

    ``latest`` has rows (M, n); ``users`` and ``nexts`` (M,). The last moment of each user, at
    ``finals`` (U,), has her whole history before it and nothing after.
    """

    latest: LatestItems
    users: Int64s
    nexts: Int64s
    finals: Int64s


def _past(data: DataSet, last: int, random: torch.Generator) -> _Past:
    """MAP_HISTORIES moments at most, drawn at random, and each user's end."""
    begins = data.begins()
    moments = np.flatnonzero(data.weights > 0)
    moments = moments[moments > begins[data.users[moments]]]
    if len(moments) > MAP_HISTORIES:
        picked = torch.randperm(len(moments), generator=random)[:MAP_HISTORIES].numpy()
        moments = moments[np.sort(picked)]
    places = np.concatenate([moments, begins[1:]])  # what stands before a place is its history
    users = np.concatenate([data.users[moments], np.arange(len(data.user_ids))])
    nexts = np.concatenate([data.items[moments], np.full(len(data.user_ids), -1)])
    back = places[:, None] - 1 - np.arange(last)  # (M, n) newest first
    known = back >= begins[users][:, None]
    back = np.maximum(back, 0)
    rows = np.where(known, data.items[back], 0).astype(np.int64)
    weights = np.where(known, data.weights[back], 0).astype(np.float32)
    finals = len(moments) + np.arange(len(data.user_ids))
    return _Past(LatestItems(rows, weights, known), users, nexts.astype(np.int64), finals)


def _features(network: Network) -> Float32s:
    """What the map knows of an item: GMF's vector as it retrieves, MLP's, and a 1; (N, f)."""
    q = (network.q * network.h).detach()
    item = network.item.detach()
    ones = torch.ones(len(q), 1)
    return torch.cat([_unit(q), _unit(item), ones], 1).numpy()


def _unit(vectors: Tensor) -> Tensor:
    """Vectors of root mean square length 1 in all, so that one regularisation suits the parts."""
    return vectors / vectors.square().sum(1).mean().sqrt().clamp(min=1e-12)


def _means(features: Float32s, latest: LatestItems) -> Float32s:
    """The damped means of a history's features, (B, S f)."""
    shares = damped(latest, HALF_STEPS).transpose(0, 2, 1)  # (B, S, n)
    means: Float32s = np.matmul(shares, features[latest.rows])  # (B, S, f)
    return means.reshape(len(shares), -1)


def _user_vectors(network: Network) -> Tensor:
    """(p, users' half of MLP's first layer) of the fitted users, (U, d + m)."""
    return torch.cat([network.p, network.user @ network.user_half], 1).detach()


def _solve_map(network: Network, past: _Past) -> Tensor:
    """The ridge regression of the fitted user vectors on their whole histories, (S f, d + m)."""
    latest = past.latest.take(past.finals)
    x = _means(_features(network), latest).astype(np.float64)  # (U, S f)
    y = _user_vectors(network).numpy().astype(np.float64)
    gram = x.T @ x
    ridge = 1e-3 * np.trace(gram) / len(gram)
    solution = np.linalg.solve(gram + ridge * np.eye(len(gram)), x.T @ y)
    return torch.from_numpy(solution.astype(np.float32))


def _tune_map(
    network: Network, matrix: Tensor, past: _Past, model: NeuMF, random: torch.Generator
) -> Iterator[float]:
    """Moves the map, with the network fixed, to what users took next; yields each pass' loss.

    The network's users have one taste for all of their past; a served user has just done something.
    Both what retrieves (the GMF branch alone) and what ranks (the whole) are trained.
    """
    features = _features(network)
    matrix.requires_grad_()
    gmf_bias = torch.zeros((), requires_grad=True)
    moments = torch.arange(len(past.users) - len(past.finals))
    optimiser = torch.optim.Adam([matrix, gmf_bias], 0.003)
    d = network.q.shape[1]
    items = len(network.q)
    for _ in range(model.map_epochs):
        losses = []
        order = moments[torch.randperm(len(moments), generator=random)]
        for picked in torch.split(order, MAP_BATCH):
            rows = picked.numpy()
            latest = past.latest.take(rows)
            vectors = torch.from_numpy(_means(features, latest)) @ matrix
            drawn = torch.randint(items, (len(rows), model.negatives * 4), generator=random)
            item = torch.cat([torch.from_numpy(past.nexts[rows])[:, None], drawn], 1)
            p, half = vectors[:, :d], vectors[:, d:]
            aims = torch.zeros(item.shape)
            aims[:, 0] = 1.0
            whole = network.score(p, half, item)
            alone = network.score(p, None, item) - network.bias.detach() + gmf_bias
            loss = functional.binary_cross_entropy_with_logits(whole, aims)
            loss = loss + functional.binary_cross_entropy_with_logits(alone, aims)
            (gradient, of_bias) = torch.autograd.grad(loss, [matrix, gmf_bias])
            matrix.grad, gmf_bias.grad = gradient, of_bias
            optimiser.step()
            losses.append(loss.detach())
        yield float(torch.stack(losses).mean()) if losses else 0.0
    matrix.requires_grad_(False)


def _fitted(network: Network, data: DataSet, matrix: Tensor, last: int) -> Fitted:
    item_vectors = (network.q * network.h).detach().numpy()
    features = _features(network)
    shaped = matrix.detach().reshape(len(HALF_STEPS), features.shape[1], -1).numpy()
    first = (network.item @ network.item_half + network.first_bias).detach().numpy()
    tensors = {
        "encoder.features": features,
        "encoder.matrix": shaped,
        "ranker.first": first,
        "ranker.out": network.out.detach().numpy(),
    }
    for layer, (weight, bias) in enumerate(zip(network.weights, network.biases, strict=True)):
        tensors[f"ranker.weight.{layer}"] = weight.detach().numpy()
        tensors[f"ranker.bias.{layer}"] = bias.detach().numpy()
    HistoryMap(EncoderContext({}, item_vectors), features, shaped, half_steps=HALF_STEPS, last=last)
    return Fitted(
        data.item_ids,
        item_vectors,
        {"kind": "history_map", "half_steps": list(HALF_STEPS), "last": last},
        {"kind": "neumf", "layers": len(network.weights), "bias": float(network.bias.detach())},
        tensors,
        _user_vectors(network).numpy(),
    )


@contextmanager
def _threads(count: int) -> Iterator[None]:
    """torch's own threads, a setting of the whole process, as they were afterwards."""
    before = torch.get_num_threads()
    torch.set_num_threads(max(1, count))
    try:
        yield
    finally:
        torch.set_num_threads(before)
