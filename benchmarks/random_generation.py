"""Generations of random item vectors: benchmarks need one that serves, not one that is good."""

import time

import numpy as np

from rheos.announcements import Announcement, announce
from rheos.encoder import EncoderContext
from rheos.fold_in import FoldIn
from rheos.settings import Settings
from rheos.snapshot import Manifest, software_versions
from rheos.snapshot_store import LocalStore
from rheos.state import Float32s


def item_vectors(items: int, dimensions: int, random: np.random.Generator) -> Float32s:
    """(items, dimensions) float32, of about unit length."""
    drawn: Float32s = random.standard_normal((items, dimensions), np.float32)
    return drawn / np.float32(np.sqrt(dimensions))


def parts(
    number: int, item_ids: list[str], vectors: Float32s
) -> tuple[Manifest, list[str], dict[str, Float32s]]:
    """What makes a generation with a fold-in encoder."""
    context = EncoderContext({item: row for row, item in enumerate(item_ids)}, vectors)
    encoder = FoldIn(context, alpha=10.0, regularisation=1.0)
    manifest = Manifest(
        number=number,
        model="random",
        dimensions=vectors.shape[1],
        items=len(item_ids),
        interactions=0,
        created_ms=time.time_ns() // 1_000_000,
        window={},
        parameters={},
        metrics={},
        encoder=encoder.parameters,
        software=software_versions(),
    )
    popularity = np.ones(len(item_ids), np.float32)
    return manifest, item_ids, {"item_vectors": vectors, "popularity": popularity}


def store(settings: Settings, number: int, item_ids: list[str], vectors: Float32s) -> str:
    """Puts such a generation into the snapshot store; returns its name."""
    return LocalStore(settings.store_dir).put(*parts(number, item_ids, vectors))


def serve(settings: Settings, number: int, generation: str) -> None:
    """Announces a generation; the workers follow. Blocks until the broker has it."""
    announce(
        settings,
        Announcement(
            number=number,
            slot="serving",
            generation=generation,
            reason="benchmark",
            time_ms=time.time_ns() // 1_000_000,
        ),
    )
