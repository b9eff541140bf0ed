"""SASRec: self-attention over a user's history predicts the next item.

Kang & McAuley, "Self-Attentive Sequential Recommendation" (ICDM 2018). The paper's binary
cross-entropy against one drawn item is known to be what held it back (Klenitskiy & Vasilev, RecSys
2023; Petrov & Macdonald, RecSys 2023): the loss here is the softmax over all items, and past
``negatives`` items its estimate from that many drawn ones.
"""

import math
from collections.abc import Mapping
from typing import Annotated, ClassVar

import numpy as np
import torch
from msgspec import Meta, Struct
from torch import Tensor
from torch.nn import functional

from rheos.sequence_encoder import gaps_of
from rheos.state import Float32s, Int32s, Int64s
from trainer.data_set import DataSet
from trainer.device import device_of, torch_threads
from trainer.early_stopping import EarlyStopping
from trainer.models.als import Als
from trainer.models.model import Capability, Fitted, Run, Start
from trainer.models.sasrec_network import NEVER, Network, Sizes
from trainer.models.sasrec_windows import Batch, Windows
from trainer.search_space import Range
from trainer.validation import HeldOut, hold_out

WARM_UP = 0.05  # share of the steps in which the learning rate rises
LEAST_RATE = 0.05  # of the learning rate, at the end of its cosine
LONGEST_GRADIENT = 5.0
HELD_OUT = 20  # one user of so many is held out to see when to stop, 1,000 at most
ENCODE_AT_ONCE = 128
ALPHA = 5.0  # of the ALS that the item vectors begin at


class SasRec(Struct, frozen=True, forbid_unknown_fields=True):
    """Minimises the cross-entropy of each next item, at every place of every history.

    Interactions of a weight not above 0 are left out. Equal times are shuffled anew in each epoch:
    what stands in one basket has no order to learn.
    """

    factors: Annotated[
        int, Meta(ge=1, le=1024, description="Length d of the vectors; heads divide it.")
    ] = 64
    blocks: Annotated[int, Meta(ge=1, le=16, description="Blocks of attention and layers.")] = 2
    heads: Annotated[int, Meta(ge=1, le=16, description="Heads of each attention.")] = 2
    last: Annotated[
        int, Meta(ge=1, le=1000, description="Latest interactions that the encoder reads.")
    ] = 50
    pretrain: Annotated[
        int,
        Meta(ge=0, le=1000, description="Sweeps of ALS that items begin with; 0: at random."),
    ] = 0
    dropout: Annotated[float, Meta(ge=0, lt=1, description="Share of numbers left out.")] = 0.3
    epochs: Annotated[int, Meta(ge=1, le=1000, description="Passes over the interactions.")] = 30
    patience: Annotated[
        int,
        Meta(ge=0, le=1000, description="Epochs without a gain that end the fit; 0: it never is."),
    ] = 0
    batch: Annotated[int, Meta(ge=1, description="Places of histories a step.")] = 3000
    learning_rate: Annotated[float, Meta(gt=0, description="Adam's step at its highest.")] = 0.003
    negatives: Annotated[
        int,
        Meta(ge=1, description="Items that the softmax is over; past so many, drawn each step."),
    ] = 4096

    name: ClassVar[str] = "sasrec"
    can: ClassVar[frozenset[Capability]] = frozenset({"item_vectors", "fold_in", "warm_start"})
    space: ClassVar[Mapping[str, Range]] = {
        "blocks": Range(1, 3),
        "dropout": Range(0.0, 0.6),
        "epochs": Range(5, 100, log=True),
        "learning_rate": Range(3e-4, 1e-2, log=True),
        "negatives": Range(256, 8192, log=True),
    }

    def fit(self, data: DataSet, run: Run) -> Fitted:
        if not (data.weights > 0).any():
            raise ValueError("sasrec: no interaction has a weight above 0")
        if self.factors % self.heads:
            raise ValueError(f"sasrec: factors = {self.factors} are not heads = {self.heads} times")
        device = device_of(run.device)
        # Dropout draws from torch's own generator: as it was afterwards.
        devices = [device] if device.type == "cuda" else []
        with torch_threads(run.threads), torch.random.fork_rng(devices):
            torch.manual_seed(run.seed)
            sizes = Sizes(len(data.item_ids), self.factors, self.blocks, self.heads, self.last)
            network = Network(sizes, self.dropout, torch.Generator().manual_seed(run.seed))
            random = np.random.default_rng(run.seed)
            held: HeldOut | None = None
            if self.patience:
                held = hold_out(data, min(1000, len(data.user_ids) // HELD_OUT), random)
            self._begin(network, data if held is None else held.train, run)
            network.to(device)
            curve = self._train(network, data, held, run, random)
            return _fitted(network, data)._replace(curve=curve)

    @torch.no_grad()
    def _begin(self, network: Network, data: DataSet, run: Run) -> None:
        """Item vectors begin at those of a factorisation, or all where the last fit ended.

        ALS finds within seconds what goes with what; from chance the network finds it late, and
        with few data never as well.
        """
        if self.pretrain:
            als = Als(factors=self.factors, iterations=self.pretrain, alpha=ALPHA)
            vectors = als.fit(data, Run(seed=run.seed, threads=run.threads)).item_vectors
            vectors = vectors - vectors.mean(axis=0)
            # As long as the network expects them, whatever their length was.
            scale = self.factors**-0.5 / max(float(vectors.std()), 1e-9)
            network.table.copy_(torch.from_numpy(vectors * np.float32(scale)))
        if run.start is not None:
            _continue(network, run.start, data.item_ids)

    def _train(
        self,
        network: Network,
        data: DataSet,
        held: HeldOut | None,
        run: Run,
        random: np.random.Generator,
    ) -> dict[str, list[float]]:
        """How it went: the loss of each epoch, and the validation's NDCG."""
        if held is not None:
            data = held.train
        windows = Windows(data)
        loss = NextItemLoss(data.popularity(), self.negatives)
        stopping = EarlyStopping(max(1, self.patience))
        best: dict[str, Tensor] = {}
        optimiser = torch.optim.Adam(network.parameters(), betas=(0.9, 0.98), fused=True)
        for epoch in range(self.epochs):
            network.train()
            losses = []
            read = 0
            for batch in windows.batches(self.last, self.batch, random):
                done = (epoch + read / windows.steps) / self.epochs
                read += int(batch.lengths.sum())
                for group in optimiser.param_groups:
                    group["lr"] = self.learning_rate * _share(done)
                value = loss(network, batch)
                optimiser.zero_grad(set_to_none=True)
                torch.autograd.backward(value)
                torch.nn.utils.clip_grad_norm_(network.parameters(), LONGEST_GRADIENT)
                optimiser.step()
                losses.append(value.detach())
            if losses:  # users of one interaction each have no next item
                stopping.check(float(torch.stack(losses).mean()))
            run.progress("fit", epoch + 1, self.epochs)
            if held is None or not len(held.users):
                continue
            network.eval()
            ndcg = held.ndcg(lambda users: _scores(network, windows, users))
            if stopping.improved(epoch, ndcg):
                best = {name: value.clone() for name, value in network.state_dict().items()}
            if stopping.is_over:
                break
        if best:
            network.load_state_dict(best)
        run.progress("fit", self.epochs, self.epochs)
        return stopping.curve("ndcg@20")


class NextItemLoss:
    """-log softmax of the next item's logit, mean over the places of a batch.

    Up to ``negatives`` items the softmax is over all of them. Past that its sum is estimated from
    n = ``negatives`` draws j of chance q_j (popularity to the power .75):

        Z = exp(s_target) + Σ_j exp(s_j - log(n q_j)),  draws of the target left out.

    So corrected by log(n q) the sum is unbiased whatever q is (Bengio & Senécal, IEEE Transactions
    on Neural Networks 2008).
    """

    def __init__(self, popularity: Float32s, negatives: int) -> None:
        self._drawn = negatives if len(popularity) > negatives else 0
        chances = torch.from_numpy(popularity.astype(np.float64) + 1.0) ** 0.75
        self._chances = (chances / chances.sum()).float()

    def __call__(self, network: Network, batch: Batch) -> Tensor:
        """``batch`` holds windows and, behind each, what came next."""
        device = network.table.device
        past = batch._replace(rows=batch.rows[:, :-1], times_ms=batch.times_ms[:, :-1])
        inputs, gaps, lengths = _tensors(past, device)
        rows = torch.from_numpy(batch.rows).to(device)  # (B, n + 1)
        real = torch.arange(inputs.shape[1], device=device) < lengths[:, None]  # (B, n)
        vectors = network(inputs, gaps)[real]  # (T, d)
        targets = rows[:, 1:][real]  # (T,)
        if not self._drawn:
            return functional.cross_entropy(vectors @ network.table.T, targets)
        drawn = torch.multinomial(self._chances, self._drawn, replacement=True)  # (S,)
        expected = (self._drawn * self._chances[drawn]).log().to(device)
        drawn = drawn.to(device)
        others = vectors @ functional.embedding(drawn, network.table).T - expected  # (T, S)
        others = others.masked_fill(drawn == targets[:, None], NEVER)
        own = (vectors * functional.embedding(targets, network.table)).sum(1, keepdim=True)
        return functional.cross_entropy(torch.cat([own, others], 1), torch.zeros_like(targets))


def _share(done: float) -> float:
    """Of the learning rate, after a share ``done`` of the fit: up in a line, down in a cosine."""
    cosine = LEAST_RATE + (1.0 - LEAST_RATE) * 0.5 * (1.0 + math.cos(math.pi * done))
    return min(1.0, (done + 1e-3) / WARM_UP) * cosine


@torch.no_grad()
def _continue(network: Network, start: Start, item_ids: list[str]) -> None:
    """Goes on where the last fit ended; items that it did not know keep their beginning."""
    for name, parameter in network.named_parameters():
        if name == "table":
            start.carry("item.table", item_ids, parameter.numpy())
        elif (kept := start.tensors.get(name)) is not None and kept.shape == parameter.shape:
            parameter.copy_(torch.from_numpy(kept))


def _vectors(network: Network, windows: Windows, users: Int32s | Int64s) -> Tensor:
    """Vectors (B, d) of users that have a history."""
    batch = windows.newest(users, network.sizes.last)
    return network.last_vectors(*_tensors(batch, network.table.device))


def _tensors(batch: Batch, device: torch.device) -> tuple[Tensor, Tensor, Tensor]:
    """Rows (B, n), gaps (B, n, n) and lengths (B,) on a device."""
    gaps = gaps_of(batch.times_ms, batch.times_ms)
    arrays = (batch.rows, gaps, batch.lengths)
    rows, between, lengths = (torch.from_numpy(array).to(device) for array in arrays)
    return rows, between, lengths


@torch.no_grad()
def _scores(network: Network, windows: Windows, users: Int32s) -> Float32s:
    scores: Float32s = (_vectors(network, windows, users) @ network.table.T).cpu().numpy()
    return scores


@torch.no_grad()
def _fitted(network: Network, data: DataSet) -> Fitted:
    network.eval()
    windows = Windows(data)
    vectors = np.zeros((len(data.user_ids), network.sizes.factors), np.float32)
    with_history = np.flatnonzero(windows.counts)
    for start in range(0, len(with_history), ENCODE_AT_ONCE):
        users = with_history[start : start + ENCODE_AT_ONCE]
        vectors[users] = _vectors(network, windows, users).cpu().numpy()
    whole = {
        name: parameter.detach().cpu().numpy()
        for name, parameter in network.named_parameters()
        if name != "table"
    }
    table = network.table.detach().cpu().numpy()
    return Fitted(
        data.item_ids,
        table,
        {"kind": "transformer", "blocks": network.sizes.blocks},
        None,
        network.tensors(),
        vectors,
        keep=whole | {"item.table": table},
    )
