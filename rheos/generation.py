"""A generation in memory: everything of one answer that must belong together."""

from collections.abc import Callable, Mapping
from typing import Any

from rheos.encoder import Encoder, EncoderContext
from rheos.fold_in import FoldIn
from rheos.history_map import HistoryMap
from rheos.neumf_ranker import NeumfRanker
from rheos.ranker import Ranker
from rheos.snapshot import Manifest, Snapshot, SnapshotError
from rheos.state import Float32s

EncoderLoader = Callable[[Mapping[str, Any], Mapping[str, Float32s], EncoderContext], Encoder]
RankerLoader = Callable[[Mapping[str, Any], Mapping[str, Float32s]], Ranker]

ENCODERS: dict[str, EncoderLoader] = {"fold_in": FoldIn.load, "history_map": HistoryMap.load}
RANKERS: dict[str, RankerLoader] = {"neumf": NeumfRanker.load}


class Generation:
    """Immutable after construction, so any number of threads may read it.

    ``item_vectors`` (N, d) float32: inner product with a user vector's first d numbers is the
    retrieval score. ``row_of`` maps an item id to its row here and nowhere else.
    """

    def __init__(self, snapshot: Snapshot) -> None:
        self.name: str = snapshot.name
        self.manifest: Manifest = snapshot.manifest
        self.item_ids: list[str] = snapshot.item_ids
        self.row_of: dict[str, int] = {item: row for row, item in enumerate(snapshot.item_ids)}
        self.item_vectors: Float32s = snapshot.tensors["item_vectors"]
        self.popularity: Float32s = snapshot.tensors["popularity"]
        self.encoder: Encoder = self._load_encoder(snapshot)
        self.ranker: Ranker | None = self._load_ranker(snapshot)

    @property
    def dimensions(self) -> int:
        """d, the length of a retrieval vector."""
        return int(self.item_vectors.shape[1])

    def _load_encoder(self, snapshot: Snapshot) -> Encoder:
        parameters = snapshot.manifest.encoder
        context = EncoderContext(self.row_of, self.item_vectors)
        kind = parameters.get("kind")
        if kind not in ENCODERS:
            known = ", ".join(ENCODERS)
            raise SnapshotError(f"snapshot {self.name}: encoder {kind!r}; this version has {known}")
        try:
            return ENCODERS[kind](parameters, snapshot.tensors, context)
        except (KeyError, TypeError, ValueError) as error:
            raise SnapshotError(f"snapshot {self.name}: encoder {kind}: {error}") from error

    def _load_ranker(self, snapshot: Snapshot) -> Ranker | None:
        parameters = snapshot.manifest.ranker
        if parameters is None:
            return None
        kind = parameters.get("kind")
        if kind not in RANKERS:
            known = ", ".join(RANKERS)
            raise SnapshotError(f"snapshot {self.name}: ranker {kind!r}; this version has {known}")
        try:
            return RANKERS[kind](parameters, snapshot.tensors)
        except (KeyError, TypeError, ValueError) as error:
            raise SnapshotError(f"snapshot {self.name}: ranker {kind}: {error}") from error
