"""The compiled descent against the written-out loss, and what it must not do."""

import numpy as np
import pytest
import torch

from trainer.data_set import DataSet, of_interactions
from trainer.early_stopping import DivergedError
from trainer.models.neumf_network import Network, Sizes
from trainer.models.neumf_training import examples_of
from trainer.models.stochastic_descent import SPREAD, StochasticDescent, descend

CPU = torch.device("cpu")


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def some_data(weights: bool = True) -> DataSet:
    random = np.random.default_rng(0)
    return of_interactions(
        [f"u{n}" for n in random.integers(6, size=30)],
        [f"i{n}" for n in random.integers(9, size=30)],
        np.arange(30),
        random.choice([1.0, 0.4, -1.0], 30) if weights else None,
    )


def network_for(data: DataSet, factors: int = 3) -> Network:
    sizes = Sizes(len(data.user_ids), len(data.item_ids), factors)
    return Network(sizes, generator(1), weigh=False, spread=SPREAD)


def expected_gradients(
    network: Network, data: DataSet, how: StochasticDescent
) -> tuple[torch.Tensor, ...]:
    """Of an epoch's loss, the drawn items at their expectation: each stands for all items."""
    users = network.users.detach().clone().requires_grad_()
    q = network.q.detach().clone().requires_grad_()
    bias = network.bias.detach().clone().requires_grad_()
    examples, total = examples_of(data, CPU), torch.zeros(())
    mean = float(examples.weights.mean())

    def loss(user: int, item: int, target: float) -> torch.Tensor:
        z = users[user, :-1] @ q[item] + users[user, -1] + bias[item]
        entropy = torch.nn.functional.binary_cross_entropy_with_logits(z, torch.tensor(target))
        touched = users[user].square().sum() + q[item].square().sum() + bias[item].square()
        return entropy + how.regularisation / 2 * touched

    for user, taken, target, weight in zip(*(part.tolist() for part in examples[:4]), strict=True):
        weight /= mean
        total = total + weight * loss(user, taken, target)
        for item in range(len(q)):
            total = total + how.negatives * weight / len(q) * loss(user, item, 0.0)
    torch.autograd.backward(total)
    assert users.grad is not None
    assert q.grad is not None
    assert bias.grad is not None
    # What all scores share moves with every example: L2 is 0 where the biases begin, as they do.
    return users.grad, q.grad, bias.grad + bias.grad.sum()


def test_an_epoch_of_small_steps_goes_down_the_loss_s_gradient() -> None:
    data, how = some_data(), StochasticDescent(4, 0.05, 1e-4)
    gradients = expected_gradients(network_for(data), data, how)
    moves = [torch.zeros_like(part) for part in gradients]
    times = 300
    for seed in range(times):  # what is drawn averages out
        network = network_for(data)
        before = [part.detach().clone() for part in (network.users, network.q, network.bias)]
        list(descend(network, examples_of(data, CPU), how, 1, generator(seed)))
        after = (network.users, network.q, network.bias)
        for move, old, new in zip(moves, before, after, strict=True):
            move += (new.detach() - old) / times
    for move, gradient in zip(moves, gradients, strict=True):
        expected = -how.learning_rate * gradient
        assert torch.nn.functional.cosine_similarity(
            move.flatten(), expected.flatten(), dim=0
        ) == pytest.approx(1.0, abs=0.01)
        assert float(move.norm()) == pytest.approx(float(expected.norm()), rel=0.05)


def test_a_pair_of_a_great_weight_makes_no_great_step() -> None:
    weights = [1.0] * 200 + [200.0]
    users, items = ["u"] * 201, [f"i{n}" for n in range(201)]
    data, how = of_interactions(users, items, range(201), weights), StochasticDescent(2, 0.01, 0.1)
    network = network_for(data, factors=8)
    losses = list(descend(network, examples_of(data, CPU), how, 20, generator()))
    assert np.isfinite(losses).all()
    assert float(network.users.abs().max()) < 5
    scores = network.inner_block(network.users, torch.arange(201)).detach()[0]
    assert data.item_ids[int(scores.argmax())] == "i200"


def test_ten_pairs_can_be_learned_by_heart() -> None:
    data = of_interactions([f"u{n}" for n in range(10)], [f"i{n}" for n in range(10)], range(10))
    network = network_for(data, factors=8)
    how = StochasticDescent(8, 0.0, 0.1)
    losses = list(descend(network, examples_of(data, CPU), how, 400, generator()))
    assert losses[-1] < 0.5 * losses[0]  # what was taken is drawn against too, now and then
    scores = network.inner_block(network.users, torch.arange(10)).detach()
    assert (scores.argmax(1) == torch.arange(10)).all()


def test_the_same_generator_gives_the_same_numbers() -> None:
    data, how = some_data(), StochasticDescent(2, 0.01, 0.05)
    made = [network_for(data) for _ in range(3)]
    for network, seed in zip(made, (5, 5, 6), strict=True):
        list(descend(network, examples_of(data, CPU), how, 3, generator(seed)))
    assert torch.equal(made[0].users, made[1].users)
    assert not torch.equal(made[0].users, made[2].users)


def test_steps_that_explode_are_told() -> None:
    data = some_data(weights=False)
    how = StochasticDescent(2, 0.0, 1e20)
    with pytest.raises(DivergedError):
        list(descend(network_for(data), examples_of(data, CPU), how, 20, generator()))
