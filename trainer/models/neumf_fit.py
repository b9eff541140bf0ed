"""A fit of NeuMF or of one of its parts, from data to generation."""

from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import torch

from trainer.data_set import DataSet
from trainer.device import device_of, torch_threads
from trainer.distributed import as_the_first
from trainer.models.model import Fitted, Run
from trainer.models.neumf_generation import Reading, fitted_of, start_from
from trainer.models.neumf_network import Network, Sizes
from trainer.models.neumf_training import Descent, Examples, examples_of, train
from trainer.models.stochastic_descent import SPREAD, StochasticDescent, descend

WARM_RATE = 0.25
"""A fit that starts from the last one begins with so much of the learning rate."""

HALF = 0.5
"""α of section 3.4.1; with an untrained MLP, GMF has all of the say at the start."""


class Plan(NamedTuple):
    """``epochs`` from the beginning, or ``warm_epochs`` from where the last fit ended.

    ``pretraining`` are the branches' own descents and epochs (section 3.4.1), GMF's first; without
    epochs of GMF neither is trained alone. ``members``: an inner product that is trained alone is
    the mean of so many, which share the factors, each with its own descent from its own beginning.
    A fit from the last one goes on with all as one.
    """

    how: Descent | StochasticDescent
    epochs: int
    warm_epochs: int
    reading: Reading
    pretraining: tuple[tuple[Descent | StochasticDescent, int], ...] = ()
    members: int = 1


class Stage(NamedTuple):
    """``epochs`` of one descent of ``network``, then what makes the next stage's from it."""

    network: Network
    how: Descent | StochasticDescent
    epochs: int
    then: Callable[[], None] = lambda: None


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

        def mean_of_members(
            whole: Network, how: Descent | StochasticDescent, epochs: int
        ) -> list[Stage]:
            if plan.members == 1:
                return [Stage(whole, how, epochs)]
            parts = [network(factors // plan.members, 0, how) for _ in range(plan.members)]
            *before, last = (Stage(part, how, epochs) for part in parts)
            return [*before, last._replace(then=lambda: whole.average(parts))]

        alone = plan.pretraining if plan.pretraining and plan.pretraining[0][1] else ()
        made = network(factors, mlp_factors, alone[0][0] if alone else plan.how)
        if run.start is not None:
            start_from(made, run.start, data)
            stages = _warm(made, plan, alone)
        elif alone:
            (of_gmf, gmf_epochs), (of_mlp, mlp_epochs) = alone
            gmf, mlp = network(factors, 0, of_gmf), network(0, mlp_factors, of_mlp)
            alpha = HALF if mlp_epochs else 1.0
            stages = [
                *mean_of_members(gmf, of_gmf, gmf_epochs),
                Stage(mlp, of_mlp, mlp_epochs, lambda: made.join(gmf, mlp, alpha)),
                Stage(made, plan.how, plan.epochs),
            ]
        else:
            stages = mean_of_members(made, plan.how, plan.epochs)
        total = sum(stage.epochs for stage in stages)
        losses: list[float] = []
        for stage in stages:
            for loss in _passes(stage, examples, random):
                losses.append(loss)
                run.progress("fit", len(losses), total)
            stage.then()
        return fitted_of(made, data, plan.how, plan.reading, losses, random)


def _warm(
    made: Network, plan: Plan, alone: Sequence[tuple[Descent | StochasticDescent, int]]
) -> list[Stage]:
    """From where the last fit ended, in steps that new users and items can learn by."""
    if not alone:
        return [Stage(made, _gently(plan.how), plan.warm_epochs)]
    (of_gmf, _), (of_mlp, mlp_epochs) = alone
    if mlp_epochs:
        return [Stage(made, _gently(of_mlp), plan.warm_epochs)]
    # The inner product goes on as it began; MLP, never trained alone, adds little.
    return [Stage(made, _gently(of_gmf), plan.warm_epochs), Stage(made, plan.how, plan.epochs)]


def _passes(stage: Stage, examples: Examples, random: torch.Generator) -> Iterator[float]:
    network, how, epochs, _ = stage
    if not isinstance(how, StochasticDescent):
        yield from train(network, examples, how, epochs, random)
        return
    yield from descend(network, examples, how, epochs, random)
    as_the_first([network.users, *network.parameters()])  # each process descended for itself


def _gently(how: Descent | StochasticDescent) -> Descent | StochasticDescent:
    return how._replace(learning_rate=WARM_RATE * how.learning_rate)
