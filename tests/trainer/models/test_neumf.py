"""NeuMF's pieces: the network and its loss against the paper's formulas, NumPy against torch."""

import numpy as np
import pytest
import torch

from rheos.generation import Generation
from rheos.state import History
from trainer.data_set import DataSet, of_interactions
from trainer.evaluation.refit import in_memory
from trainer.fitting import make
from trainer.models.mf import Mf
from trainer.models.model import Fitted, Run, Start
from trainer.models.neumf import NeuMF
from trainer.models.neumf_generation import Reading, fitted_of
from trainer.models.neumf_network import Network, Sizes
from trainer.models.neumf_training import (
    Descent,
    _gradients,
    _Masks,
    _redraw,
    _taken,
    examples_of,
    train,
)
from trainer.models.row_adam import RowAdam

SIZES = Sizes(users=6, items=9, factors=5, mlp_factors=8, mlp_layers=3)
HOW = Descent(batch=4, negatives=3, regularisation=0.01, learning_rate=0.01)
HOW = HOW._replace(mlp_regularisation=0.005)
CPU = torch.device("cpu")
ITEMS = torch.arange(9)


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def random_network(seed: int = 0, sizes: Sizes = SIZES, scale: float = 1.0) -> Network:
    random = generator(seed)
    network = Network(sizes, random)
    with torch.no_grad():  # as far from its start as training takes it
        for tensor in (network.users, *network.parameters()):
            tensor.add_(scale * torch.randn(tensor.shape, generator=random))
    return network


def block(network: Network, users: torch.Tensor, items: torch.Tensor) -> torch.Tensor:
    """All logits of these users' rows and items."""
    return network.inner_block(users, items) + network.mlp_block(users, items)


def some_data() -> DataSet:
    random = np.random.default_rng(0)
    return of_interactions(
        [f"u{n}" for n in random.integers(6, size=30)],
        [f"i{n}" for n in random.integers(9, size=30)],
        np.arange(30),
        random.choice([1.0, 0.4, -1.0], 30),
    )


def served(network: Network, data: DataSet) -> tuple[Fitted, Generation]:
    fitted = fitted_of(network, data, HOW, Reading(1e6, 10), [], generator())
    return fitted, in_memory(make(1, NeuMF(), fitted, data, {}))


def test_the_network_is_equation_12_with_biases() -> None:
    network = random_network()
    user, item, d = 2, 7, SIZES.factors
    p, c, v = network.users[user, :d], network.users[user, d], network.users[user, d + 1 :]
    gmf = p * network.q[item]
    first = torch.cat(list(network.first))
    assert first.shape == (16, 8)
    hidden = torch.relu(torch.cat([v, network.w[item]]) @ first + network.first_bias)
    for weight, bias in zip(network.weights, network.biases, strict=True):
        hidden = torch.relu(hidden @ weight + bias)
    assert [weight.shape for weight in network.weights] == [(8, 4), (4, 2)]
    h = network.h / (network.h**2).mean() ** 0.5
    fused = torch.cat([h, network.out]) @ torch.cat([gmf, hidden])
    expected = fused + c + network.bias[item]
    of_block = block(network, network.users, ITEMS)[user, item]
    of_each = network.each(network.users[[user]], torch.tensor([[3, item]]))[0, 1]
    torch.testing.assert_close(of_block, expected)
    torch.testing.assert_close(of_each, expected)


@pytest.mark.parametrize("pairwise", [False, True])
def test_a_steps_gradient_is_that_of_the_loss_written_out(pairwise: bool) -> None:
    network, how = random_network(scale=0.2), HOW._replace(pairwise=pairwise)
    examples = examples_of(some_data(), CPU)
    assert {0.0, 1.0} == set(examples.targets.tolist())
    picked = torch.tensor([4, 0, len(examples.users) - 1, 1])  # of users that stand in it twice
    drawn = torch.tensor([[1, 4, 8], [0, 0, 3], [2, 5, 7], [6, 4, 1]])
    rows, found, counted = _gradients(network, examples, how, picked, drawn)
    mine = {name: value.grad.clone() for name, value in network.named_parameters()}
    assert len(rows) < len(picked)

    network.users.requires_grad_()
    network.zero_grad()
    loss, squares, weights = torch.zeros(()), torch.zeros(()), 0.0
    scores = block(network, network.users, ITEMS)

    def squares_of(user: int, item: int) -> torch.Tensor:
        p_and_c, v = network.users[user, :6], network.users[user, 6:]
        gmf = p_and_c.square().sum() + network.q[item].square().sum() + network.bias[item] ** 2
        layers = [*network.first, *network.weights, network.out]
        mlp = v.square().sum() + network.w[item].square().sum()
        mlp = mlp + 0.01 * sum(layer.square().sum() for layer in layers)
        return gmf + 0.5 * mlp

    for pair, others in zip(picked.tolist(), drawn.tolist(), strict=True):
        user, item = int(examples.users[pair]), int(examples.items[pair])
        weight, taken = float(examples.weights[pair]), bool(examples.targets[pair])
        terms = [(item, taken), *((other, False) for other in others)]
        for other, target in terms:
            squares = squares + weight * squares_of(user, other)
            weights += weight
            if not pairwise:
                chance = torch.sigmoid(scores[user, other])
                loss = loss - weight * torch.log(chance if target else 1 - chance)
        if pairwise:
            for other in others:
                apart = scores[user, item] - scores[user, other]
                loss = loss - weight * torch.log(torch.sigmoid(apart if taken else -apart))
    ((loss + HOW.regularisation / 2 * squares) / weights).backward()
    assert float(counted[1]) == pytest.approx(weights, rel=1e-4)
    assert float(counted[0]) == pytest.approx(float(loss.detach()), rel=1e-4)
    torch.testing.assert_close(found, network.users.grad[rows], rtol=1e-3, atol=1e-5)
    for name, value in network.named_parameters():
        torch.testing.assert_close(mine[name], value.grad, rtol=1e-3, atol=1e-5)


def test_dropout_leaves_out_its_share_and_makes_up_for_it() -> None:
    assert _Masks(0.0, 8, CPU, generator()).draw(4, 3) is None
    masks = _Masks(0.3, 8, CPU, generator())
    kept = masks.draw(500, 3)
    assert kept is not None
    assert kept.shape == (500, 3, 8)
    assert sorted(kept.unique().tolist()) == pytest.approx([0.0, 1 / 0.7])
    assert float((kept == 0).float().mean()) == pytest.approx(0.3, abs=0.02)
    assert not torch.equal(masks.draw(500, 3), kept)


def test_what_dropout_leaves_out_of_mlps_first_layer_is_not_there_and_not_learned() -> None:
    network, examples = random_network(), examples_of(some_data(), CPU)
    user, items = network.users[:2], torch.tensor([[3, 7], [0, 1]])
    kept = torch.zeros(2, 2, 8)
    kept[0, 0, 2:] = 2.0
    kept[1] = 1.0
    logits, whole = network.each(user, items, kept), network.each(user, items)
    torch.testing.assert_close(logits[1], whole[1])
    first = torch.relu(
        network.user_inputs(user)[0] + network.item_inputs(items)[0, 0] + network.first_bias
    )
    hidden = torch.cat([torch.zeros(2), 2 * first[2:]])
    for weight, bias in zip(network.weights, network.biases, strict=True):
        hidden = torch.relu(hidden @ weight + bias)
    without = network.inner_block(user, items[0])[0, 0]
    torch.testing.assert_close(logits[0, 0], without + hidden @ network.out)

    nothing = torch.zeros(2, 4, 8)
    picked, drawn = torch.arange(2), torch.tensor([[1, 4, 8], [0, 0, 3]])
    _gradients(network, examples, HOW._replace(mlp_regularisation=0.0), picked, drawn, nothing)
    assert all(float(half.grad.abs().max()) == 0 for half in network.first)


def test_items_that_a_user_has_taken_are_drawn_against_her_only_where_she_has_all() -> None:
    users = ["a"] * 3 + ["all"] * 9 + ["b"] * 2
    items = [f"i{n}" for n in (0, 3, 8, *range(9), 5, 6)]
    weights = np.where(np.arange(14) == 13, -1.0, 1.0)  # what b turned down is drawn as well
    examples = examples_of(of_interactions(users, items, np.arange(14), weights), CPU)
    owners = torch.arange(3).repeat_interleave(200)
    drawn = torch.randint(9, (600, 4), generator=generator())
    _redraw(drawn, owners, _taken(examples), 9, generator(1))
    assert [set(drawn[owners == user].flatten().tolist()) for user in range(3)] == [
        set(range(9)) - {0, 3, 8},
        set(range(9)),
        set(range(9)) - {5},
    ]


def test_row_adam_moves_its_rows_as_torchs_adam_and_no_others() -> None:
    table = torch.randn(5, 3, generator=generator())
    mine, theirs = table.clone(), torch.nn.Parameter(table[[1, 3]].clone())
    rows, optimiser = RowAdam(mine), torch.optim.Adam([theirs], 0.1, (0.9, 0.99), 1e-10)
    for step in range(4):
        gradient = torch.randn(2, 3, generator=generator(step))
        rows.step(torch.tensor([1, 3]), gradient, 0.1)
        theirs.grad = gradient
        optimiser.step()
    torch.testing.assert_close(mine[[1, 3]], theirs.detach())
    torch.testing.assert_close(mine[[0, 2, 4]], table[[0, 2, 4]])


def test_the_served_ranker_is_the_network() -> None:
    network, data = random_network(), some_data()
    fitted, generation = served(network, data)
    assert generation.ranker is not None
    with torch.no_grad():
        expected = block(network, network.users, ITEMS).numpy()
    rows = np.array([8, 0, 3, 3, 5])
    for user in range(6):
        found = generation.ranker.score(fitted.user_vectors[user], rows)
        np.testing.assert_allclose(found, expected[user, rows], atol=1e-4)
        assert found.dtype == np.float32
    # An encoded user goes the same way. What her vector has for MLP is v F₀.
    history = History(data.item_ids[:3], np.ones(3, np.float32), np.arange(3))
    vector = generation.encoder.encode([history])[0]
    inputs = torch.from_numpy(np.delete(vector, SIZES.factors))[None]
    with torch.no_grad():
        inputs[:, SIZES.factors + 1 :] @= torch.linalg.inv(network.first[0])
        expected = block(network, inputs, ITEMS)[0].numpy()
    found = generation.ranker.score(vector, np.arange(9))
    np.testing.assert_allclose(found, expected, atol=1e-4)


def test_retrieval_is_gmf_and_the_best_linear_function_of_mlps_input() -> None:
    sizes = SIZES._replace(users=400, factors=0)
    network, data = random_network(sizes=sizes), some_data()
    users = [f"u{n:03d}" for n in range(400)]
    items = [data.item_ids[n % 9] for n in range(400)]
    fitted, generation = served(network, of_interactions(users, items, np.arange(400)))
    with torch.no_grad():
        scores = network.mlp_block(network.users, ITEMS).numpy()
        scores += network.bias.numpy() + network.users[:, :1].numpy()
    retrieved = fitted.user_vectors @ generation.item_vectors.T
    left = np.square(retrieved - scores).sum(0)
    inputs = network.user_inputs(network.users).detach().numpy()
    a = np.hstack([inputs, np.ones((400, 1))])
    target = scores - network.users[:, :1].numpy()
    best = np.square(a @ np.linalg.lstsq(a, target, rcond=None)[0] - target).sum(0)
    assert (left <= 1.01 * best + 1e-3).all()


def test_joined_branches_have_half_a_say_each() -> None:
    gmf = random_network(1, SIZES._replace(mlp_factors=0))
    mlp = random_network(2, SIZES._replace(factors=0))
    both = random_network(3)
    both.join(gmf, mlp, 0.5)
    with torch.no_grad():
        alone = (block(gmf, gmf.users, ITEMS) + block(mlp, mlp.users, ITEMS)) / 2
        torch.testing.assert_close(block(both, both.users, ITEMS), alone)


def test_ten_pairs_can_be_learned_by_heart() -> None:
    data = of_interactions([f"u{n}" for n in range(10)], [f"i{n}" for n in range(10)], range(10))
    network = Network(Sizes(10, 10, factors=8), generator())
    how = HOW._replace(regularisation=0.0, learning_rate=0.1)
    losses = list(train(network, examples_of(data, CPU), how, 100, generator()))
    assert losses[-1] < 0.5 * losses[0]  # what was taken is drawn against too, now and then
    scores = block(network, network.users, torch.arange(10)).detach()
    assert (scores.argmax(1) == torch.arange(10)).all()


def test_pretraining_is_done_when_asked_for() -> None:
    told: list[tuple[int, int]] = []
    model = NeuMF(factors=4, mlp_factors=4, epochs=2, gmf_epochs=3, mlp_epochs=2)
    model.fit(some_data(), Run(progress=lambda _, done, total: told.append((done, total))))
    assert told == [(n, 7) for n in range(1, 8)]


def test_a_fit_that_starts_from_the_last_one_begins_where_that_ended() -> None:
    data = some_data()
    model = NeuMF(factors=4, mlp_factors=4, epochs=2, warm_epochs=1)
    first = model.fit(data, Run())
    start = Start(data.user_ids, data.item_ids, first.keep)
    told: list[int] = []
    again = model.fit(data, Run(seed=1, start=start, progress=lambda *step: told.append(step[2])))
    assert told == [3, 3, 3]  # its inner product alone, then both together
    other = model.fit(data, Run(seed=1))
    near = np.abs(again.item_vectors - first.item_vectors).mean()
    assert near < 0.2 * np.abs(other.item_vectors - first.item_vectors).mean()
    # New users and items begin at random.
    more = of_interactions(["u0", "new"], ["i0", "newer"], [1, 2])
    assert np.isfinite(model.fit(more, Run(start=start)).item_vectors).all()


def test_a_new_user_of_a_warm_fit_gets_what_is_hers() -> None:
    users = [f"u{n:02d}" for n in range(40) for _ in range(6)]
    items = [
        f"i{2 * (n * 7 % 10) + user % 2:02d}" for user in range(40) for n in range(user, user + 6)
    ]
    old = of_interactions(users[:-6], items[:-6], range(234))
    every = of_interactions(users, items, range(240))
    model = NeuMF(factors=4, mlp_factors=4, gmf_learning_rate=0.1, gmf_epochs=60, warm_epochs=20)
    start = Start(old.user_ids, old.item_ids, model.fit(old, Run()).keep)
    fitted = model.fit(every, Run(start=start))
    generation = in_memory(make(1, model, fitted, every, {}))
    scores = generation.ranker.score(fitted.user_vectors[39], np.arange(20))
    hers = np.array([int(item[1:]) % 2 for item in every.item_ids]) == 1
    assert scores[hers].mean() > scores[~hers].mean() + 1


def test_torchs_threads_are_as_before() -> None:
    before = torch.get_num_threads()
    model = NeuMF(factors=2, mlp_factors=4, epochs=1, gmf_epochs=0, mlp_epochs=0)
    model.fit(some_data(), Run(threads=before + 1))
    assert torch.get_num_threads() == before


def test_an_average_has_the_mean_of_its_members_logits() -> None:
    random = torch.Generator().manual_seed(3)
    parts = [Network(Sizes(5, 7, 4), random, weigh=False, spread=1.0) for _ in range(3)]
    for part in parts:
        part.users[:, -1] = torch.randn(5, generator=random)
        part.bias.data.copy_(torch.randn(7, generator=random))
    made = Network(Sizes(5, 7, 12), random, weigh=False)
    made.average(parts)
    every = torch.arange(7)
    expected = torch.stack([block(part, part.users, every) for part in parts]).mean(0)
    torch.testing.assert_close(block(made, made.users, every), expected)
    kept, lengths = parts[0].users[:, :-1].square().sum(1), made.users[:, :-1].square().sum(1)
    assert (lengths < 2 * kept.max()).all()  # L2 means the same to the fold-in


def test_members_of_mf_begin_apart_and_share_the_factors() -> None:
    data = of_interactions(["a", "a", "b", "c"], ["x", "y", "y", "z"], [1, 2, 3, 4])
    told: list[tuple[int, int]] = []
    run = Run(seed=1, progress=lambda stage, done, total: told.append((done, total)))
    one, two = (Mf(factors=4, members=members, epochs=3) for members in (1, 2))
    fitted = two.fit(data, run)
    assert told[-1] == (6, 6)
    assert fitted.item_vectors.shape == one.fit(data, run).item_vectors.shape
    halves = fitted.item_vectors[:, :2], fitted.item_vectors[:, 2:4]
    assert np.abs(halves[0] - halves[1]).min() > 1e-4
    assert np.isfinite(fitted.item_vectors).all()
    again = two.fit(data, run._replace(start=Start(data.user_ids, data.item_ids, fitted.keep)))
    assert told[-1] == (two.warm_epochs, two.warm_epochs)  # as one, from where they ended
    assert np.isfinite(again.item_vectors).all()
    with pytest.raises(ValueError, match="factors = 4 are not members = 3 times"):
        Mf(factors=4, members=3).fit(data, run)
