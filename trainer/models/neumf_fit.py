"""A fit of NeuMF or of one of its parts, from data to generation."""

from typing import NamedTuple

import torch

from trainer.data_set import DataSet
from trainer.device import device_of, torch_threads
from trainer.distributed import as_the_first
from trainer.models.model import Fitted, Run
from trainer.models.neumf_generation import Reading, fitted_of, start_from
from trainer.models.neumf_network import Network, Sizes
from trainer.models.neumf_training import Descent, examples_of, train
from trainer.models.stochastic_descent import SPREAD, StochasticDescent, descend

WARM_RATE = 0.25
"""A fit that starts from the last one begins with so much of the learning rate."""

HALF = 0.5
"""α of section 3.4.1; with an untrained MLP, GMF has all of the say at the start."""


class Plan(NamedTuple):
    """``epochs`` from the beginning, or ``warm_epochs`` from where the last fit ended.

    ``pretraining`` are the branches' own descents and epochs (section 3.4.1), GMF's first.
    ``members``: an inner product that is trained alone is the mean of so many, which share the
    factors, each with its own descent from its own beginning. A fit from the last one goes on with
    all as one.
    """

    how: Descent | StochasticDescent
    epochs: int
    warm_epochs: int
    reading: Reading
    pretraining: tuple[tuple[Descent | StochasticDescent, int], ...] = ()
    members: int = 1


def check_members(model: str, factors: int, members: int) -> None:
    """Raises ValueError where members cannot share the factors."""
    if factors % members:
        raise ValueError(f"{model}: factors = {factors} are not members = {members} times")


def fit(
    plan: Plan,
    data: DataSet,
    run: Run,
    *,
    factors: int = 0,
    mlp_factors: int = 0,
    mlp_layers: int = 1,
    weigh: bool = True,
) -> Fitted:
    """Raises ValueError where no weight is above 0, DivergedError where the loss goes astray."""
    with torch_threads(run.threads):
        device = device_of(run.device)
        random = torch.Generator().manual_seed(run.seed)
        examples = examples_of(data, device)
        users, items = len(data.user_ids), len(data.item_ids)

        def network(factors: int, mlp_factors: int, how: Descent | StochasticDescent) -> Network:
            sizes = Sizes(users, items, factors, mlp_factors, mlp_layers)
            spread = SPREAD if isinstance(how, StochasticDescent) else None
            return Network(sizes, random, weigh=weigh, spread=spread).to(device)

        alone = plan.pretraining
        if not alone or not alone[0][1]:
            alone = ()  # without a trained GMF there is nothing to join
        made = network(factors, mlp_factors, alone[0][0] if alone else plan.how)
        losses: list[float] = []
        if run.start is not None:
            total = plan.warm_epochs + (plan.epochs if alone and not alone[1][1] else 0)
        elif alone:
            total = plan.members * alone[0][1] + alone[1][1] + plan.epochs
        else:
            total = plan.members * plan.epochs

        def learn(part: Network, how: Descent | StochasticDescent, count: int) -> None:
            if isinstance(how, StochasticDescent):
                passes = descend(part, examples, how, count, random)
            else:
                passes = train(part, examples, how, count, random)
            for loss in passes:
                losses.append(loss)
                run.progress("fit", len(losses), total)
            if isinstance(how, StochasticDescent):  # which each process does for itself
                as_the_first([part.users, *part.parameters()])

        def learn_mean(whole: Network, how: Descent | StochasticDescent, count: int) -> None:
            if plan.members == 1:
                learn(whole, how, count)
                return
            parts = [network(factors // plan.members, 0, how) for _ in range(plan.members)]
            for part in parts:
                learn(part, how, count)
            whole.average(parts)

        if run.start is not None:
            start_from(made, run.start, data)
            if alone and not alone[1][1]:
                # The inner product goes on as it began; MLP, never trained alone, adds little.
                learn(made, _gently(alone[0][0]), plan.warm_epochs)
                learn(made, plan.how, plan.epochs)
            else:
                # Together, and in steps that new users and items can learn by.
                learn(made, _gently(alone[1][0] if alone else plan.how), plan.warm_epochs)
        elif alone:
            (of_gmf, gmf_epochs), (of_mlp, mlp_epochs) = alone
            gmf, mlp = network(factors, 0, of_gmf), network(0, mlp_factors, of_mlp)
            learn_mean(gmf, of_gmf, gmf_epochs)
            learn(mlp, of_mlp, mlp_epochs)
            made.join(gmf, mlp, HALF if mlp_epochs else 1.0)
            learn(made, plan.how, plan.epochs)
        else:
            learn_mean(made, plan.how, plan.epochs)
        return fitted_of(made, data, plan.how, plan.reading, losses, random)


def _gently(how: Descent | StochasticDescent) -> Descent | StochasticDescent:
    return how._replace(learning_rate=WARM_RATE * how.learning_rate)
