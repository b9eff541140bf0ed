"""MF: matrix factorisation with the logistic loss.

Rendle, Krichene, Zhang & Anderson, "Neural Collaborative Filtering vs. Matrix Factorization
Revisited" (RecSys 2020): a plain inner product with biases, trained as He et al. (WWW 2017) train
theirs, is as good as what they hold against it.
"""

from collections.abc import Mapping
from typing import Annotated, ClassVar

from msgspec import Meta, Struct

from trainer.data_set import DataSet
from trainer.models.model import Capability, Fitted, Run
from trainer.models.neumf_fit import Plan, check_members, fit
from trainer.models.neumf_generation import Reading
from trainer.models.stochastic_descent import StochasticDescent
from trainer.search_space import Range


class Mf(Struct, frozen=True, forbid_unknown_fields=True):
    """logit = p·q + bias of the user + bias of the item; NeuMF's loss, descended by example.

    A pair counts with the size of its mean weight; a pair of negative weight is a target of 0.
    """

    factors: Annotated[int, Meta(ge=1, le=1024, description="Length d of the vectors.")] = 64
    members: Annotated[
        int, Meta(ge=1, le=32, description="Descents that share the factors and are averaged.")
    ] = 1
    epochs: Annotated[int, Meta(ge=1, le=1000, description="Passes over the interactions.")] = 128
    warm_epochs: Annotated[
        int, Meta(ge=1, le=1000, description="Passes where a fit starts from the last one.")
    ] = 32
    negatives: Annotated[
        int, Meta(ge=1, le=1000, description="Items drawn at random against each taken one.")
    ] = 8
    learning_rate: Annotated[
        float, Meta(gt=0, description="A step's length at the start; it falls to 0.")
    ] = 0.01
    regularisation: Annotated[
        float, Meta(ge=0, description="λ: L2 for each example that a vector stands in.")
    ] = 0.005
    half_steps: Annotated[
        float, Meta(gt=0, description="Fold-in: items after which a history's weight halves.")
    ] = 10.0
    last: Annotated[
        int, Meta(ge=1, le=10_000, description="Fold-in: latest distinct items that it reads.")
    ] = 100

    name: ClassVar[str] = "mf"
    can: ClassVar[frozenset[Capability]] = frozenset(
        {"item_vectors", "fold_in", "probabilities", "warm_start"}
    )
    space: ClassVar[Mapping[str, Range]] = {
        "factors": Range(16, 256, log=True),
        "epochs": Range(32, 256, log=True),
        "learning_rate": Range(0.002, 0.05, log=True),
        "regularisation": Range(5e-4, 0.05, log=True),
        "half_steps": Range(1.0, 1e4, log=True),
    }

    def fit(self, data: DataSet, run: Run) -> Fitted:
        check_members("mf", self.factors, self.members)
        how = StochasticDescent(self.negatives, self.regularisation, self.learning_rate)
        reading = Reading(self.half_steps, self.last)
        plan = Plan(how, self.epochs, self.warm_epochs, reading, members=self.members)
        return fit(plan, data, run, factors=self.factors, weigh=False)
