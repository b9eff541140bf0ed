"""A small shop for tests: states as the stream writes them, and generations of random vectors."""

from collections.abc import Mapping, Sequence

import msgspec
import numpy as np

from rheos.encoder import EncoderContext
from rheos.fold_in import FoldIn
from rheos.generation import Generation
from rheos.item_weights import ItemWeights
from rheos.snapshot import Manifest, Snapshot
from rheos.snapshot_store import LocalStore
from rheos.state import Float32s, ItemState, UserState, pack_vector

DIMENSIONS = 8
HOUR_MS = 3_600_000


def user_state(
    item_ids: Sequence[str],
    *,
    generation: Generation | None = None,
    types: Sequence[str] | None = None,
    weights: Sequence[float] | None = None,
    first_ms: int = 1_700_000_000_000,
    offset: int = 0,
    append_time_ms: int = 0,
) -> UserState:
    """A user who took ``item_ids``, a minute apart."""
    count = len(item_ids)
    state = UserState(
        list(item_ids),
        list(types or ["click"] * count),
        np.array(weights if weights is not None else [1.0] * count, "<f4").tobytes(),
        (first_ms + 60_000 * np.arange(count)).astype("<i8").tobytes(),
        np.arange(count, dtype="<u8").tobytes(),
        offset=offset,
        append_time_ms=append_time_ms,
        accepted=count,
    )
    if generation is not None:
        vector = generation.encoder.encode([state.history()])[0]
        if vector.any():
            state.vector, state.generation = pack_vector(vector), generation.name
    return state


def item_state(
    interactions: int,
    neighbours: Mapping[str, tuple[float, float]] | None = None,
    *,
    trend: float | None = None,
    epoch: int = 0,
) -> ItemState:
    """An item taken ``interactions`` times; ``neighbours``: id → (near, far)."""
    neighbours = neighbours or {}
    sums = np.full(3, float(interactions) if trend is None else trend)
    return ItemState(
        interactions,
        np.full(3, epoch, "<i8").tobytes(),
        sums.astype("<f8").tobytes(),
        epoch,
        list(neighbours),
        np.array([near for near, _ in neighbours.values()], "<f8").tobytes(),
        np.array([far for _, far in neighbours.values()], "<f8").tobytes(),
    )


def vectors(count: int, seed: int = 0, dimensions: int = DIMENSIONS) -> Float32s:
    """Random item vectors (count, dimensions) of various lengths."""
    rng = np.random.default_rng(seed)
    lengths = rng.uniform(0.5, 2.0, (count, 1))
    return (rng.standard_normal((count, dimensions)) * lengths).astype(np.float32)


def manifest(number: int, count: int, dimensions: int = DIMENSIONS) -> Manifest:
    context = EncoderContext({}, np.zeros((1, dimensions), np.float32))
    return Manifest(
        number=number,
        model="random",
        dimensions=dimensions,
        items=count,
        interactions=0,
        created_ms=1_700_000_000_000,
        window={},
        parameters={},
        metrics={},
        encoder=FoldIn(context, alpha=10.0, regularisation=1.0).parameters,
        software={},
    )


def generation(
    item_ids: Sequence[str],
    item_vectors: Float32s,
    number: int = 1,
    item_weights: ItemWeights | None = None,
) -> Generation:
    """A generation that stands in no store."""
    count, dimensions = item_vectors.shape
    told = manifest(number, count, dimensions)
    tensors = {"item_vectors": item_vectors, "popularity": np.ones(count, np.float32)}
    if item_weights is not None:
        told = msgspec.structs.replace(told, item_weights=item_weights.parameters)
        tensors |= item_weights.tensors()
    return Generation(Snapshot(f"{number}-00000000", told, list(item_ids), tensors))


def stored(
    store: LocalStore,
    item_ids: Sequence[str],
    item_vectors: Float32s,
    number: int = 1,
    files: Mapping[str, bytes] = {},
) -> str:
    """A generation's name after its snapshot was put into ``store``."""
    count, dimensions = item_vectors.shape
    return store.put(
        manifest(number, count, dimensions),
        item_ids,
        {"item_vectors": item_vectors, "popularity": np.ones(count, np.float32)},
        files,
    )
