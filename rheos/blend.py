"""A blend: several layers' opinions on candidates become one score, as a generation learned it."""

from collections.abc import Mapping, Sequence
from typing import Protocol

from rheos.state import Float64s


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
