"""The vector index of one generation: FAISS behind one class, on the CPU or on a GPU.

Immutable once built: no FAISS index stands adding beside searching, and GPU ones cannot remove.
Rows are the generation's. New items stand in the delta, filters over-fetch.
"""

import math
from typing import Literal

import faiss
import numpy as np

from indexer.search_thread import RawIndex, SearchThread
from rheos.state import Float32s, Int64s

Kind = Literal["auto", "flat", "hnsw"]

AUTO_FLAT_ITEMS = 100_000  # beyond, a scan costs more than 1 ms of a core
GPU_FLAT_ITEMS = 4_000_000  # beyond, a GPU scans inverted lists instead of every vector
GPU_MOST_K = 2048  # a limit of FAISS' GPU k-selection
HNSW_LINKS = 32
HNSW_BUILD_DEPTH = 80
HNSW_SEARCH_DEPTH = 128

CHECK_QUERIES, CHECK_DEPTH = 32, 10
LEAST_RECALL = 0.5
"""An approximate index that finds less than this of the true best is broken, not approximate."""


class BrokenIndexError(RuntimeError):
    """An index that finds other things than plain NumPy does."""


def gpus() -> int:
    """How many GPUs this FAISS can use; a CPU build has no such function."""
    return int(getattr(faiss, "get_num_gpus", lambda: 0)())


class Index:
    """Maximum inner product search over ``vectors`` (N, d) float32.

    ``kind`` as in the settings; on a machine with a GPU it is used whatever the kind. ``device``
    and ``structure`` say what was chosen. ``waits`` says that a search blocks on another thread:
    call it from a pool, not from an event loop. Safe to search from any thread.
    """

    def __init__(self, vectors: Float32s, kind: Kind = "auto") -> None:
        count, self.dimensions = vectors.shape
        self.count = int(count)
        self._thread: SearchThread | None = None
        self.most_k = self.count
        if gpus():
            self.device, self.waits = "gpu", True
            self.structure = "flat" if count <= GPU_FLAT_ITEMS else "ivf"
            self.most_k = min(self.count, GPU_MOST_K)
            self._thread = SearchThread(lambda: _on_gpu(vectors, self.structure))
            self._raw: RawIndex = self._thread
        else:
            self.device, self.waits = "cpu", False
            self.structure = kind
            if kind == "auto":
                self.structure = "flat" if count <= AUTO_FLAT_ITEMS else "hnsw"
            self._raw = _on_cpu(vectors, self.structure)

    def search(self, queries: Float32s, k: int) -> tuple[Float32s, Int64s]:
        """Scores (B, k'), descending, and rows (B, k') for ``queries`` (B, d); k' = min(k, most_k).

        Row -1 where an approximate search found fewer; such places come last.
        """
        k = min(k, self.most_k)
        queries = np.ascontiguousarray(queries, np.float32)
        return self._raw.search(queries, k)

    def check(self, vectors: Float32s) -> None:
        """Searches with some of its own ``vectors`` (N, d), which warms it, too.

        Raises BrokenIndexError where it finds wrongly.
        """
        places = np.linspace(0, len(vectors) - 1, min(CHECK_QUERIES, len(vectors)))
        queries = vectors[places.astype(np.int64)]
        depth = min(CHECK_DEPTH, len(vectors))
        scores, rows = self.search(queries, depth)
        found = rows >= 0
        if not found.any():
            raise BrokenIndexError("its index finds nothing")
        exact = queries @ vectors.T  # (CHECK_QUERIES, N)
        told = np.take_along_axis(exact, np.maximum(rows, 0), axis=1)
        scale = float(np.abs(exact).max()) + 1e-6
        if (np.abs(told - scores)[found] > 1e-3 * scale).any():
            raise BrokenIndexError("its index scores differently than NumPy")
        true_edge = -np.partition(-exact, depth - 1, axis=1)[:, depth - 1]
        if ((told >= true_edge[:, None] - 1e-5 * scale) & found).mean() < LEAST_RECALL:
            raise BrokenIndexError("its index misses most of the nearest items")

    def close(self) -> None:
        """Frees a GPU's memory and its thread; the CPU's goes with the object."""
        if self._thread is not None:
            self._thread.close()


class _Cpu:
    """A FAISS CPU index; reads are thread-safe."""

    def __init__(self, index: faiss.Index) -> None:
        self._index = index

    def search(self, queries: Float32s, k: int) -> tuple[Float32s, Int64s]:
        # Per calling thread: without it each search of a pool thread starts its own OpenMP team.
        faiss.omp_set_num_threads(1)
        parameters = None
        if isinstance(self._index, faiss.IndexHNSW):
            parameters = faiss.SearchParametersHNSW(efSearch=max(HNSW_SEARCH_DEPTH, k))
        scores, rows = self._index.search(queries, k, params=parameters)
        return scores, rows


def _on_cpu(vectors: Float32s, structure: str) -> RawIndex:
    # Building takes one core: the others go on answering queries.
    faiss.omp_set_num_threads(1)
    dimensions = vectors.shape[1]
    if structure == "flat":
        index = faiss.IndexFlatIP(dimensions)
    else:
        index = faiss.IndexHNSWFlat(dimensions, HNSW_LINKS, faiss.METRIC_INNER_PRODUCT)
        index.hnsw.efConstruction = HNSW_BUILD_DEPTH
    index.add(np.ascontiguousarray(vectors, np.float32))
    return _Cpu(index)


class _Gpu:
    """A FAISS GPU index with the resources that it needs as long as it lives."""

    def __init__(self, index: faiss.Index, resources: object) -> None:
        self._index = index
        self._resources = resources

    def search(self, queries: Float32s, k: int) -> tuple[Float32s, Int64s]:
        scores, rows = self._index.search(queries, k)
        return scores, rows


def _on_gpu(vectors: Float32s, structure: str) -> RawIndex:
    """Runs in the thread that owns the GPU."""
    resources = faiss.StandardGpuResources()
    count, dimensions = vectors.shape
    if structure == "flat":
        index = faiss.GpuIndexFlatIP(resources, dimensions)
    else:
        lists = 4 * math.isqrt(count)
        index = faiss.GpuIndexIVFFlat(resources, dimensions, lists, faiss.METRIC_INNER_PRODUCT)
        index.train(np.ascontiguousarray(vectors[:: max(1, count // (64 * lists))], np.float32))
        index.nprobe = max(1, lists // 32)
    index.add(np.ascontiguousarray(vectors, np.float32))
    return _Gpu(index, resources)
