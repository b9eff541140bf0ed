"""A blend: several layers' opinions on candidates become one score, as a generation learned it."""

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import numpy as np

from rheos.state import Float64s

SHORTLIST = 200
"""So many candidates, the best by the blend's weights, are scored."""


class Blend(Protocol):
    """Pure and thread-safe. Layers and features are those of ``indexer.ranking``, by name."""

    @property
    def weights(self) -> Mapping[str, float]:
        """What each layer's z-score counts when candidates are picked for ``score``.

        Where the weighted z-scores of a candidate stand highest is its source.
        """

    @property
    def features(self) -> Sequence[str]:
        """The names of what ``score`` reads of the candidates."""

    def score(self, features: Mapping[str, Float64s]) -> Float64s:
        """Scores (n,) of n candidates from their ``features``, (n,) each; NaN: cannot be told."""

    def parameters(self) -> dict[str, Any]:
        """What its kind is loaded with, as a manifest holds it; ``kind`` names that."""

    def tensors(self) -> dict[str, np.ndarray]:
        """What it is loaded with beside, as a snapshot holds it."""
