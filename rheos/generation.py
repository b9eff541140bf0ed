"""A generation in memory: everything of one answer that must belong together."""

from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from rheos.blend import Blend
from rheos.content import Content
from rheos.encoder import Encoder, EncoderContext
from rheos.fold_in import FoldIn
from rheos.history_map import HistoryMap
from rheos.item_weights import ItemWeights
from rheos.linear_blend import LinearBlend
from rheos.logistic_fold_in import LogisticFoldIn
from rheos.neumf_ranker import NeumfRanker
from rheos.ranker import Ranker
from rheos.sequence_encoder import SequenceEncoder
from rheos.snapshot import Manifest, Snapshot, SnapshotError
from rheos.state import Float32s
from rheos.tree_blend import TreeBlend
from rheos.two_tower_content import TwoTowerContent
from rheos.two_tower_encoder import TwoTowerEncoder

Parameters = Mapping[str, Any]
Tensors = Mapping[str, Float32s]

ENCODERS: dict[str, Callable[[Parameters, Tensors, EncoderContext], Encoder]] = {
    "fold_in": FoldIn.load,
    "history_map": HistoryMap.load,
    "logistic_fold_in": LogisticFoldIn.load,
    "transformer": SequenceEncoder.load,
    "two_tower": TwoTowerEncoder.load,
}
RANKERS: dict[str, Callable[[Parameters, Tensors], Ranker]] = {"neumf": NeumfRanker.load}
CONTENTS: dict[str, Callable[[Parameters, Tensors], Content]] = {"two_tower": TwoTowerContent.load}
BLENDS: dict[str, Callable[[Parameters, Tensors], Blend]] = {
    "linear": LinearBlend.load,
    "trees": TreeBlend.load,
}
"""The kinds of each part that a manifest may name, and what loads them."""

L = TypeVar("L")


class Generation:
    """Immutable after construction, so any number of threads may read it.

    ``item_vectors`` (N, d) float32: inner product with a user vector's first d numbers is the
    retrieval score. ``row_of`` maps an item id to its row here and nowhere else. Of the parts
    some generations have all, some the encoder alone.
    """

    def __init__(self, snapshot: Snapshot) -> None:
        self.name: str = snapshot.name
        self.manifest: Manifest = snapshot.manifest
        self.item_ids: list[str] = snapshot.item_ids
        self.row_of: dict[str, int] = {item: row for row, item in enumerate(snapshot.item_ids)}
        self.item_vectors: Float32s = snapshot.tensors["item_vectors"]
        self.popularity: Float32s = snapshot.tensors["popularity"]
        manifest, tensors = snapshot.manifest, snapshot.tensors
        context = EncoderContext(self.row_of, self.item_vectors)
        encoder = self._part("encoder", ENCODERS, manifest.encoder)
        self.encoder: Encoder = self._loaded(
            "encoder", lambda: encoder(manifest.encoder, tensors, context)
        )
        self.ranker: Ranker | None = self._optional("ranker", RANKERS, manifest.ranker, tensors)
        self.content: Content | None = self._optional(
            "content", CONTENTS, manifest.content, tensors
        )
        self.blend: Blend | None = self._optional("blend", BLENDS, manifest.blend, tensors)
        self.item_weights: ItemWeights | None = None
        if manifest.item_weights is not None:
            parameters = manifest.item_weights
            self.item_weights = self._loaded(
                "item weights", lambda: ItemWeights.load(parameters, tensors)
            )
            if len(self.item_weights) != len(self.item_ids):
                raise SnapshotError(
                    f"snapshot {self.name}: item weights of {len(self.item_weights)} items"
                )

    @property
    def dimensions(self) -> int:
        """d, the length of a retrieval vector."""
        return int(self.item_vectors.shape[1])

    def _optional(
        self,
        part: str,
        kinds: Mapping[str, Callable[[Parameters, Tensors], L]],
        parameters: Parameters | None,
        tensors: Tensors,
    ) -> L | None:
        if parameters is None:
            return None
        load = self._part(part, kinds, parameters)
        return self._loaded(part, lambda: load(parameters, tensors))

    def _part(self, part: str, kinds: Mapping[str, L], parameters: Parameters) -> L:
        """What loads a part of the kind that ``parameters`` name."""
        kind = str(parameters.get("kind"))
        if kind not in kinds:
            known = ", ".join(kinds)
            raise SnapshotError(f"snapshot {self.name}: {part} {kind!r}; this version has {known}")
        return kinds[kind]

    def _loaded(self, part: str, load: Callable[[], L]) -> L:
        try:
            return load()
        except (LookupError, TypeError, ValueError, AttributeError, ArithmeticError) as error:
            raise SnapshotError(f"snapshot {self.name}: {part}: {error}") from error
