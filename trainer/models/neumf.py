"""NeuMF: generalised matrix factorisation and a multi-layer perceptron, fused.

He, Liao, Zhang, Nie, Hu & Chua, "Neural Collaborative Filtering" (WWW 2017), eq. 12.
"""

from collections.abc import Mapping
from typing import Annotated, ClassVar

from msgspec import Meta, Struct

from trainer.data_set import DataSet
from trainer.models.model import Capability, Fitted, Run
from trainer.models.neumf_fit import Plan, check_members, fit
from trainer.models.neumf_generation import Reading
from trainer.models.neumf_training import Descent
from trainer.models.stochastic_descent import StochasticDescent
from trainer.search_space import Range


class NeuMF(Struct, frozen=True, forbid_unknown_fields=True):
    """logit = hᵀ(p ⊙ q) + gᵀ MLP(v, w) + bias of the user + bias of the item.

    GMF and MLP are trained alone first, then joined with half a say each (section 3.4.1) and
    trained on together; where MLP is not, GMF has all of the say at the start. Retrieved with MLP's
    best linear approximation, ranked by the whole.

    A pair counts with the size of its mean weight; a pair of negative weight is a target of 0.
    """

    factors: Annotated[int, Meta(ge=1, le=1024, description="Length d of GMF's vectors.")] = 64
    mlp_factors: Annotated[
        int, Meta(ge=2, le=512, description="Width of MLP's first layer, and of what enters it.")
    ] = 64
    mlp_layers: Annotated[
        int, Meta(ge=1, le=8, description="MLP's layers, each half as wide as the one before.")
    ] = 3
    gmf_members: Annotated[
        int, Meta(ge=1, le=32, description="Descents of GMF alone that share its factors.")
    ] = 1
    gmf_epochs: Annotated[
        int,
        Meta(ge=0, le=1000, description="Passes of GMF alone before; 0: nothing is trained alone."),
    ] = 128
    mlp_epochs: Annotated[int, Meta(ge=0, le=1000, description="Passes of MLP alone before.")] = 0
    epochs: Annotated[int, Meta(ge=1, le=1000, description="Passes of both together.")] = 1
    warm_epochs: Annotated[
        int, Meta(ge=1, le=1000, description="Passes where a fit starts from the last one.")
    ] = 32
    negatives: Annotated[
        int, Meta(ge=1, le=1000, description="k: items drawn at random against each taken one.")
    ] = 8
    batch: Annotated[int, Meta(ge=1, description="Interactions a step.")] = 2048
    gmf_learning_rate: Annotated[
        float, Meta(gt=0, description="A step's length at the start for GMF alone, as for MF.")
    ] = 0.01
    mlp_learning_rate: Annotated[
        float, Meta(gt=0, description="Adam's step at the start for MLP alone.")
    ] = 0.01
    learning_rate: Annotated[float, Meta(gt=0, description="The same for both together.")] = 2e-5
    regularisation: Annotated[
        float, Meta(ge=0, description="λ: L2 for each example that a vector stands in.")
    ] = 0.005
    mlp_regularisation: Annotated[
        float, Meta(ge=0, description="The same for MLP's vectors; its layers have a hundredth.")
    ] = 0.004
    half_steps: Annotated[
        float, Meta(gt=0, description="Fold-in: items after which a history's weight halves.")
    ] = 10.0
    last: Annotated[
        int, Meta(ge=1, le=10_000, description="Fold-in: latest distinct items that it reads.")
    ] = 100

    name: ClassVar[str] = "neumf"
    can: ClassVar[frozenset[Capability]] = frozenset(
        {"item_vectors", "fold_in", "rerank", "probabilities", "warm_start", "distributed"}
    )
    space: ClassVar[Mapping[str, Range]] = {
        "factors": Range(16, 256, log=True),
        "mlp_factors": Range(16, 256, log=True),
        "gmf_epochs": Range(32, 256, log=True),
        "gmf_learning_rate": Range(0.002, 0.05, log=True),
        "learning_rate": Range(1e-5, 1e-3, log=True),
        "regularisation": Range(5e-4, 0.05, log=True),
        "mlp_regularisation": Range(1e-4, 0.05, log=True),
        "half_steps": Range(1.0, 1e4, log=True),
    }

    def fit(self, data: DataSet, run: Run) -> Fitted:
        check_members("neumf", self.factors, self.gmf_members)
        how = Descent(
            *(self.batch, self.negatives, self.regularisation, self.learning_rate),
            self.mlp_regularisation,
        )
        of_gmf = StochasticDescent(self.negatives, self.regularisation, self.gmf_learning_rate)
        of_mlp = how._replace(learning_rate=self.mlp_learning_rate, unseen=True)
        alone = ((of_gmf, self.gmf_epochs), (of_mlp, self.mlp_epochs))
        reading = Reading(self.half_steps, self.last)
        plan = Plan(how, self.epochs, self.warm_epochs, reading, alone, self.gmf_members)
        sizes = {name: getattr(self, name) for name in ("factors", "mlp_factors", "mlp_layers")}
        return fit(plan, data, run, **sizes)
