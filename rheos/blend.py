"""A blend: several layers' opinions on candidates become one score, as a generation learned it."""

from collections.abc import Mapping, Sequence
from typing import Protocol

from rheos.state import Float64s


class Blend(Protocol):
    """Pure and thread-safe."""

    @property
    def features(self) -> Sequence[str]:
        """The names of what it reads of the candidates."""

    def score(self, features: Mapping[str, Float64s]) -> Float64s:
        """Scores (n,) of n candidates from their ``features``, (n,) each; NaN: cannot be told."""
