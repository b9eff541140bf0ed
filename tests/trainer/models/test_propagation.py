from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from scipy import sparse
from torch import Tensor

from trainer.data_set import of_interactions
from trainer.models.interaction_graph import InteractionGraph, graph_of
from trainer.models.propagation import Adjacency, OnDevice, adjacency_on, layers, propagate

CPU = torch.device("cpu")


def some_graph(users: int = 30, items: int = 20, edges: int = 150) -> InteractionGraph:
    """Edges at random; the last user and the last item have none."""
    random = np.random.default_rng(3)
    keys = np.sort(random.choice((users - 1) * (items - 1), edges, replace=False))
    user, item = np.divmod(keys, items - 1)
    return InteractionGraph(user.astype(np.int32), item.astype(np.int32), users, items)


def dense(graph: InteractionGraph) -> Tensor:
    """Â by the book: D^(-1/2) A D^(-1/2) (He et al. 2020, eq. 6)."""
    nodes = graph.user_count + graph.item_count
    a = torch.zeros(nodes, nodes, dtype=torch.float64)
    for user, item in zip(graph.users.tolist(), graph.items.tolist(), strict=True):
        a[user, graph.user_count + item] = a[graph.user_count + item, user] = 1
    scale = a.sum(1).clamp(min=1) ** -0.5
    return scale[:, None] * a * scale[None, :]


@pytest.fixture(params=[1, 3])
def adjacency(request: pytest.FixtureRequest) -> Iterator[Adjacency]:
    with ThreadPoolExecutor(request.param) as pool:
        yield adjacency_on(CPU, some_graph().normalised(), pool, request.param)


def embeddings() -> Tensor:
    return torch.randn(50, 4, generator=torch.Generator().manual_seed(1))


def test_the_product_is_the_normalised_adjacency_s(adjacency: Adjacency) -> None:
    expected = dense(some_graph()) @ embeddings().double()
    torch.testing.assert_close(adjacency.times(embeddings()).double(), expected, atol=1e-6, rtol=0)


@pytest.mark.filterwarnings("ignore:Sparse CSR tensor support is in beta")
def test_torch_s_product_is_scipy_s() -> None:
    edges = some_graph().normalised()
    matrix = sparse.block_array([[None, edges], [edges.T, None]], format="csr")
    found = OnDevice(matrix, CPU).times(embeddings())
    torch.testing.assert_close(found, torch.from_numpy(matrix @ embeddings().numpy()))


@pytest.mark.parametrize("count", [0, 1, 3])
def test_propagation_is_the_mean_of_the_layers(adjacency: Adjacency, count: int) -> None:
    parts = layers(adjacency, embeddings(), count)
    assert len(parts) == count + 1
    torch.testing.assert_close(propagate(adjacency, embeddings(), count), sum(parts) / (count + 1))


@pytest.mark.parametrize("count", [0, 1, 3])
def test_its_gradient_is_that_of_plain_autograd(adjacency: Adjacency, count: int) -> None:
    weights = torch.randn(50, 4, generator=torch.Generator().manual_seed(2))
    ours = embeddings().requires_grad_()
    (propagate(adjacency, ours, count).sin() * weights).sum().backward()
    plain = embeddings().double().requires_grad_()
    matrix, layer = dense(some_graph()), plain
    total = plain
    for _ in range(count):
        layer = matrix @ layer
        total = total + layer
    ((total / (count + 1)).sin() * weights).sum().backward()
    assert ours.grad is not None
    assert plain.grad is not None
    torch.testing.assert_close(ours.grad.double(), plain.grad, atol=1e-5, rtol=0)


def test_a_node_without_an_edge_keeps_its_own_share_alone(adjacency: Adjacency) -> None:
    found = propagate(adjacency, embeddings(), 3)
    for lone in (29, 49):
        torch.testing.assert_close(found[lone], embeddings()[lone] / 4)


def test_more_threads_than_edges_are_no_trouble() -> None:
    graph = some_graph(users=3, items=3, edges=2)
    with ThreadPoolExecutor(8) as pool:
        adjacency = adjacency_on(CPU, graph.normalised(), pool, 8)
        x = torch.ones(6, 2)
        torch.testing.assert_close(
            adjacency.times(x).double(), dense(graph) @ x.double(), atol=1e-6, rtol=0
        )


def test_an_edge_is_a_pair_whose_mean_weight_is_above_0() -> None:
    users, items = ["a", "a", "a", "b", "b"], ["x", "x", "y", "x", "y"]
    data = of_interactions(users, items, range(5), [1.0, 2.0, -1.0, 0.0, 0.5])
    graph = graph_of(data)
    assert graph.users.tolist() == [0, 1]
    assert graph.items.tolist() == [0, 1]


def test_a_data_set_without_an_edge_is_named() -> None:
    with pytest.raises(ValueError, match="weight above 0"):
        graph_of(of_interactions(["a"], ["x"], [0], [-1.0]))
