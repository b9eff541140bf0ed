"""The contract of a model: what it is fitted on, and what a generation needs to serve it."""

from collections.abc import Mapping
from typing import Any, ClassVar, NamedTuple, Protocol

from rheos.state import Float32s
from trainer.data_set import DataSet


class Progress(Protocol):
    """Told how far a long piece of work is; cheap, and never raises."""

    def __call__(self, stage: str, done: int, total: int) -> None: ...


def silent(stage: str, done: int, total: int) -> None:
    """A Progress that tells nobody."""


class Fitted(NamedTuple):
    """A fitted model, as a generation carries it.

    ``item_vectors`` (N, d): the inner product with a user vector's first d numbers is the
    retrieval score. ``encoder`` and ``ranker`` are parameters with their ``kind``, one of those in
    ``rheos.generation``; ``tensors`` is what the two load beside. ``user_vectors`` (U, dimensions)
    are the fitted vectors of the data set's users, in the encoder's form, for evaluation: they
    never leave the trainer.
    """

    item_ids: list[str]
    item_vectors: Float32s
    encoder: dict[str, Any]
    ranker: dict[str, Any] | None
    tensors: Mapping[str, Float32s]
    user_vectors: Float32s


class Model(Protocol):
    """A model and its parameters. An implementation is a frozen msgspec Struct: the fields are the
    parameters, each with a default, bounds and a doc line, so that wrong ones are named at once.
    """

    name: ClassVar[str]
    ranks: ClassVar[bool]
    """Whether its generations have a ranker."""
    explains: ClassVar[bool]
    """Whether its encoder takes a score apart into the terms of the history."""

    def fit(self, data: DataSet, *, seed: int, threads: int, progress: Progress) -> Fitted:
        """Fits on all of ``data``; the same seed and threads give the same numbers.

        Blocks for seconds to hours, in this thread and ``threads`` more at most. Raises
        ValueError when there is nothing to learn from.
        """
