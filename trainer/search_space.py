"""What ``rheos tune`` may try of a model's parameters.

A model declares it in the class: ``space: ClassVar[Mapping[str, Range]]``; one that does not has
nothing to tune.
"""

from collections.abc import Mapping
from typing import NamedTuple

from trainer.models.model import Model


class Range(NamedTuple):
    """From ``low`` to ``high``, both included; whole numbers where both are. ``log``: even in the
    logarithm, for what matters by its size.
    """

    low: float
    high: float
    log: bool = False

    @property
    def is_whole(self) -> bool:
        return isinstance(self.low, int) and isinstance(self.high, int)


def space_of(model: type[Model]) -> Mapping[str, Range]:
    """The declared ranges by parameter; empty where none are."""
    found: Mapping[str, Range] = getattr(model, "space", {})
    return found
