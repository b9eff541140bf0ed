"""A blend: several layers' opinions on candidates become one score, as a generation learned it."""

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import numpy as np

from rheos.state import Float64s

SHORTLIST = 200
"""So many candidates, the best by the blend's weights, are scored."""


OF_LAYERS = ("z", "rank", "share")
OF_FACTS = ("count", "age", "price", "relative_price", "session", "history", "idle")
"""Features by name: ``far.z`` is one of a layer's, ``count`` one of those beside the layers. What
they are stands in ``indexer.ranking``.
"""


class Blend(Protocol):
    """Pure and thread-safe."""

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


def checked_features(names: Sequence[str]) -> list[str]:
    """Features as a manifest names them. Raises ValueError for one that cannot be computed."""
    for name in names:
        layer, _, kind = name.partition(".")
        if name not in OF_FACTS and not (layer and kind in OF_LAYERS):
            raise ValueError(f"blend: there is no feature {name!r}")
    return list(names)
