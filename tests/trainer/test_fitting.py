"""What a fit that went wrong becomes, whatever went wrong."""

from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np
import pytest

from rheos.state import Float32s
from trainer.data_set import DataSet, of_interactions
from trainer.early_stopping import EarlyStopping
from trainer.fitting import FitError, fit
from trainer.models.als import Als
from trainer.models.model import Fitted, Run

DATA = of_interactions(["a", "a", "b"], ["x", "y", "x"], [1, 2, 3])


class Losing(Als, frozen=True):
    """An ALS that watches a loss of its own, and keeps what it is told to."""

    name: ClassVar[str] = "losing"
    losses: tuple[float, ...] = ()
    keep: Any = None

    def fit(self, data: DataSet, run: Run) -> Fitted:
        stopping = EarlyStopping(patience=3)
        for loss in self.losses:
            stopping.check(loss)
        kept: Mapping[str, Float32s] = self.keep or {}
        return super().fit(data, run)._replace(keep=kept)


@pytest.mark.parametrize(
    ("losses", "text"),
    [
        ((0.7, float("nan")), "the loss is nan"),
        ((0.7, 0.6, 900.0), r"the loss is 900, at first it was 0\.7"),
    ],
)
def test_a_loss_that_goes_astray_is_told_as_divergence(
    losses: tuple[float, ...], text: str
) -> None:
    with pytest.raises(FitError, match=f"losing diverged: {text}.*smaller learning rate"):
        fit(Losing(factors=2, losses=losses), DATA, Run())


def test_what_is_kept_for_the_next_fit_is_finite() -> None:
    kept = {"user.p": np.array([[np.nan], [1.0]], np.float32)}
    with pytest.raises(FitError, match=r"kept user\.p has NaN"):
        fit(Losing(factors=2, keep=kept), DATA, Run())
    kept = {"user.p": np.ones((2, 1), np.float32)}
    assert fit(Losing(factors=2, keep=kept), DATA, Run()).keep == kept
