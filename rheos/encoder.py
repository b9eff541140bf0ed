"""The user encoder: history → vector. What a generation carries instead of user vectors."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple, Protocol

from rheos.catalogue import UserAttributes
from rheos.state import Float32s, History


class EncoderContext(NamedTuple):
    """What an encoder may build on: the generation's rows and item vectors (N, d)."""

    row_of: Mapping[str, int]
    item_vectors: Float32s


class Encoder(Protocol):
    """Pure and thread-safe: the same history gives the same vector, up to 4e-7 by batch mates."""

    @property
    def dimensions(self) -> int:
        """Length of a user vector; its first d numbers are the retrieval vector."""

    @property
    def reads_attributes(self) -> bool:
        """Whether what is known of a user beside the history moves the vector.

        The stream, which does not know it, encodes without; the indexer then encodes on read.
        """

    def encode(
        self,
        histories: Sequence[History],
        attributes: Sequence[UserAttributes | None] | None = None,
    ) -> Float32s:
        """Vectors (B, dimensions); a row of zeros where the generation knows nothing of a user.

        ``attributes`` (B,): what is known of each, None for nothing.
        """

    def terms(self, history: History, item_ids: Sequence[str]) -> list[list[tuple[str, float]]]:
        """Per item the history's items and what each adds to its score (sum = retrieval score).

        Empty lists from an encoder that cannot take its vectors apart.
        """
