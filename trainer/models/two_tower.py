"""Two-tower: what is known of users and of items meets in one space.

The candidate generator of Covington, Adams & Sargin, "Deep Neural Networks for YouTube
Recommendations" (RecSys 2016), section 3, trained as in Yi et al., "Sampling-Bias-Corrected Neural
Modeling for Large Corpus Item Recommendations" (RecSys 2019): a softmax over the batch's items,
corrected by the logarithm of the chance with which each came into it.
"""

from collections.abc import Mapping
from copy import deepcopy
from functools import partial
from typing import Annotated, ClassVar, NamedTuple

import numpy as np
import torch
from msgspec import Meta, Struct
from torch import Tensor
from torch.nn import functional

from rheos.features import Bags, Features
from rheos.history_map import damped
from rheos.latest_items import LatestItems
from rheos.state import Float32s, Float64s, Int32s, Int64s
from trainer.data_set import DataSet
from trainer.device import device_of, torch_threads
from trainer.distributed import add_up, add_up_gradients, own_share
from trainer.models.model import Capability, Fitted, Run, Start
from trainer.models.two_tower_network import Network, Past, Sizes
from trainer.search_space import Range
from trainer.validation import Score, Validation

HALF_STEPS = (1.5, 8.0, 1e6)
"""The recencies of the history's means: the last items, the visit, and taste of long standing."""
HIDE = 0.3
"""Share of the examples whose history is hidden, and of those whose attributes are: the user tower
learns to do without either."""
LEAST_RATE = 0.01  # of the learning rate, at the end of its line
AT_ONCE = 4096  # vectors computed at once


class TwoTower(Struct, frozen=True, forbid_unknown_fields=True):
    """Minimises the cross-entropy of what each user took next, given all that came before.

    Examples are the users' first positive interactions with their items, weighed by their weights.
    """

    factors: Annotated[int, Meta(ge=1, le=1024, description="Length d of the vectors.")] = 64
    hidden: Annotated[
        int, Meta(ge=1, le=4096, description="Width of each tower's hidden layer.")
    ] = 128
    epochs: Annotated[int, Meta(ge=1, le=1000, description="Passes over the examples.")] = 6
    warm_epochs: Annotated[
        int, Meta(ge=1, le=1000, description="Passes where a fit starts from the last one.")
    ] = 3
    batch: Annotated[
        int, Meta(ge=2, description="Examples a step; each other's items are the negatives.")
    ] = 1024
    negatives: Annotated[
        int, Meta(ge=0, description="Items drawn at random that a batch gets beside its own.")
    ] = 512
    learning_rate: Annotated[float, Meta(gt=0, description="AdamW's step at the start.")] = 0.003
    decay: Annotated[
        float, Meta(ge=0, le=100, description="AdamW's weight decay, on all parameters.")
    ] = 1.0
    id_dropout: Annotated[
        float,
        Meta(ge=0, lt=1, description="Share of items that a step tells by content alone."),
    ] = 0.3
    last: Annotated[
        int, Meta(ge=1, le=1000, description="Latest distinct items that the encoder reads.")
    ] = 50
    patience: Annotated[
        int,
        Meta(ge=0, le=1000, description="Epochs without a gain that end the fit; 0: it never is."),
    ] = 0

    name: ClassVar[str] = "two_tower"
    can: ClassVar[frozenset[Capability]] = frozenset(
        {"item_vectors", "fold_in", "cold_items", "attributes", "warm_start", "distributed"}
    )
    space: ClassVar[Mapping[str, Range]] = {
        "factors": Range(16, 256, log=True),
        "epochs": Range(2, 20, log=True),
        "learning_rate": Range(5e-4, 1e-2, log=True),
        "decay": Range(0.03, 10.0, log=True),
        "id_dropout": Range(0.05, 0.6),
    }

    def fit(self, data: DataSet, run: Run) -> Fitted:
        if not (data.weights > 0).any():
            raise ValueError("two_tower: no interaction has a weight above 0")
        known, random = _Known.of(data), np.random.default_rng(run.seed)
        validation = Validation[dict[str, Tensor]](data, self.patience, run.start, random)
        sizes = Sizes(
            *(len(data.item_ids), known.item_features.size, known.user_features.size),
            *(len(HALF_STEPS), self.factors, self.hidden),
        )
        with torch_threads(run.threads):
            network = Network(sizes, torch.Generator().manual_seed(run.seed))
            network.begin_with_popularity(_popularity(validation.train))
            if run.start is not None:
                _continue(network, known, run.start, data.item_ids)
            network.to(device_of(run.device))
            self._train(network, validation, known, run, random)
            return self._fitted(network, data, known)._replace(curve=validation.curve())

    def _train(
        self,
        network: Network,
        validation: Validation[dict[str, Tensor]],
        known: "_Known",
        run: Run,
        random: np.random.Generator,
    ) -> None:
        """Ends with the best epoch's parameters, where the validation tells which that is."""
        data = validation.train
        # Its weights decay fast, so that a warm start takes the learning rate whole: at a half or a
        # quarter of it new items stayed unknown (Online Retail).
        epochs = self.epochs if run.start is None else self.warm_epochs
        moments = _examples(data)
        histories = _Histories(data, self.last)
        scores = partial(_scores, network, histories, known)
        sampler = _Sampler(data.items[moments], len(data.item_ids), self.negatives)
        optimiser = torch.optim.AdamW(
            network.parameters(), self.learning_rate, weight_decay=self.decay, fused=True
        )
        steps = -(-len(moments) // self.batch) * epochs
        schedule = torch.optim.lr_scheduler.LinearLR(optimiser, 1.0, LEAST_RATE, steps)
        for epoch in range(epochs):
            losses = []
            for picked in _batches(random.permutation(moments), self.batch):
                loss = self._loss(network, histories, picked, known, sampler, random)
                optimiser.zero_grad(set_to_none=True)
                torch.autograd.backward(loss)
                add_up_gradients(network.parameters())
                optimiser.step()
                schedule.step()
                losses.append(loss.detach())
            mean = torch.stack(losses).mean()
            add_up([mean])
            validation.check(float(mean))
            run.progress("fit", epoch + 1, epochs)
            if validation.ends(epoch, scores, lambda: deepcopy(network.state_dict())):
                break
        if validation.best is not None:
            network.load_state_dict(validation.best)
        run.progress("fit", epochs, epochs)

    def _loss(
        self,
        network: Network,
        histories: "_Histories",
        moments: Int64s,
        known: "_Known",
        sampler: "_Sampler",
        random: np.random.Generator,
    ) -> Tensor:
        """This process's part of the mean cross-entropy of ``moments`` (B,).

        The candidates are everybody's, the users are its own.
        """
        data = histories.data
        candidates, own, chances = sampler.draw(data.items[moments], random)
        hidden = random.random((2, len(moments))) < HIDE
        kept = random.random(len(candidates)) >= self.id_dropout
        count, mine = len(moments), own_share()
        moments, own, hidden = moments[mine], own[mine], hidden[:, mine]
        users = np.where(hidden[0], known.nobody, data.users[moments])
        past = histories.before(moments, data.users[moments])
        past.shares[hidden[1]] = 0.0
        x = network.users(past, known.users.take(users))  # (B, d)
        device = x.device
        own_counts = torch.from_numpy(kept.astype(np.float32)).to(device)
        y = network.items(candidates, known.items.take(candidates), own_counts)  # (C, d)
        # Yi et al. 2019, eq. 3: s(x, y) - log p.
        logits = x @ y.T - torch.from_numpy(np.log(chances)).to(device, torch.float32)
        aims = torch.from_numpy(own).to(device)
        weights = torch.from_numpy(data.weights[moments]).to(device)
        losses = functional.cross_entropy(logits, aims, reduction="none")
        return (losses * weights).sum() / count

    @torch.no_grad()
    def _fitted(self, network: Network, data: DataSet, known: "_Known") -> Fitted:
        histories = _Histories(data, self.last)
        users = np.arange(len(data.user_ids))
        user_vectors = [
            network.users(histories.whole(part), known.users.take(part))
            for part in _batches(users, AT_ONCE)
        ]
        of = {name: each.detach().cpu().numpy() for name, each in network.named_parameters()}
        return Fitted(
            data.item_ids,
            _item_vectors(network, known).cpu().numpy(),
            {
                "kind": "two_tower",
                "half_steps": list(HALF_STEPS),
                "last": self.last,
                "features": known.user_features.parameters,
            },
            None,
            {
                "encoder.history": of["history"],
                "encoder.table": of["user_table"],
                "encoder.nothing": of["nothing"],
                "encoder.first": of["user_first"],
                "encoder.bias": of["user_bias"],
                "encoder.skip": of["user_skip"],
                "encoder.out": of["user_out"],
                "encoder.out_bias": of["user_out_bias"],
                "content.table": of["item_table"],
                "content.first": of["item_first"],
                "content.bias": of["item_bias"],
                "content.out": of["item_out"],
            },
            torch.cat(user_vectors).cpu().numpy(),
            content={"kind": "two_tower", "features": known.item_features.parameters},
            keep={known.kept_as(name): tensor for name, tensor in of.items()},
        )


def _examples(data: DataSet) -> Int64s:
    """The interactions that the model learns to foresee."""
    return np.flatnonzero((data.weights > 0) & data.first_of_pairs())


def _item_vectors(network: Network, known: "_Known") -> Tensor:
    """The vectors of all items, (N, d)."""
    rows = np.arange(len(known.items.known))
    parts = [network.items(part, known.items.take(part)) for part in _batches(rows, AT_ONCE)]
    return torch.cat(parts)


def _scores(network: Network, histories: "_Histories", known: "_Known") -> Score:
    """Gives users' scores (B, N) of all items, after all that they did."""
    with torch.no_grad():
        vectors = _item_vectors(network, known)

    @torch.no_grad()
    def scores(users: Int32s) -> Float32s:
        rows = users.astype(np.int64)
        x = network.users(histories.whole(rows), known.users.take(rows))
        found: Float32s = (x @ vectors.T).cpu().numpy()
        return found

    return scores


def _popularity(data: DataSet) -> Float32s:
    """ln(1 + sum of an item's weights), (N,), its mean taken off."""
    moments = _examples(data)
    sums = np.bincount(data.items[moments], data.weights[moments], len(data.item_ids))
    logarithms = np.log1p(sums)
    centred: Float32s = (logarithms - logarithms.mean()).astype(np.float32)
    return centred


class _Known(NamedTuple):
    """The catalogue as bags: a row of ``items`` for each item, of ``users`` for each user and one
    more, ``nobody``, of whom nothing is known.
    """

    item_features: Features
    user_features: Features
    items: Bags
    users: Bags
    nobody: int

    @classmethod
    def of(cls, data: DataSet) -> "_Known":
        items = [data.items_known.get(item_id) for item_id in data.item_ids]
        users = [data.users_known.get(user_id) for user_id in data.user_ids]
        # Values of items that nobody has taken yet belong to the vocabulary, too.
        others = [data.items_known[item_id] for item_id in sorted(data.items_known)]
        item_features = Features.fit_items(data.features.items, others)
        user_features = Features.fit_users(data.features.users, users)
        return cls(
            item_features,
            user_features,
            item_features.encode(items),
            user_features.encode([*users, None]),
            len(users),
        )

    def kept_as(self, name: str) -> str:
        """The name under which a parameter is kept for the next fit.

        A row of a features' table means the same only as long as its features are read the same.
        """
        if name in ("own", "history"):
            return f"item.{name}"
        if name in ("item_table", "user_table"):
            features = self.item_features if name == "item_table" else self.user_features
            return f"{name}.{features.layout}"
        return name


class _Sampler:
    """Draws the candidates of a batch: the items of its examples, and some at random.

    An item of a share f of the examples stands among the candidates of B examples and M drawn of N
    with the chance p = 1 - (1 - f)^B (1 - 1/N)^M; each once, so nothing counts double and no
    example's own item counts against it.
    """

    def __init__(self, items: Int32s, count: int, negatives: int) -> None:
        shares = np.bincount(items, minlength=count) / len(items)
        with np.errstate(divide="ignore"):  # an item of all examples is a candidate for certain
            self._absent: Float64s = np.log1p(-shares)
            drawn = negatives * np.log1p(-1.0 / count) if negatives else 0.0
        self._not_drawn = float(drawn)
        self._count = count
        self._negatives = negatives

    def draw(self, items: Int32s, random: np.random.Generator) -> tuple[Int64s, Int64s, Float64s]:
        """Candidates (C,), the place of each of ``items`` (B,) among them, their chances (C,)."""
        drawn = random.integers(0, self._count, self._negatives)
        candidates, places = np.unique(np.concatenate([items, drawn]), return_inverse=True)
        missing = len(items) * self._absent[candidates] + self._not_drawn
        return candidates.astype(np.int64), places[: len(items)], -np.expm1(missing)


class _Histories:
    """What stood before any moment of a data set, as the encoder reads it."""

    def __init__(self, data: DataSet, last: int) -> None:
        self.data = data
        self._begins = data.begins()
        self._last = last

    def whole(self, users: Int64s) -> Past:
        """All that ``users`` (B,) did."""
        return self.before(self._begins[users + 1], users)

    def before(self, places: Int64s, users: Int32s | Int64s) -> Past:
        """What stands before ``places`` (B,) in the histories of ``users`` (B,), newest first."""
        data = self.data
        back = places[:, None] - 1 - np.arange(self._last)
        known = back >= self._begins[users][:, None]
        back = np.maximum(back, 0)
        rows = np.where(known, data.items[back], 0).astype(np.int64)
        weights = np.where(known, data.weights[back], 0).astype(np.float32)
        shares = damped(LatestItems(rows, weights, known), HALF_STEPS)  # (B, n, S)
        return Past(rows, np.ascontiguousarray(shares.transpose(0, 2, 1)))


def _batches(rows: Int64s, size: int) -> list[Int64s]:
    return [rows[start : start + size] for start in range(0, len(rows), size)]


@torch.no_grad()
def _continue(network: Network, known: _Known, start: Start, item_ids: list[str]) -> None:
    """Begins where the last fit ended, as far as rows and shapes are the same.

    An item that it did not know begins as it was served since: by what its content says, and by its
    popularity. What chance would add to that takes more steps to unlearn than a warm fit has.
    """
    new = torch.from_numpy(~np.isin(item_ids, start.item_ids))
    network.history[new] = 0.0
    network.own[new, 1:] = 0.0  # the first number is the popularity
    for name, parameter in network.named_parameters():
        kept_as = known.kept_as(name)
        if kept_as.startswith("item."):
            start.carry(kept_as, item_ids, parameter.numpy())
            continue
        kept = start.tensors.get(kept_as)
        if kept is not None and kept.shape == tuple(parameter.shape):
            parameter.copy_(torch.from_numpy(kept))
