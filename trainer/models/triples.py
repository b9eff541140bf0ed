"""What BPR learns from: a user, an item of hers, and one that she does not have.

Rendle, Freudenthaler, Gantner & Schmidt-Thieme, "BPR" (UAI 2009); the hardest of several drawn
items: Zhang, Chen, Wang & Yu, "Optimizing Top-N Collaborative Filtering via Dynamic Negative Item
Sampling" (SIGIR 2013).
"""

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from rheos.state import Int32s, Int64s
from trainer.models.interaction_graph import InteractionGraph


class Triples(NamedTuple):
    """Rows (B,) into the nodes, users first and then items.

    ``counts`` (B, 1) is 0 where the drawn ``other`` is an item of the user after all, else 1.
    """

    users: Tensor
    items: Tensor
    others: Tensor
    counts: Tensor


class Draws:
    """Triples at random: users alike often, of each user her items alike often.

    No shape depends on what is drawn, so that on a GPU nothing waits for the host.
    """

    def __init__(
        self, graph: InteractionGraph, device: torch.device, random: torch.Generator
    ) -> None:
        users, begins, counts = np.unique(graph.users, return_index=True, return_counts=True)

        def on_device(array: Int64s | Int32s) -> Tensor:
            return torch.from_numpy(array.astype(np.int64)).to(device)

        self._users, self._begins = on_device(users), on_device(begins)
        self._counts = on_device(counts)
        self._items = on_device(graph.items)
        # Of each edge user * N + item: they ascend.
        self._keys = on_device(graph.users.astype(np.int64) * graph.item_count + graph.items)
        self._user_count, self._item_count = graph.user_count, graph.item_count
        self._random = random
        chances = np.full(graph.user_count + graph.item_count, 1 / graph.item_count)
        chances[: graph.user_count] = 0
        chances[users] = 1 / len(users)
        share = np.repeat(1 / (len(users) * counts), counts)
        np.add.at(chances, graph.user_count + graph.items, share)
        self.chances = torch.from_numpy(chances.astype(np.float32)[:, None]).to(device)
        """How often a triple names each node in the mean, (U + N, 1), the hardest one apart."""

    def draw(self, count: int, negatives: int, vectors: Tensor) -> Triples:
        """``count`` triples whose other is, of ``negatives`` drawn, the one of the best score.

        ``vectors`` (U + N, d) are those of the nodes, without gradients.
        """
        # In order, so that neighbours read neighbouring keys: the search is four times as fast.
        place = self._below(len(self._users), count).sort().values
        user, own = self._users[place], self._counts[place]
        share = torch.rand(count, generator=self._random, device=own.device)
        # Rounding may take the share of a large count to the count itself.
        item = self._items[self._begins[place] + torch.minimum((share * own).long(), own - 1)]
        drawn = self._below(self._item_count, count * negatives).view(count, negatives)
        wanted = user[:, None] * self._item_count + drawn
        found = torch.searchsorted(self._keys, wanted).clamp_(max=len(self._keys) - 1)
        had = self._keys[found] == wanted  # (B, k)
        if negatives > 1:
            rows = vectors[self._user_count + drawn.view(-1)].view(count, negatives, -1)
            scores = torch.matmul(rows, vectors[user][:, :, None])[:, :, 0]
            hardest = scores.masked_fill_(had, -torch.inf).argmax(1, keepdim=True)
            drawn, had = drawn.gather(1, hardest), had.gather(1, hardest)
        return Triples(
            user,
            self._user_count + item,
            self._user_count + drawn[:, 0],
            (~had).to(vectors.dtype),
        )

    def _below(self, end: int, count: int) -> Tensor:
        return torch.randint(end, (count,), generator=self._random, device=self._keys.device)


def bpr(vectors: Tensor, triples: Triples, gradient: Tensor) -> Tensor:
    """The sum of -ln σ(x), x = eᵤ · (eᵢ - eⱼ); its gradient by ``vectors`` joins ``gradient``.

    Both are (U + N, d). With s = σ(-x) it is -s (eᵢ - eⱼ) for eᵤ, -s eᵤ for eᵢ and s eᵤ for eⱼ;
    written out, since autograd makes a whole table of zeros for each gather.
    """
    nodes = torch.cat(triples[:3])
    user, item, other = vectors[nodes].view(3, len(triples.users), -1)  # (B, d) each
    apart = item - other
    x = (user * apart).sum(1, keepdim=True)
    s = torch.sigmoid(-x) * triples.counts
    pull = user.mul_(s)  # of eᵤ nothing else is needed any more, but ``apart`` is
    gradient.index_add_(0, nodes, torch.cat([apart.mul_(-s), -pull, pull]))
    return (functional.softplus(-x) * triples.counts).sum()
