"""One list of checks that every index passes: what plain NumPy finds, it finds."""

import threading
from collections.abc import Callable

import numpy as np
import pytest

from indexer import index as index_module
from indexer.index import Index
from indexer.search_thread import SearchThread
from rheos.state import Float32s, Int64s
from tests.indexer import shop

Search = Callable[[Float32s, int], tuple[Float32s, Int64s]]

# What each must find of the true 20 best: all, or for an approximate index most.
KINDS = {"flat": 1.0, "hnsw": 0.95, "thread": 1.0}


def built(kind: str, vectors: Float32s) -> tuple[Search, Callable[[], None]]:
    if kind == "thread":
        thread = SearchThread(lambda: Exact(vectors))
        return thread.search, thread.close
    made = Index(vectors, kind)  # type: ignore[arg-type]
    return made.search, made.close


class Exact:
    """Plain NumPy, as a stand-in for what only a GPU has."""

    def __init__(self, vectors: Float32s) -> None:
        self.vectors = vectors
        self.batches: list[int] = []

    def search(self, queries: Float32s, k: int) -> tuple[Float32s, Int64s]:
        self.batches.append(len(queries))
        scores = queries @ self.vectors.T
        rows = np.argsort(-scores, axis=1, kind="stable")[:, :k]
        return np.take_along_axis(scores, rows, 1), rows


@pytest.mark.parametrize("kind", KINDS)
def test_it_finds_the_highest_inner_products_with_their_scores(kind: str) -> None:
    vectors, queries = shop.vectors(3000, 1, 16), shop.vectors(50, 2, 16)
    search, close = built(kind, vectors)
    scores, rows = search(queries, 20)
    exact = queries @ vectors.T
    assert scores.shape == rows.shape == (50, 20)
    assert (np.diff(scores, axis=1) <= 1e-5).all()
    np.testing.assert_allclose(np.take_along_axis(exact, rows, 1), scores, rtol=1e-4, atol=1e-5)
    best = np.argsort(-exact, axis=1)[:, :20]
    recall = np.mean([len(set(a) & set(b)) / 20 for a, b in zip(rows, best, strict=True)])
    assert recall >= KINDS[kind]
    close()


@pytest.mark.parametrize("kind", ["flat", "hnsw"])
def test_asking_for_more_than_there_is_gives_what_there_is(kind: str) -> None:
    index = Index(shop.vectors(5), kind)  # type: ignore[arg-type]
    scores, rows = index.search(shop.vectors(1, 3), 100)
    assert scores.shape == (1, 5)
    assert sorted(rows[0][rows[0] >= 0].tolist()) == list(range(int((rows >= 0).sum())))
    assert (index.count, index.dimensions, index.waits) == (5, shop.DIMENSIONS, False)


@pytest.mark.parametrize("kind", KINDS)
def test_many_threads_may_search_at_once(kind: str) -> None:
    vectors, queries = shop.vectors(800, 4), shop.vectors(40, 5)
    search, close = built(kind, vectors)
    alone = [search(query[None, :], 5)[1][0].tolist() for query in queries]
    wrong: list[int] = []

    def ask(start: int) -> None:
        for place in range(start, start + 40):
            found = search(queries[place % 40][None, :], 5)[1][0].tolist()
            if found != alone[place % 40]:
                wrong.append(place)

    threads = [threading.Thread(target=ask, args=(start,)) for start in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    close()
    assert wrong == []


def test_auto_is_flat_for_few_items_and_hnsw_for_many(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(index_module, "AUTO_FLAT_ITEMS", 100)
    assert Index(shop.vectors(100)).structure == "flat"
    assert Index(shop.vectors(101)).structure == "hnsw"
    assert Index(shop.vectors(10)).device == "cpu"


def test_queries_that_wait_are_searched_in_one_batch() -> None:
    exact, going = Exact(shop.vectors(50)), threading.Event()

    class Held(Exact):
        def search(self, queries: Float32s, k: int) -> tuple[Float32s, Int64s]:
            going.wait(10)
            return exact.search(queries, k)

    thread = SearchThread(lambda: Held(exact.vectors))
    found: dict[int, list[int]] = {}
    queries = shop.vectors(6, 9)

    def ask(place: int) -> None:
        rows = thread.search(queries[place][None, :], place + 1)[1]
        found[place] = rows[0].tolist()

    asking = [threading.Thread(target=ask, args=(place,)) for place in range(6)]
    for one in asking:
        one.start()
    going.set()
    for one in asking:
        one.join()
    thread.close()
    for place in range(6):
        best = np.argsort(-(exact.vectors @ queries[place]))[: place + 1]
        assert found[place] == best.tolist()
    assert sum(exact.batches) == 6
    assert len(exact.batches) < 6


def test_what_building_or_searching_raises_reaches_who_asked() -> None:
    def broken() -> Exact:
        raise MemoryError("no room on the device")

    with pytest.raises(MemoryError, match="no room"):
        SearchThread(broken)

    class Failing(Exact):
        def search(self, queries: Float32s, k: int) -> tuple[Float32s, Int64s]:
            raise RuntimeError("a kernel failed")

    thread = SearchThread(lambda: Failing(shop.vectors(3)))
    with pytest.raises(RuntimeError, match="kernel"):
        thread.search(shop.vectors(1), 1)
    with pytest.raises(RuntimeError, match="kernel"):
        thread.search(shop.vectors(1), 1)
    thread.close()


def test_a_gpu_is_used_where_faiss_has_one_whatever_the_kind(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    made: list[str] = []

    def on_gpu(vectors: Float32s, structure: str) -> Exact:
        made.append(structure)
        return Exact(vectors)

    monkeypatch.setattr(index_module, "gpus", lambda: 1)
    monkeypatch.setattr(index_module, "_on_gpu", on_gpu)
    monkeypatch.setattr(index_module, "GPU_FLAT_ITEMS", 40)
    monkeypatch.setattr(index_module, "GPU_MOST_K", 10)
    few, many = Index(shop.vectors(40), "hnsw"), Index(shop.vectors(41))
    assert made == ["flat", "ivf"]
    assert (few.device, few.waits) == ("gpu", True)
    assert few.search(shop.vectors(1, 2), 30)[1].shape == (1, 10)
    few.close()
    many.close()
