"""MLP: a multi-layer perceptron over the vectors of user and item.

He, Liao, Zhang, Nie, Hu & Chua, "Neural Collaborative Filtering" (WWW 2017), eq. 10.
"""

from collections.abc import Mapping
from typing import Annotated, ClassVar

from msgspec import Meta, Struct

from trainer.data_set import DataSet
from trainer.models.model import Capability, Fitted, Run
from trainer.models.neumf_fit import Plan, fit
from trainer.models.neumf_generation import Reading
from trainer.models.neumf_training import Descent
from trainer.search_space import Range


class Mlp(Struct, frozen=True, forbid_unknown_fields=True):
    """logit = gᵀ MLP(v, w) + bias of the user + bias of the item.

    Retrieved by its best linear approximation, ranked by itself.

    A pair counts with the size of its mean weight; a pair of negative weight is a target of 0.
    """

    mlp_factors: Annotated[
        int, Meta(ge=2, le=512, description="Width of the first layer, and of what enters it.")
    ] = 64
    mlp_layers: Annotated[
        int, Meta(ge=1, le=8, description="Layers, each half as wide as the one before.")
    ] = 3
    epochs: Annotated[int, Meta(ge=1, le=1000, description="Passes over the interactions.")] = 15
    warm_epochs: Annotated[
        int, Meta(ge=1, le=1000, description="Passes where a fit starts from the last one.")
    ] = 10
    negatives: Annotated[
        int, Meta(ge=1, le=1000, description="k: items drawn at random against each taken one.")
    ] = 8
    batch: Annotated[int, Meta(ge=1, description="Interactions a step.")] = 512
    learning_rate: Annotated[
        float, Meta(gt=0, description="Adam's step at the start; it falls to 0.")
    ] = 0.005
    regularisation: Annotated[
        float, Meta(ge=0, description="λ: L2 for each example of what enters; layers: λ / 100.")
    ] = 0.004
    dropout: Annotated[
        float, Meta(ge=0, lt=1, description="Share of the first layer's numbers left out.")
    ] = 0.0
    half_steps: Annotated[
        float, Meta(gt=0, description="Fold-in: items after which a history's weight halves.")
    ] = 10.0
    last: Annotated[
        int, Meta(ge=1, le=10_000, description="Fold-in: latest distinct items that it reads.")
    ] = 100

    name: ClassVar[str] = "mlp"
    can: ClassVar[frozenset[Capability]] = frozenset(
        {"item_vectors", "fold_in", "rerank", "probabilities", "warm_start", "distributed"}
    )
    space: ClassVar[Mapping[str, Range]] = {
        "mlp_factors": Range(16, 256, log=True),
        "mlp_layers": Range(1, 4),
        "epochs": Range(5, 60, log=True),
        "learning_rate": Range(0.001, 0.05, log=True),
        "regularisation": Range(1e-4, 0.05, log=True),
        "dropout": Range(0.0, 0.6),
        "half_steps": Range(1.0, 1e4, log=True),
    }

    def fit(self, data: DataSet, run: Run) -> Fitted:
        how = Descent(
            *(self.batch, self.negatives, self.regularisation, self.learning_rate),
            self.regularisation,
            unseen=True,
            dropout=self.dropout,
        )
        plan = Plan(how, self.epochs, self.warm_epochs, Reading(self.half_steps, self.last))
        return fit(plan, data, run, mlp_factors=self.mlp_factors, mlp_layers=self.mlp_layers)
