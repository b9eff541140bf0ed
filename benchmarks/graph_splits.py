"""The splits of the LightGCN paper and its authors' code, as data sets, and their full ranking.

Every item that the user does not have in the training set is ranked, for every user with a test
item; Recall@k and NDCG@k are means over these users, the ideal of NDCG having min(k, test items)
hits on top (He et al., SIGIR 2020, section 4.1). There are no times in these files: a history has
no order.
"""

import lzma
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np
import torch
from scipy import sparse

from benchmarks.paper_rows.row import DATA
from rheos.state import Float32s, History
from trainer.data_set import DataSet, of_interactions

AT_ONCE = 256
"""Users ranked at once: (256, 40,981) float32 scores are 42 MB."""


class Split(NamedTuple):
    """``train`` and, in its rows, who has which item: matrices (U, N) of 0 and 1.

    ``missing`` (U,) counts a user's test items that are in no training pair: none can find them.
    """

    train: DataSet
    had: sparse.csr_array
    test: sparse.csr_array
    missing: np.ndarray

    def without(self, users: np.ndarray) -> DataSet:
        """The training set without these users' interactions; all rows stay as they are."""
        return self.train.keeping(~np.isin(self.train.users, users))

    def histories(self, users: np.ndarray) -> list[History]:
        """What these users have in the training set."""
        names, begins = self.train.item_ids, self.had.indptr
        found = []
        for user in users:
            rows = self.had.indices[begins[user] : begins[user + 1]]
            ones, times = np.ones(len(rows), np.float32), np.zeros(len(rows), np.int64)
            found.append(History([names[row] for row in rows], ones, times))
        return found

    def tested(self, at_most: int | None = None) -> np.ndarray:
        """Rows of the users with a test item; ``at_most`` so many of them, drawn with seed 0."""
        users = np.flatnonzero(np.diff(self.test.indptr) + self.missing)
        if at_most is None or at_most >= len(users):
            return users
        return np.sort(np.random.default_rng(0).choice(users, at_most, replace=False))


def gowalla() -> Split:
    """Gowalla's check-ins in the split of NGCF and LightGCN."""
    return _split(_lines("train"), _lines("test"))


def lastfm() -> Split:
    """Last.fm (HetRec 2011) in the split of the LightGCN authors' code."""
    parts = [
        np.loadtxt(DATA / "lastfm" / name, usecols=(0, 1), dtype=np.int64)
        for name in ("data1.txt", "test1.txt")
    ]
    return _split(*parts)


def ranking(
    split: Split, users: np.ndarray, score: Callable[[np.ndarray], Float32s], k: int = 20
) -> dict[str, float]:
    """Means of Recall@k and NDCG@k; ``score`` gives scores (B, N) of user rows (B,), to be kept
    by the caller no longer: they are written to.
    """
    discounts = 1 / np.log2(np.arange(2, k + 2))
    ideal = np.concatenate([[0.0], np.cumsum(discounts)])
    wanted = (np.diff(split.test.indptr) + split.missing)[users]
    recalls, ndcgs = [], []
    for begin in range(0, len(users), AT_ONCE):
        batch = users[begin : begin + AT_ONCE]
        scores = score(batch)
        had = split.had[batch]
        scores[np.repeat(np.arange(len(batch)), np.diff(had.indptr)), had.indices] = -np.inf
        # torch's selection is many times as fast as NumPy's.
        top = (
            torch.from_numpy(np.ascontiguousarray(scores)).topk(k, dim=1).indices.numpy()
        )  # (B, k)
        hits = np.take_along_axis(split.test[batch].toarray(), top, 1)
        total = wanted[begin : begin + AT_ONCE]
        recalls.append(hits.sum(axis=1) / total)
        ndcgs.append(hits @ discounts / ideal[np.minimum(total, k)])
    return {
        f"recall@{k}": float(np.concatenate(recalls).mean()),
        f"ndcg@{k}": float(np.concatenate(ndcgs).mean()),
    }


def _lines(part: str) -> np.ndarray:
    """The (user, item) pairs of one line a user."""

    def pairs() -> Iterator[tuple[int, int]]:
        with lzma.open(DATA / "gowalla" / f"{part}.txt.xz", "rt") as file:
            for line in file:
                user, *items = map(int, line.split())
                yield from ((user, item) for item in items)

    return np.array(list(pairs()), np.int64)


def _split(train: np.ndarray, test: np.ndarray) -> Split:
    data = of_interactions(
        [f"u{user:06d}" for user in train[:, 0]],
        [f"i{item:06d}" for item in train[:, 1]],
        np.zeros(len(train), np.int64),
    )
    shape = (len(data.user_ids), len(data.item_ids))
    user_of = {int(name[1:]): row for row, name in enumerate(data.user_ids)}
    item_of = {int(name[1:]): row for row, name in enumerate(data.item_ids)}
    test = np.unique(test[np.isin(test[:, 0], train[:, 0])], axis=0)
    users = np.array([user_of[user] for user in test[:, 0].tolist()])
    items = np.array([item_of.get(item, -1) for item in test[:, 1].tolist()])
    known = items >= 0

    def matrix(rows: Any, columns: Any) -> sparse.csr_array:
        found = sparse.coo_array((np.ones(len(rows), np.float32), (rows, columns)), shape).tocsr()
        found.data[:] = 1  # a pair may stand in the file twice
        return found

    return Split(
        data,
        matrix(data.users, data.items),
        matrix(users[known], items[known]),
        np.bincount(users[~known], minlength=shape[0]),
    )
