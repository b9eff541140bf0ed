"""NeuMF's pieces: the network against the paper's formula, NumPy against torch."""

import numpy as np
import pytest
import torch

from rheos.generation import Generation
from rheos.snapshot_store import LocalStore
from rheos.state import History
from trainer.data_set import DataSet, of_interactions
from trainer.fitting import make
from trainer.models.model import Run
from trainer.models.neumf import NeuMF, _examples, fitted_of
from trainer.models.neumf_map import HALF_STEPS, HistoryMapFit
from trainer.models.neumf_network import Network, Sizes

SIZES = Sizes(users=6, items=9, factors=5, mlp_factors=8, mlp_layers=3)


def random_network(seed: int = 0, **branches: bool) -> Network:
    random = torch.Generator().manual_seed(seed)
    network = Network(SIZES, random, **({"gmf": True, "mlp": True} | branches))
    with torch.no_grad():  # as far from its start as training takes it
        for parameter in network.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=random))
    return network


def some_data() -> DataSet:
    random = np.random.default_rng(0)
    return of_interactions(
        [f"u{n}" for n in random.integers(6, size=80)],
        [f"i{n}" for n in random.integers(9, size=80)],
        np.arange(80),
    )


def test_the_network_is_equation_12() -> None:
    network = random_network()
    user, item = 2, 7
    gmf = network.p[user] * network.q[item]
    # The first layer of the paper, over both vectors at once: its weights are the two halves.
    hidden = torch.cat([network.user[user], network.item[item]])
    first = torch.cat([network.user_half, network.item_half])
    hidden = torch.relu(hidden @ first + network.first_bias)
    for weight, bias in zip(network.weights, network.biases, strict=True):
        hidden = torch.relu(hidden @ weight + bias)
    assert [weight.shape for weight in network.weights] == [(8, 4), (4, 2)]
    expected = torch.cat([network.h, network.out]) @ torch.cat([gmf, hidden]) + network.bias
    found, _ = network(torch.tensor([user]), torch.tensor([[item]]))
    torch.testing.assert_close(found[0, 0], expected)


def test_the_served_ranker_is_the_network(tmp_path) -> None:
    network = random_network()
    data = some_data()
    features = np.random.default_rng(1).normal(size=(9, 4)).astype(np.float32)
    matrix = np.random.default_rng(2).normal(size=(3, 4, 5 + 8)).astype(np.float32)
    fitted = fitted_of(network, data.item_ids, features, matrix, 10)
    store = LocalStore(tmp_path)
    generation = Generation(store.get(store.put(*make(1, NeuMF(), fitted, data, {}))))
    assert generation.ranker is not None
    items = torch.arange(9).expand(6, 9)
    with torch.no_grad():
        expected, _ = network(torch.arange(6), items)
    rows = np.array([8, 0, 3, 3, 5])
    for user in range(6):
        vector = fitted.user_vectors[user]
        found = generation.ranker.score(vector, rows)
        np.testing.assert_allclose(found, expected[user, rows].numpy(), atol=1e-4)
        assert found.dtype == np.float32
    # An encoded user goes the same way: the network fed with her inputs.
    history = History(data.item_ids[:3], np.ones(3, np.float32), np.arange(3))
    vector = generation.encoder.encode([history])[0]
    with torch.no_grad():
        inputs = torch.from_numpy(vector)[None]
        expected = network.score(inputs[:, :5], inputs[:, 5:], torch.arange(9)[None])
    found = generation.ranker.score(vector, np.arange(9))
    np.testing.assert_allclose(found, expected[0].numpy(), atol=1e-4)


def test_joined_branches_have_half_a_say_each() -> None:
    gmf, mlp = random_network(1, mlp=False), random_network(2, gmf=False)
    both = random_network(3)
    both.join(gmf, mlp)
    user, item = torch.arange(6), torch.arange(9).expand(6, 9)
    with torch.no_grad():
        expected = (gmf(user, item)[0] + mlp(user, item)[0]) / 2
        torch.testing.assert_close(both(user, item)[0], expected)


def test_drawn_items_are_such_as_the_user_does_not_have() -> None:
    data = of_interactions(
        ["a"] * 6 + ["b"], [f"i{n}" for n in (0, 1, 2, 3, 4, 5, 9)], np.arange(7)
    )
    examples = _examples(data)
    random = torch.Generator().manual_seed(0)
    drawn = examples.draw(torch.zeros(4000, dtype=torch.int64), 2, random)
    assert drawn.shape == (4000, 2)
    assert set(drawn.unique().tolist()) <= set(range(7))
    # Six of seven items are hers: four draws leave (6/7)^4 of them, not 6/7.
    assert (drawn != 6).float().mean() == pytest.approx((6 / 7) ** 4, abs=0.03)


def test_the_maps_first_solution_is_that_of_the_normal_equations() -> None:
    network, data = random_network(), some_data()
    random = torch.Generator().manual_seed(0)
    mapped = HistoryMapFit(network, data, 10, random)
    x = []
    begins = data.begins()
    for user in range(6):
        mine = data.items[begins[user] : begins[user + 1]][::-1][:10]
        means = []
        for half in HALF_STEPS:
            share = 0.5 ** (np.arange(len(mine)) / half)
            means.append(share @ mapped.features[mine] / share.sum())
        x.append(np.concatenate(means))
    X = np.array(x, np.float64)
    ridge = 1e-3 * np.trace(X.T @ X) / X.shape[1]
    expected = np.linalg.solve(
        X.T @ X + ridge * np.eye(X.shape[1]), X.T @ network.user_vectors().numpy()
    )
    np.testing.assert_allclose(
        mapped.matrix().reshape(X.shape[1], -1), expected, rtol=1e-2, atol=1e-3
    )


def test_tuning_the_map_lowers_its_loss_and_leaves_the_network_alone() -> None:
    network, data = random_network(), some_data()
    before = {name: value.clone() for name, value in network.named_parameters()}
    random = torch.Generator().manual_seed(0)
    losses = list(HistoryMapFit(network, data, 10, random).tune(60, random))
    assert np.mean(losses[-10:]) < np.mean(losses[:10])
    for name, value in network.named_parameters():
        torch.testing.assert_close(value, before[name])
        assert value.grad is None


def test_ten_pairs_can_be_learned_by_heart() -> None:
    data = of_interactions([f"u{n}" for n in range(10)], [f"i{n}" for n in range(10)], range(10))
    model = NeuMF(factors=8, mlp_factors=8, epochs=150, batch=10, learning_rate=0.02)
    fitted = model.fit(data, Run())
    scores = fitted.user_vectors[:, :8] @ fitted.item_vectors.T
    assert (scores.argmax(1) == np.arange(10)).mean() >= 0.9


def test_pretraining_is_done_when_asked_for() -> None:
    told = []
    model = NeuMF(factors=4, mlp_factors=4, epochs=2, pretrain_epochs=3, map_epochs=1)
    model.fit(some_data(), Run(progress=lambda _, done, total: told.append((done, total))))
    assert told == [(n, 9) for n in range(1, 10)]


def test_torchs_threads_are_as_before() -> None:
    before = torch.get_num_threads()
    NeuMF(factors=2, mlp_factors=4, epochs=1, map_epochs=0).fit(
        some_data(), Run(threads=before + 1)
    )
    assert torch.get_num_threads() == before
