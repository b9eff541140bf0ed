"""EASE: item→item weights by one regularised inverse, on sessions (or baskets).

Steck, "Embarrassingly Shallow Autoencoders for Sparse Data" (WWW 2019): eq. 8. Past what can be
inverted, each item is regressed on its neighbours alone, as in Ning & Karypis, "SLIM: Sparse Linear
Methods for Top-N Recommender Systems" (ICDM 2011), section 3.4, but with L2 alone. The dropout:
Steck, "Autoencoders that don't overfit towards the Identity" (NeurIPS 2020).
"""

from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Annotated, ClassVar, NamedTuple

import numpy as np
from msgspec import Meta, Struct
from scipy import sparse
from scipy.linalg import LinAlgError, cho_factor, cho_solve
from scipy.linalg.lapack import spotrf, spotri
from threadpoolctl import threadpool_limits

from rheos.encoder import EncoderContext
from rheos.history_map import HistoryMap
from rheos.item_weights import ItemWeights
from rheos.state import Float32s, Float64s, Int64s
from trainer.data_set import DataSet
from trainer.models.low_rank import low_rank
from trainer.models.model import Capability, Fitted, Run
from trainer.search_space import Range

DAY_MS = 24 * 3600 * 1000

MOST_ITEMS = 500
"""Of a session so many items, the newest, are counted: pairs grow with their square."""

BLOCK_CELLS = 1 << 24
"""Co-occurrences held at once where the matrix is not: 64 MB of float32."""

ENCODED_AT_ONCE = 4096


class Ease(Struct, frozen=True, forbid_unknown_fields=True):
    """Minimises |X - XB|² + Σ_i λ_i |B_i|² with diag(B) = 0, sessions weighing w_s = a_s f(n_s).

    X (sessions, items) holds the largest weight of an interaction of a session with an item.
    f(n) makes up for the size n of a session: a line that joins a basket of m items counts
    1/√(m + 1) with each of them; f(n) is the mean of that over a session's pairs. a_s halves with
    the session's age. λ_i = λ + p/(1 - p) G_ii, G = XᵀWX: what dropping each item of the input
    with probability p adds up to. B is divided by (sessions with the target + 1)^damping.
    """

    regularisation: Annotated[float, Meta(gt=0, description="λ, the same for all items.")] = 15.0
    dropout: Annotated[
        float, Meta(ge=0, lt=1, description="p: how much of the input is taken for dropped.")
    ] = 0.67
    damping: Annotated[
        float,
        Meta(ge=0, le=1, description="Power of an item's own count that divides its weights."),
    ] = 0.25
    half_life_days: Annotated[
        float, Meta(ge=0, description="Days after which a session counts half; 0: never.")
    ] = 0.0
    session_gap_s: Annotated[
        int, Meta(ge=1, description="Seconds without an event after which a new session begins.")
    ] = 1800
    weights: Annotated[
        int, Meta(ge=1, le=10_000, description="Weights kept per item, the largest by size.")
    ] = 100
    exact_items: Annotated[
        int, Meta(ge=0, description="Items up to which the whole matrix is inverted.")
    ] = 20_000
    neighbours: Annotated[
        int,
        Meta(ge=1, le=2000, description="Past that: items that each one is regressed on."),
    ] = 200
    factors: Annotated[
        int, Meta(ge=1, le=1024, description="Length d of the vectors, which approximate B.")
    ] = 64
    half_steps: Annotated[
        float, Meta(gt=0, description="Items after which a history's weight halves.")
    ] = 40.0
    vector_half_steps: Annotated[
        float, Meta(gt=0, description="The same of the user vector, which knows no sessions.")
    ] = 10.0
    before: Annotated[
        float, Meta(ge=0, le=1, description="What items before the latest session count.")
    ] = 0.2
    last: Annotated[
        int, Meta(ge=1, le=1000, description="Latest distinct items that are read of a history.")
    ] = 50

    name: ClassVar[str] = "ease"
    can: ClassVar[frozenset[Capability]] = frozenset(
        {"item_vectors", "fold_in", "explain", "item_weights"}
    )
    space: ClassVar[Mapping[str, Range]] = {
        "regularisation": Range(1.0, 1000.0, log=True),
        "dropout": Range(0.0, 0.9),
        "damping": Range(0.0, 0.7),
        "half_steps": Range(2.0, 100.0, log=True),
    }

    def fit(self, data: DataSet, run: Run) -> Fitted:
        with threadpool_limits(max(1, run.threads)):
            weights = self.item_weights(data, run)
            found = _matrix(weights)
            source, target = low_rank(
                lambda x: found @ x, lambda x: found.T @ x, len(weights), self.factors, run.seed
            ).factors()
            features = {
                "encoder.features": source,
                "encoder.matrix": np.eye(source.shape[1], dtype=np.float32)[None],
            }
            encoder = {"half_steps": [self.vector_half_steps], "last": self.last}
            vectors = _user_vectors(
                data,
                HistoryMap.load(
                    encoder,
                    features,
                    EncoderContext({id_: row for row, id_ in enumerate(data.item_ids)}, target),
                ),
            )
        return Fitted(
            data.item_ids,
            target,
            {"kind": "history_map", **encoder},
            None,
            features,
            vectors,
            weights,
        )

    def item_weights(self, data: DataSet, run: Run) -> ItemWeights:
        """The weights alone. Raises ValueError when there is nothing to learn from."""
        sessions = _sessions(data, self.session_gap_s * 1000, self.half_life_days)
        if len(data.item_ids) <= self.exact_items:
            found = self._exact(sessions, run)
        else:
            found = self._by_neighbours(sessions, run)
        damped = found @ sparse.diags_array((sessions.counts + 1.0) ** -self.damping)
        rows = damped.tocsr()
        rows.sort_indices()
        return ItemWeights(
            rows.indptr.astype(np.int64),
            rows.indices.astype(np.int64),
            rows.data.astype(np.float32),
            {
                "session_gap_s": self.session_gap_s,
                "half_steps": self.half_steps,
                "before": self.before,
                "last": self.last,
            },
        )

    def _exact(self, sessions: "_Sessions", run: Run) -> sparse.csr_array:
        """B_ij = -P_ij / P_jj, P = (G + Λ)⁻¹ (eq. 8); the largest of each row."""
        together = (sessions.matrix.T @ sessions.weighted).astype(np.float32)
        gram = together.toarray(order="F")
        del together
        run.progress("fit", 1, 3)
        np.fill_diagonal(gram, self._diagonal(np.diag(gram)))
        factor, failed = spotrf(gram, lower=1, overwrite_a=1)
        if not failed:
            inverse, failed = spotri(factor, lower=1, overwrite_c=1)
        if failed:
            raise ValueError(
                f"ease: no inverse in single precision; regularisation"
                f" {self.regularisation:g} is too small for these weights"
            )
        run.progress("fit", 2, 3)
        diagonal = np.diag(inverse).copy()
        np.fill_diagonal(inverse, 0.0)
        parts = [
            _largest_of_rows(rows / -diagonal, self.weights) for rows in _symmetric_rows(inverse)
        ]
        kept: sparse.csr_array = sparse.vstack(parts, format="csr")
        run.progress("fit", 3, 3)
        return kept

    def _diagonal(self, squares: Float64s) -> Float64s:
        """G_ii + λ_i from G_ii."""
        return squares / (1.0 - self.dropout) + self.regularisation

    def _by_neighbours(self, sessions: "_Sessions", run: Run) -> sparse.csr_array:
        """The same with B_ij = 0 but for the items i that occur most with j.

        Column j then is the ridge regression of item j on these: (G_DD + Λ_DD) b = G_Dj.
        """
        matrix = sessions.matrix.tocsc()
        weighted = sessions.weighted.tocsc()
        items = matrix.shape[1]
        size = max(1, BLOCK_CELLS // items)
        starts = range(0, items, size)
        columns: list[sparse.csc_array] = []
        with threadpool_limits(1), ThreadPoolExecutor(max(1, run.threads)) as pool:

            def regress(start: int) -> sparse.csc_array:
                return self._columns(matrix, weighted, start, min(start + size, items))

            for done, block in enumerate(pool.map(regress, starts), 1):
                columns.append(block)
                run.progress("fit", done, len(starts))
        return _largest(sparse.hstack(columns, format="csr"), self.weights)

    def _columns(
        self, matrix: sparse.csc_array, weighted: sparse.csc_array, start: int, end: int
    ) -> sparse.csc_array:
        """Columns [start, end) of B."""
        together = (matrix.T @ weighted[:, start:end]).tocsc()
        names, values, lengths = [], [], []
        for place in range(end - start):
            entry = slice(together.indptr[place], together.indptr[place + 1])
            near, counts = together.indices[entry], together.data[entry]
            others = near != start + place
            near, counts = near[others], counts[others]
            if len(near) > self.neighbours:
                best = np.argpartition(-counts, self.neighbours)[: self.neighbours]
                near, counts = near[best], counts[best]
            order = np.argsort(near)
            near, counts = near[order], counts[order]
            lengths.append(len(near))
            if len(near):
                gram = (matrix[:, near].T @ weighted[:, near]).toarray()
                np.fill_diagonal(gram, self._diagonal(np.diag(gram)))
                try:
                    solved = cho_solve(cho_factor(gram, lower=True, overwrite_a=True), counts)
                except LinAlgError as error:
                    raise ValueError(f"ease: regularisation is too small: {error}") from error
                names.append(near)
                values.append(solved)
        bounds = np.concatenate([[0], np.cumsum(lengths)])
        nothing = np.zeros(0)
        return sparse.csc_array(
            (
                np.concatenate([nothing, *values]),
                np.concatenate([nothing.astype(np.int64), *names]),
                bounds,
            ),
            shape=(matrix.shape[1], end - start),
        )


class _Sessions(NamedTuple):
    """``matrix`` (S, N) is X, ``weighted`` W X; ``counts`` (N,): the sessions with each item."""

    matrix: sparse.csr_array
    weighted: sparse.csr_array
    counts: Float64s


def _sessions(data: DataSet, gap_ms: int, half_life_days: float) -> _Sessions:
    """The sessions of a data set: a user's liked items without a gap between them.

    Equal times make no order: X holds sets. Raises ValueError when there are none.
    """
    liked = np.flatnonzero(data.weights > 0)
    if not len(liked):
        raise ValueError("ease: no interaction has a weight above 0")
    users, times = data.users[liked], data.times_ms[liked]
    begins = np.ones(len(liked), bool)
    begins[1:] = (users[1:] != users[:-1]) | (times[1:] - times[:-1] > gap_ms)
    session = np.cumsum(begins) - 1
    count, items = int(session[-1]) + 1, len(data.item_ids)
    keys = session * items + data.items[liked]
    # The last place of each (session, item), so that the newest items of long sessions stay.
    distinct, reversed_place, inverse = np.unique(
        keys[::-1], return_index=True, return_inverse=True
    )
    last = len(keys) - 1 - reversed_place
    strengths = np.zeros(len(distinct))
    np.maximum.at(strengths, inverse, data.weights[liked][::-1])
    newest = np.lexsort((-last, distinct // items))
    rows = (distinct // items)[newest]
    rank = np.arange(len(rows)) - np.searchsorted(rows, rows)
    kept = newest[rank < MOST_ITEMS]
    rows, columns = np.divmod(distinct[kept], items)
    sizes = np.bincount(rows, minlength=count)
    weights = _of_size(sizes)
    if half_life_days > 0:
        ends = times[np.append(np.flatnonzero(begins)[1:], len(liked)) - 1]
        weights = weights * 0.5 ** ((times.max() - ends) / (half_life_days * DAY_MS))
    matrix = sparse.csr_array((strengths[kept], (rows, columns)), shape=(count, items))
    weighted = (sparse.diags_array(weights) @ matrix).tocsr()
    return _Sessions(matrix, weighted, np.bincount(columns, minlength=items).astype(np.float64))


def _of_size(sizes: Int64s) -> Float64s:
    """f(n): 2/(n (n - 1)) Σ_{m=1}^{n-1} m/√(m + 1), and f(1) = 1."""
    joined = np.arange(1, max(2, int(sizes.max(initial=0))), dtype=np.float64)  # m
    sums = np.concatenate([[0.0, 0.0], np.cumsum(joined / np.sqrt(joined + 1))])
    pairs = np.maximum(sizes * (sizes - 1) / 2, 1)
    return np.where(sizes > 1, sums[sizes] / pairs, 1.0)


def _symmetric_rows(lower: Float32s) -> Iterator[Float32s]:
    """The rows (n, N) of a symmetric matrix, some at a time, from its lower triangle alone."""
    items = len(lower)
    size = max(1, BLOCK_CELLS // items)
    for start in range(0, items, size):
        end = min(start + size, items)
        corner = np.tril(lower[start:end, start:end], -1)
        corner += np.tril(lower[start:end, start:end]).T
        yield np.hstack([lower[start:end, :start], corner, lower[end:, start:end].T])


def _largest_of_rows(rows: Float32s, count: int) -> sparse.csr_array:
    """The ``count`` largest entries by size of each of some rows (n, N), zeros left out."""
    items = rows.shape[1]
    if count < items:
        sizes = np.abs(rows)
        edge = np.partition(sizes, items - count, axis=1)[:, items - count, None]
        rows = np.where(sizes >= edge, rows, np.float32(0))
    return sparse.csr_array(rows)


def _largest(rows: sparse.csr_array, count: int) -> sparse.csr_array:
    """The same of a sparse matrix."""
    kept = np.ones(rows.nnz, bool)
    for begin, end in _spans(rows):
        if end - begin > count:
            sizes = np.abs(rows.data[begin:end])
            kept[begin:end] = sizes >= np.partition(sizes, end - begin - count)[end - begin - count]
    before = np.concatenate([[0], np.cumsum(kept)])
    return sparse.csr_array(
        (rows.data[kept], rows.indices[kept], before[rows.indptr]), shape=rows.shape
    )


def _spans(rows: sparse.csr_array) -> Iterator[tuple[int, int]]:
    yield from zip(rows.indptr[:-1].tolist(), rows.indptr[1:].tolist(), strict=True)


def _matrix(weights: ItemWeights) -> sparse.csr_array:
    shape = (len(weights), len(weights))
    return sparse.csr_array((weights.weights, weights.targets, weights.starts), shape=shape)


def _user_vectors(data: DataSet, encoder: HistoryMap) -> Float32s:
    """Each user's vector as her whole history gives it."""
    vectors = np.zeros((len(data.user_ids), encoder.dimensions), np.float32)
    for users, histories in data.histories(ENCODED_AT_ONCE):
        vectors[users] = encoder.encode(histories)
    return vectors
