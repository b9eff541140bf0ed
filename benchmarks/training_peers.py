"""The same models as others train them: PyTorch Geometric, implicit, and a plain PyTorch loop.

Each as its documentation or the usual tutorial has it, on one thread, with our draws and sizes.
Imported where the ``peers`` extra is installed.
"""

import warnings
from collections.abc import Callable, Iterator

import numpy as np
import torch
from scipy import sparse
from torch import Tensor, nn

from rheos.state import Float32s
from trainer.models.interaction_graph import InteractionGraph
from trainer.models.lightgcn import LightGCN
from trainer.models.triples import Draws

CPU = torch.device("cpu")


def pyg_lightgcn(graph: InteractionGraph, model: LightGCN, *, compressed: bool) -> Iterator[Tensor]:
    """Steps of PyG's LightGCN with BPR; yields the propagated vectors' function after each.

    ``compressed``: the graph as a sparse matrix with its weights ready, PyG's faster way, instead
    of the list of edges that its documentation begins with.
    """
    from torch_geometric.nn import LightGCN as Peer

    users, items = torch.from_numpy(graph.users), torch.from_numpy(graph.items) + graph.user_count
    nodes = graph.user_count + graph.item_count
    edges: Tensor = torch.stack([torch.cat([users, items]), torch.cat([items, users])]).long()
    torch.manual_seed(0)
    peer = Peer(nodes, model.factors, model.layers, normalize=not compressed)
    nn.init.normal_(peer.embedding.weight, std=0.1)
    if compressed:
        rows = graph.normalised()
        matrix = sparse.block_array([[None, rows], [rows.T, None]], format="csr")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch says that this layout is new
            edges = torch.sparse_csr_tensor(
                torch.from_numpy(matrix.indptr.astype(np.int64)),
                torch.from_numpy(matrix.indices.astype(np.int64)),
                torch.from_numpy(matrix.data),
                matrix.shape,
            )
    optimiser = torch.optim.Adam(peer.parameters(), model.learning_rate)
    draws = Draws(graph, CPU, torch.Generator().manual_seed(0))
    while True:
        drawn = draws.draw(model.batch, 1, peer.embedding.weight.detach())
        vectors = peer.get_embedding(edges)
        user = vectors[drawn.users]
        loss = peer.recommendation_loss(
            (user * vectors[drawn.items]).sum(1),
            (user * vectors[drawn.others]).sum(1),
            torch.cat(drawn[:3]).unique(),
            lambda_reg=model.regularisation,
        )
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        yield vectors.detach()


def implicit_als(
    had: sparse.csr_array, *, factors: int, confidence: float, regularisation: float, sweeps: int
) -> tuple[Float32s, Float32s, list[float]]:
    """implicit's ALS on one thread: users' and items' factors, and the seconds of each sweep."""
    from implicit.cpu.als import AlternatingLeastSquares

    peer = AlternatingLeastSquares(
        factors, regularisation, confidence, iterations=sweeps, num_threads=1, random_state=0
    )
    seconds: list[float] = []
    peer.fit_callback = lambda iteration, elapsed, *more: seconds.append(elapsed)
    peer.fit(sparse.csr_matrix(had), show_progress=False)
    return peer.user_factors, peer.item_factors, seconds


class PlainNeuMF(nn.Module):
    """The network as everybody writes it: embeddings, a concatenation, linear layers."""

    def __init__(self, users: int, items: int, factors: int, width: int, layers: int) -> None:
        super().__init__()
        self.gmf_user, self.gmf_item = nn.Embedding(users, factors), nn.Embedding(items, factors)
        self.mlp_user, self.mlp_item = nn.Embedding(users, width), nn.Embedding(items, width)
        parts: list[nn.Module] = []
        before = 2 * width
        for layer in range(layers):
            parts += [nn.Linear(before, width >> layer), nn.ReLU()]
            before = width >> layer
        self.mlp = nn.Sequential(*parts)
        self.out = nn.Linear(factors + before, 1)
        for table in (self.gmf_user, self.gmf_item, self.mlp_user, self.mlp_item):
            nn.init.normal_(table.weight, std=0.05)

    def forward(self, user: Tensor, item: Tensor) -> Tensor:
        gmf = self.gmf_user(user) * self.gmf_item(item)
        mlp = self.mlp(torch.cat([self.mlp_user(user), self.mlp_item(item)], 1))
        logits: Tensor = self.out(torch.cat([gmf, mlp], 1))[:, 0]
        return logits


def plain_neumf(
    graph: InteractionGraph, network: PlainNeuMF, *, batch: int, negatives: int, rate: float
) -> Iterator[Callable[[np.ndarray], Float32s]]:
    """Epochs of the usual loop: negatives drawn in Python, a DataLoader over single examples.

    Yields after each how to score user rows (B,) against all items: (B, N).
    """
    from torch.utils.data import DataLoader

    had = set(zip(graph.users.tolist(), graph.items.tolist(), strict=True))
    random = np.random.default_rng(0)
    optimiser = torch.optim.Adam(network.parameters(), rate)
    loss_of = nn.BCEWithLogitsLoss()

    @torch.no_grad()
    def score(users: np.ndarray) -> Float32s:
        items = torch.arange(graph.item_count)
        rows = [network(torch.full_like(items, int(user)), items) for user in users]
        scores: Float32s = torch.stack(rows).numpy()
        return scores

    while True:
        examples: list[tuple[int, int, float]] = []
        for user, item in had:
            examples.append((user, item, 1.0))
            for _ in range(negatives):
                other = int(random.integers(graph.item_count))
                while (user, other) in had:
                    other = int(random.integers(graph.item_count))
                examples.append((user, other, 0.0))
        loader = DataLoader(examples, batch_size=batch * (1 + negatives), shuffle=True)
        for user, item, target in loader:
            optimiser.zero_grad()
            loss_of(network(user, item), target.float()).backward()
            optimiser.step()
        yield score
