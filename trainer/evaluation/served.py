"""Full-ranking accuracy of a generation, through the path that serves it.

Encoder on the history, inner product with all item vectors, then the ranker, if there is one, on
what retrieval reached. Item weights of the model's own are what a generation says, in place of its
vectors; those of another model join the vectors, as in the live path without its live layers. What
the user had is left out.
"""

import copy
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from rheos.catalogue import Item, UserAttributes
from rheos.generation import Generation
from rheos.settings import RetrievalSettings
from rheos.state import Float32s, Float64s, History, Int64s
from rheos.z_scores import z_scores
from trainer.evaluation import metrics
from trainer.evaluation.metrics import Accuracy

_AT_ONCE = 256  # (256, items) float32 scores: 100 MB for 100,000 items

_RETRIEVAL = RetrievalSettings()

_LARGEST = float(np.finfo(np.float32).max)

_MISSED = (metrics.NO_CANDIDATE, 0)


class NotFiniteError(ValueError):
    """Scores that are NaN or infinite: such a generation has no accuracy."""


class Case(NamedTuple):
    """What a user did, oldest first, and the item that came next; ``attributes`` if known."""

    history: History
    target: str
    attributes: UserAttributes | None = None


class Judged(NamedTuple):
    """How n cases came out: ``better`` and ``tied`` (n,) as in ``metrics.of_targets``, and the
    ``lists`` (n, k) of rows that would be shown, best first, -1 where a list is shorter.
    """

    better: Int64s
    tied: Int64s
    lists: Int64s

    def values(self, k: int) -> Float64s:
        """Expected values (n, metrics.MEASURES) at ``k``."""
        return metrics.expected_values(self.better, self.tied, k)


def accuracy(
    generation: Generation,
    cases: Sequence[Case],
    k: int,
    *,
    depth: int,
    retrieval: RetrievalSettings = _RETRIEVAL,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Accuracy:
    """Mean accuracy at ``k`` over the cases; NaN everywhere if any score is not finite.

    ``depth`` candidates are retrieved for the ranker; ``retrieval`` has the weights of vectors and
    of another model's item weights. A target that the generation does not know,
    that retrieval leaves behind, or that stands in the history itself is a miss.
    """
    try:
        judged = judge(generation, cases, k, depth=depth, retrieval=retrieval, progress=progress)
        return metrics.mean(judged.values(k))
    except NotFiniteError:
        return metrics.undefined(len(cases))


def judge(
    generation: Generation,
    cases: Sequence[Case],
    k: int,
    *,
    depth: int,
    retrieval: RetrievalSettings = _RETRIEVAL,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Judged:
    """How each case came out, as in ``accuracy``, and the list of ``k`` that it would be shown.

    Raises NotFiniteError.
    """
    found = scores(
        generation,
        [case.history for case in cases],
        [case.attributes for case in cases],
        depth=depth,
        retrieval=retrieval,
    )
    return judge_scores(found, generation.row_of, cases, k, progress)


def judge_scores(
    found: Iterable[Float32s | Float64s],
    row_of: Mapping[str, int],
    cases: Sequence[Case],
    k: int,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Judged:
    """The same for any recommender: ``found`` has an array of scores (N,) for each case."""
    better, tied = np.zeros(len(cases), np.int64), np.zeros(len(cases), np.int64)
    lists = np.full((len(cases), k), -1, np.int64)
    for place, (case, own) in enumerate(zip(cases, found, strict=True)):
        row = row_of.get(case.target)
        better[place], tied[place] = _MISSED if row is None else metrics.compare(own, row)
        shown = best(own, k)
        lists[place, : len(shown)] = shown
        if (place + 1) % _AT_ONCE == 0 or place + 1 == len(cases):
            progress(place + 1, len(cases))
    return Judged(better, tied, lists)


def scores(
    generation: Generation,
    histories: Sequence[History],
    attributes: Sequence[UserAttributes | None],
    *,
    depth: int,
    retrieval: RetrievalSettings = _RETRIEVAL,
    unknown: Float32s | None = None,
) -> Iterator[Float32s]:
    """Final scores (N,) of all items, for one user after the other.

    -inf: not among the candidates, that is, in the history or left behind by retrieval, which
    finds ``depth`` items for the ranker. ``unknown`` (N,) are the scores for users of whom the
    generation knows nothing; without them it has no opinion there. Raises NotFiniteError.
    """
    for start in range(0, len(histories), _AT_ONCE):
        part = histories[start : start + _AT_ONCE]
        users = generation.encoder.encode(part, attributes[start : start + _AT_ONCE])
        with np.errstate(invalid="ignore", over="ignore"):  # told by the next lines
            retrieved = users[:, : generation.dimensions] @ generation.item_vectors.T  # (B, N)
        if not (np.isfinite(users).all() and np.isfinite(retrieved).all()):
            raise NotFiniteError(f"{generation.name}: a score is not finite")
        for history, user, own in zip(part, users, retrieved, strict=True):
            knows = bool(user.any())
            if not knows and unknown is not None:
                own[:] = unknown
            elif generation.item_weights is not None and not generation.item_weights.beside:
                own[:] = _by_item_weights(generation, history)
            own[_rows(generation, history.item_ids)] = -np.inf
            if not knows and unknown is not None:
                yield own
            elif generation.item_weights is not None and generation.item_weights.beside:
                yield _fused(generation, history, user, own, depth, retrieval)
            else:
                yield own if generation.ranker is None else _ranked(generation, user, own, depth)


def with_new_items(generation: Generation, known: Mapping[str, Item]) -> Generation:
    """The generation with those of the ``known`` items that are younger than it, by their content.

    As the live path finds them beside the index. Unchanged where it has no content, or a ranker or
    item weights, which know its own rows only. Items that are not available stay out.
    """
    if generation.content is None:
        return generation
    if generation.ranker is not None or generation.item_weights is not None:
        return generation
    new = [
        item
        for item_id, item in sorted(known.items())
        if item_id not in generation.row_of and item.available and not item.deleted
    ]
    if not new:
        return generation
    vectors = generation.content.encode(new)
    told = np.flatnonzero(vectors.any(axis=1))
    whole = copy.copy(generation)
    names = [new[place].item_id for place in told.tolist()]
    whole.item_ids = [*generation.item_ids, *names]
    whole.row_of = {item_id: row for row, item_id in enumerate(whole.item_ids)}
    whole.item_vectors = np.concatenate([generation.item_vectors, vectors[told]])
    whole.popularity = np.concatenate([generation.popularity, np.zeros(len(names), np.float32)])
    return whole


def pair_scores(generation: Generation, history: History, user: Float32s, rows: Int64s) -> Float32s:
    """Final scores (n,) of items for a history encoded as ``user``, whatever retrieval finds.

    Raises NotFiniteError.
    """
    if generation.ranker is not None:
        found = generation.ranker.score(user, rows)
    elif generation.item_weights is not None and not generation.item_weights.beside:
        found = _by_item_weights(generation, history)[rows]
    else:
        found = generation.item_vectors[rows] @ user[: generation.dimensions]
    if not np.isfinite(found).all():
        raise NotFiniteError(f"{generation.name}: a score is not finite")
    return found


def _fused(
    generation: Generation,
    history: History,
    user: Float32s,
    found: Float32s,
    depth: int,
    retrieval: RetrievalSettings,
) -> Float32s:
    """Weighed z-scores (N,) of vectors (or ranker) and item weights; -inf but for what either
    retrieves: ``depth`` by ``found``, ``item_weights_depth`` by weights above 0."""
    together = _by_item_weights(generation, history)
    pointed = np.where((together > 0) & (found > -np.inf), together, -np.inf)
    rows = np.union1d(best(found, depth), best(pointed, retrieval.item_weights_depth))
    final = np.full(len(found), -np.inf, np.float32)
    vectors = found[rows] if generation.ranker is None else generation.ranker.score(user, rows)
    if not np.isfinite(vectors).all():
        raise NotFiniteError(f"{generation.name}: a score of the ranker is not finite")
    final[rows] = retrieval.vector_weight * z_scores(
        vectors.astype(np.float64)
    ) + retrieval.item_weights_weight * z_scores(together[rows].astype(np.float64))
    return final


def _by_item_weights(generation: Generation, history: History) -> Float32s:
    """What the item weights make of a history (N,): 0 where none of them points."""
    weights = generation.item_weights
    assert weights is not None
    rows, values = weights.scores(weights.read(history, generation.row_of))
    if not (np.abs(values) < _LARGEST).all():
        raise NotFiniteError(f"{generation.name}: a score of the item weights is too large")
    found = np.zeros(len(weights), np.float32)
    found[rows] = values
    return found


def best(found: Float32s | Float64s, k: int) -> Int64s:
    """Rows of the ``k`` highest scores (N,), best first, equal ones by row; fewer if -inf."""
    rows = np.arange(len(found)) if k >= len(found) else np.sort(np.argpartition(-found, k)[:k])
    rows = rows[found[rows] > -np.inf]
    return rows[np.argsort(-found[rows], kind="stable")]


def _ranked(generation: Generation, user: Float32s, found: Float32s, depth: int) -> Float32s:
    """The ranker's scores (N,) of the ``depth`` best of ``found``; -inf for all others."""
    assert generation.ranker is not None
    depth = min(depth, len(found))
    rows: Int64s = np.argpartition(-found, depth - 1)[:depth]
    rows = rows[found[rows] > -np.inf]
    final = np.full(len(found), -np.inf, np.float32)
    final[rows] = generation.ranker.score(user, rows)
    if not (final < np.inf).all():
        raise NotFiniteError(f"{generation.name}: a score of the ranker is not finite")
    return final


def _rows(generation: Generation, item_ids: Sequence[str]) -> list[int]:
    return [generation.row_of[item_id] for item_id in item_ids if item_id in generation.row_of]
