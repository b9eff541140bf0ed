"""The contract of a model: what it is fitted on, and what a generation needs to serve it."""

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Literal, NamedTuple, Protocol

import numpy as np

from rheos.item_weights import ItemWeights
from rheos.state import Float32s
from trainer.data_set import DataSet

Capability = Literal[
    "item_vectors",
    "fold_in",
    "rerank",
    "probabilities",
    "explain",
    "item_weights",
    "cold_items",
    "attributes",
    "warm_start",
    "distributed",
]
"""What a model may be able to do:

``item_vectors``: its retrieval score is an inner product, which the index searches.
``fold_in``: its encoder gives a vector to users that it was not fitted on.
``rerank``: its generations have a ranker. ``probabilities``: its final score is a logit, whose
sigmoid is how likely the model holds an interaction to be. ``explain``: its encoder takes a score
apart into the terms of the history. ``item_weights``: its generations carry item→item weights.
``cold_items``: items without events get a vector from their content. ``attributes``: its encoder
reads what is known of a user. ``warm_start``: a fit may start from the last one.
``distributed``: several processes of ``torchrun`` may fit it together.
"""


class Progress(Protocol):
    """Told how far a long piece of work is; cheap, and never raises."""

    def __call__(self, stage: str, done: int, total: int, /) -> None: ...


def silent(stage: str, done: int, total: int) -> None:
    """A Progress that tells nobody."""


class Start(NamedTuple):
    """What the last fit of the same model kept, to begin the next one with.

    A tensor whose name begins with ``user.`` has a row a user, ``item.`` a row an item; others are
    whole.
    """

    user_ids: Sequence[str]
    item_ids: Sequence[str]
    tensors: Mapping[str, Float32s]

    def carry(self, name: str, ids: Sequence[str], into: Float32s) -> None:
        """Copies the rows of those of ``ids`` that the last fit knew into ``into`` (len(ids), d).

        Nothing is copied where the last fit kept no such tensor, or one of another width.
        """
        kept = self.tensors.get(name)
        if kept is None or kept.ndim != into.ndim or kept.shape[1:] != into.shape[1:]:
            return
        known = self.user_ids if name.startswith("user.") else self.item_ids
        row_of = {id_: row for row, id_ in enumerate(known)}
        rows = np.array([row_of.get(id_, -1) for id_ in ids], np.int64)
        found = rows >= 0
        into[found] = kept[rows[found]]


class Run(NamedTuple):
    """How a fit runs. The same seed, threads, device and start give the same numbers, but for
    noise that guards users' privacy.

    ``threads``: so many more than the caller's at most. ``device``: as the setting
    ``trainer.device``, for ``trainer.device.device_of``; models in NumPy have no use for it.
    """

    seed: int = 0
    threads: int = 1
    progress: Progress = silent
    device: str = "cpu"
    start: Start | None = None


class Fitted(NamedTuple):
    """A fitted model, as a generation carries it.

    ``item_vectors`` (N, d): the inner product with a user vector's first d numbers is the
    retrieval score. ``encoder``, ``ranker`` and ``content`` are parameters with their ``kind``, one
    of those in ``rheos.generation``; ``tensors`` is what they load beside. ``user_vectors``
    (U, dimensions) are the fitted vectors of the data set's users, in the encoder's form, for
    evaluation, and ``keep`` what the next fit may start from (as in ``Start``): both never leave
    the trainer. A model that guards its users' privacy says how much in ``privacy`` and gives its
    own ``popularity`` (N,), since the plain counts would tell what it hides. ``curve`` has what a
    fit measured as it went on, by name (``loss``, ``ndcg@20``), for the report.
    """

    item_ids: list[str]
    item_vectors: Float32s
    encoder: dict[str, Any]
    ranker: dict[str, Any] | None
    tensors: Mapping[str, Float32s]
    user_vectors: Float32s
    item_weights: ItemWeights | None = None
    content: dict[str, Any] | None = None
    keep: Mapping[str, Float32s] = {}
    popularity: Float32s | None = None
    privacy: dict[str, Any] | None = None
    curve: Mapping[str, Sequence[float]] = {}


class Model(Protocol):
    """A model and its parameters. An implementation is a frozen msgspec Struct: the fields are the
    parameters, each with a default, bounds and a doc line, so that wrong ones are named at once.
    """

    name: ClassVar[str]
    can: ClassVar[frozenset[Capability]]

    def fit(self, data: DataSet, run: Run) -> Fitted:
        """Fits on all of ``data``. Blocks for seconds to hours.

        Raises ValueError when there is nothing to learn from.
        """


class ItemWeigher(Protocol):
    """A model whose item weights may join another model's vectors in one generation."""

    name: ClassVar[str]

    def item_weights(self, data: DataSet, run: Run) -> ItemWeights:
        """The weights between the items of ``data``, a row each. Raises as ``Model.fit``."""
