"""SASRec: self-attention over a user's history predicts the next item.

Kang & McAuley, "Self-Attentive Sequential Recommendation" (ICDM 2018). The paper's binary
cross-entropy against one drawn item is known to be what held it back (Klenitskiy & Vasilev, RecSys
2023; Petrov & Macdonald, RecSys 2023): the loss here is the softmax over all items, and past
``negatives`` items its estimate from that many drawn ones.
"""

import math
from collections.abc import Mapping
from copy import deepcopy
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
from trainer.models.als import Als
from trainer.models.model import Capability, Fitted, Run, Start
from trainer.models.sasrec_network import NEVER, Network, Sizes
from trainer.models.sasrec_windows import Batch, Windows
from trainer.search_space import Range
from trainer.validation import Score, Validation

WARM_UP = 0.05  # share of the steps in which the learning rate rises
LEAST_RATE = 0.05  # of the learning rate, at the end of its cosine
WARM_SHARE = 0.5  # of the passes, where a fit starts from the last one
LONGEST_GRADIENT = 5.0
ENCODE_AT_ONCE = 128
PRETRAIN_FACTORS = 32
"""At most, of the ALS that item vectors begin at: in few factors it says what holds beyond the data
(folded in by recency on MovieLens-100k's validation: HR@10 .229, with 128 factors .201)."""
PRETRAIN_ALPHA = 5.0
EXAMPLES = 600_000
"""Next items that a fit learns from where ``epochs`` is 0, each pass counted."""
MOST_EPOCHS = 30  # of them


class SasRec(Struct, frozen=True, forbid_unknown_fields=True):
    """Minimises the cross-entropy of each next item, at every place of every history.

    Interactions of a weight not above 0 are left out. Equal times are shuffled anew in each epoch:
    what stands in one basket has no order to learn.
    """

    factors: Annotated[
        int, Meta(ge=1, le=1024, description="Length d of the vectors; heads divide it.")
    ] = 64
    blocks: Annotated[int, Meta(ge=1, le=16, description="Blocks of attention and layers.")] = 1
    heads: Annotated[int, Meta(ge=1, le=16, description="Heads of each attention.")] = 2
    last: Annotated[
        int, Meta(ge=1, le=1000, description="Latest interactions that the encoder reads.")
    ] = 50
    pretrain: Annotated[
        int,
        Meta(ge=0, le=1000, description="Sweeps of ALS that items begin with; 0: at random."),
    ] = 10
    dropout: Annotated[float, Meta(ge=0, lt=1, description="Share of numbers left out.")] = 0.2
    epochs: Annotated[
        int,
        Meta(
            ge=0, le=1000, description="Passes over the interactions; 0: 1 to 30 by their number."
        ),
    ] = 0
    warm_epochs: Annotated[
        int,
        Meta(
            ge=0,
            le=1000,
            description="Passes where a fit starts from the last one; 0: half as many.",
        ),
    ] = 0
    patience: Annotated[
        int,
        Meta(ge=0, le=1000, description="Epochs without a gain that end the fit; 0: it never is."),
    ] = 0
    batch: Annotated[int, Meta(ge=1, description="Places of histories a step.")] = 500
    learning_rate: Annotated[float, Meta(gt=0, description="Adam's step at its highest.")] = 0.006
    negatives: Annotated[
        int,
        Meta(ge=1, description="Items that the softmax is over; past so many, drawn each step."),
    ] = 256
    repeats: Annotated[
        bool,
        Meta(description="Whether items come again; as `retrieval.leave_out_seen` is not."),
    ] = False

    name: ClassVar[str] = "sasrec"
    can: ClassVar[frozenset[Capability]] = frozenset({"item_vectors", "fold_in", "warm_start"})
    space: ClassVar[Mapping[str, Range]] = {
        "blocks": Range(1, 3),
        "dropout": Range(0.0, 0.6),
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
            validation = Validation[dict[str, Tensor]](data, self.patience, run.start, random)
            warm = self._begin(network, validation.train, run)
            network.to(device)
            self._train(network, validation, run, random, warm=warm)
            return _fitted(network, data)._replace(curve=validation.curve())

    @torch.no_grad()
    def _begin(self, network: Network, data: DataSet, run: Run) -> bool:
        """Begins where the last fit ended, else with the item vectors of a factorisation; tells
        whether it is the former.

        ALS finds within seconds what goes with what; from chance the network finds it late, and
        with few data never as well.
        """
        if run.start is not None and _continued(network, run.start, data.item_ids):
            return True
        if self.pretrain:
            factors = min(self.factors, PRETRAIN_FACTORS)
            als = Als(factors=factors, iterations=self.pretrain, alpha=PRETRAIN_ALPHA)
            vectors = als.fit(data, Run(seed=run.seed, threads=run.threads)).item_vectors
            # Turned at random into d dimensions, their inner products as they were: heads are to
            # have no factors of their own. And as long as the network expects them.
            random = np.random.default_rng(run.seed)
            turn, _ = np.linalg.qr(random.normal(size=(self.factors, factors)))
            vectors = (vectors - vectors.mean(axis=0)) @ turn.T.astype(np.float32)
            scale = self.factors**-0.5 / max(float(vectors.std()), 1e-9)
            network.table.copy_(torch.from_numpy(vectors * np.float32(scale)))
        return False

    def _train(
        self,
        network: Network,
        validation: Validation[dict[str, Tensor]],
        run: Run,
        random: np.random.Generator,
        *,
        warm: bool,
    ) -> None:
        """Ends with the best epoch's parameters, where the validation tells which that is."""
        data = validation.train
        windows = Windows(data)
        epochs = self._passes(windows.steps, warm=warm)

        def scores() -> Score:
            network.eval()
            return lambda users: _scores(network, windows, users)

        loss = NextItemLoss(data.popularity(), self.negatives, repeats=self.repeats)
        optimiser = torch.optim.Adam(network.parameters(), betas=(0.9, 0.98), fused=True)
        for epoch in range(epochs):
            network.train()
            losses = []
            read = 0
            for batch in windows.batches(self.last, self.batch, random):
                done = (epoch + read / windows.steps) / epochs
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
                validation.check(float(torch.stack(losses).mean()))
            run.progress("fit", epoch + 1, epochs)
            if validation.ends(epoch, scores, lambda: deepcopy(network.state_dict())):
                break
        if validation.best is not None:
            network.load_state_dict(validation.best)
        run.progress("fit", epochs, epochs)

    def _passes(self, examples: int, *, warm: bool) -> int:
        """How often a fit goes over so many next items."""
        first = self.epochs or min(MOST_EPOCHS, max(1, round(EXAMPLES / max(1, examples))))
        if not warm:
            return first
        return self.warm_epochs or max(1, round(WARM_SHARE * first))


class NextItemLoss:
    """-log softmax of the next item's logit, mean over the places of a batch.

    Without ``repeats`` the softmax at a place is over the items that its window has not held up to
    there, and what comes again is no example: such items are never shown, and tied vectors, to
    which the last item lies nearest, need not learn that.

    Up to ``negatives`` items the softmax is over all of them. Past that its sum is estimated from
    n = ``negatives`` draws, item j with a chance q_j (popularity to the power .75) and c_j times:

        Z = exp(s_target) + Σ_j exp(s_j - log(n q_j / c_j)), target and left-out items apart.

    So corrected the sum is unbiased whatever q is (Bengio & Senécal, IEEE Transactions on Neural
    Networks 2008).
    """

    def __init__(self, popularity: Float32s, negatives: int, *, repeats: bool) -> None:
        self._drawn = negatives if len(popularity) > negatives else 0
        self._repeats = repeats
        chances = torch.from_numpy(popularity.astype(np.float64) + 1.0) ** 0.75
        self._chances = (chances / chances.sum()).float()

    def __call__(self, network: Network, batch: Batch) -> Tensor:
        """``batch`` holds windows and, behind each, what came next; 0 where no place counts."""
        device = network.table.device
        past = batch._replace(rows=batch.rows[:, :-1], times_ms=batch.times_ms[:, :-1])
        inputs, gaps, lengths = _tensors(past, device)  # (B, n), (B, n, n), (B,)
        nexts = torch.from_numpy(batch.rows[:, 1:]).to(device)  # (B, n)
        place = torch.arange(inputs.shape[1], device=device)
        counted = place < lengths[:, None]  # (B, n)
        # What each place has behind it, itself included; later places hold the window's first.
        had = torch.where(place[:, None] >= place, inputs[:, None, :], inputs[:, :1, None])
        if not self._repeats:
            counted &= (had != nexts[:, :, None]).all(2)
        vectors, targets = network(inputs, gaps)[counted], nexts[counted]  # (T, d), (T,)
        left_out = targets.new_empty(len(targets), 0) if self._repeats else had[counted]  # (T, m)
        if self._drawn:
            logits = self._drawn_logits(vectors, network.table, targets, left_out)
            targets = torch.zeros_like(targets)
        else:
            logits = (vectors @ network.table.T).scatter(1, left_out, NEVER)
        summed = functional.cross_entropy(logits, targets, reduction="sum")
        return summed / max(1, len(targets))

    def _drawn_logits(
        self, vectors: Tensor, table: Tensor, targets: Tensor, left_out: Tensor
    ) -> Tensor:
        """Logits (T, 2 + distinct draws): the target's, one of no chance, and those drawn."""
        draws = torch.multinomial(self._chances, self._drawn, replacement=True)
        counts = torch.bincount(draws)
        drawn = counts.nonzero().squeeze(1)  # (S,)
        expected = (self._drawn * self._chances[drawn] / counts[drawn]).log().to(table.device)
        column = torch.ones(len(table), dtype=torch.int64)  # of what is not drawn: no chance
        column[drawn] = torch.arange(2, 2 + len(drawn))
        drawn, column = drawn.to(table.device), column.to(table.device)
        own = (vectors * functional.embedding(targets, table)).sum(1, keepdim=True)
        others = vectors @ functional.embedding(drawn, table).T - expected
        logits = torch.cat([own, torch.full_like(own, NEVER), others], 1)
        return logits.scatter(1, column[torch.cat([targets[:, None], left_out], 1)], NEVER)


def _share(done: float) -> float:
    """Of the learning rate, after a share ``done`` of the fit: up in a line, down in a cosine."""
    cosine = LEAST_RATE + (1.0 - LEAST_RATE) * 0.5 * (1.0 + math.cos(math.pi * done))
    return min(1.0, (done + 1e-3) / WARM_UP) * cosine


@torch.no_grad()
def _continued(network: Network, start: Start, item_ids: list[str]) -> bool:
    """Whether the last fit's table is as wide as this one's: then all of it that fits goes on.

    Items that it did not know keep their beginning.
    """
    table = start.tensors.get("item.table")
    if table is None or table.shape[1:] != network.table.shape[1:]:
        return False
    start.carry("item.table", item_ids, network.table.numpy())
    for name, parameter in network.named_parameters():
        if (kept := start.tensors.get(name)) is not None and kept.shape == parameter.shape:
            parameter.copy_(torch.from_numpy(kept))
    return True


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
