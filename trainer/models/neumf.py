"""NeuMF: generalised matrix factorisation and a multi-layer perceptron, fused.

He, Liao, Zhang, Nie, Hu & Chua, "Neural Collaborative Filtering" (WWW 2017): GMF eq. 9, MLP eq. 10,
NeuMF eq. 12, the loss eq. 7, pre-training section 3.4.1.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Annotated, ClassVar, NamedTuple

import numpy as np
import torch
from msgspec import Meta, Struct
from torch import Tensor
from torch.nn import functional

from rheos.state import Float32s
from trainer.data_set import DataSet, pairs
from trainer.models.model import Capability, Fitted, Run
from trainer.models.neumf_map import HALF_STEPS, HistoryMapFit
from trainer.models.neumf_network import Network, Sizes
from trainer.search_space import Range


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
    epochs: Annotated[int, Meta(ge=1, le=1000, description="Passes over the interactions.")] = 12
    pretrain_epochs: Annotated[
        int, Meta(ge=0, le=1000, description="Passes for GMF and MLP apart before; 0: none.")
    ] = 0
    negatives: Annotated[
        int, Meta(ge=1, le=100, description="Items drawn at random against each taken one.")
    ] = 4
    batch: Annotated[
        int, Meta(ge=1, description="Interactions a step, the drawn ones not counted.")
    ] = 4096
    learning_rate: Annotated[float, Meta(gt=0, description="Adam's step at the start.")] = 0.002
    regularisation: Annotated[
        float, Meta(ge=0, description="L2 on the vectors of each step's users and items.")
    ] = 1e-5
    last: Annotated[
        int, Meta(ge=1, le=1000, description="Latest distinct items that the encoder reads.")
    ] = 50
    map_epochs: Annotated[
        int, Meta(ge=0, le=1000, description="Passes for the history map after its first solution.")
    ] = 3

    name: ClassVar[str] = "neumf"
    can: ClassVar[frozenset[Capability]] = frozenset(
        {"item_vectors", "fold_in", "explain", "rerank", "probabilities"}
    )
    space: ClassVar[Mapping[str, Range]] = {
        "factors": Range(8, 128, log=True),
        "mlp_factors": Range(8, 128, log=True),
        "mlp_layers": Range(1, 4),
        "epochs": Range(4, 40, log=True),
        "negatives": Range(1, 10),
        "learning_rate": Range(3e-4, 1e-2, log=True),
        "regularisation": Range(1e-7, 1e-3, log=True),
    }

    def fit(self, data: DataSet, run: Run) -> Fitted:
        with _threads(run.threads):
            random = torch.Generator().manual_seed(run.seed)
            examples = _examples(data)
            epochs = 2 * self.pretrain_epochs + self.epochs + self.map_epochs
            done = 0

            def finish(losses: Iterator[float]) -> None:
                nonlocal done
                for _ in losses:
                    done += 1
                    run.progress("fit", done, epochs)

            sizes = Sizes(
                *(len(data.user_ids), len(data.item_ids)),
                *(self.factors, self.mlp_factors, self.mlp_layers),
            )
            network = Network(sizes, random, gmf=True, mlp=True)
            if self.pretrain_epochs:
                gmf = Network(sizes, random, gmf=True, mlp=False)
                mlp = Network(sizes, random, gmf=False, mlp=True)
                for part in (gmf, mlp):
                    finish(self._train(part, examples, self.pretrain_epochs, random))
                network.join(gmf, mlp)
            finish(self._train(network, examples, self.epochs, random))
            mapped = HistoryMapFit(network, data, self.last, random)
            finish(mapped.tune(self.map_epochs, random))
            return fitted_of(network, data.item_ids, mapped.features, mapped.matrix(), self.last)

    def _train(
        self, network: Network, examples: "_Examples", epochs: int, random: torch.Generator
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


@torch.no_grad()
def fitted_of(
    network: Network, item_ids: list[str], features: Float32s, matrix: Float32s, last: int
) -> Fitted:
    """A trained network and its history map as a generation carries them."""
    tensors = {
        "encoder.features": features,
        "encoder.matrix": matrix,
        "ranker.first": (network.item @ network.item_half + network.first_bias).numpy(),
        "ranker.out": network.out.numpy(),
    }
    for layer, (weight, bias) in enumerate(zip(network.weights, network.biases, strict=True)):
        tensors[f"ranker.weight.{layer}"] = weight.numpy()
        tensors[f"ranker.bias.{layer}"] = bias.numpy()
    return Fitted(
        item_ids,
        network.item_vectors().numpy(),
        {"kind": "history_map", "half_steps": list(HALF_STEPS), "last": last},
        {"kind": "neumf", "layers": len(network.weights), "bias": float(network.bias)},
        tensors,
        network.user_vectors().numpy(),
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
