"""What an item is like, as a vector: for items that have no events yet."""

from collections.abc import Sequence
from typing import Protocol

from rheos.catalogue import Item
from rheos.state import Float32s


class Content(Protocol):
    """Pure and thread-safe: the same record gives the same vector."""

    def encode(self, items: Sequence[Item]) -> Float32s:
        """Item vectors (n, d) of the generation's space; a row of zeros tells nothing."""
