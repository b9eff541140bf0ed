"""Why an item stands in an answer: the history's items that gave its score. Pure."""

from collections.abc import Sequence
from itertools import compress

import msgspec

from indexer.candidates import NextLists
from rheos.generation import Generation
from rheos.state import History

MOST_REASONS = 3


class Reason(msgspec.Struct, frozen=True, kw_only=True):
    """A history item's part in a score. ``share`` of what all items of that source gave, 0 to 1.

    ``source`` ``vector``: a term of the encoder (Hu, Koren & Volinsky 2008, section 5);
    ``item_weights``: its weight points at the item; ``next``: its next-list holds the item;
    ``history``: it is the item itself, taken before.
    """

    item_id: str
    source: str
    share: float


def explain(
    item_ids: Sequence[str],
    *,
    history: History,
    recent: Sequence[str],
    generation: Generation | None,
    next_lists: NextLists,
) -> list[list[Reason]]:
    """Up to MOST_REASONS reasons of each source for each item, the weightiest first.

    ``recent``: the items, newest first, that next-lists were taken of.
    """
    nothing: list[list[tuple[str, float]]] = [[] for _ in item_ids]
    terms = together = nothing
    if generation is not None and len(history.item_ids):
        terms = generation.encoder.terms(history, item_ids)
        together = _item_terms(generation, history, item_ids)
    following = next_lists.terms(recent, item_ids)
    taken = set(compress(history.item_ids, (history.weights > 0).tolist()))
    return [
        _reasons("vector", vector)
        + _reasons("item_weights", weights)
        + _reasons("next", near)
        + _reasons("history", [(item_id, 1.0)] if item_id in taken else [])
        for item_id, vector, weights, near in zip(item_ids, terms, together, following, strict=True)
    ]


def _item_terms(
    generation: Generation, history: History, item_ids: Sequence[str]
) -> list[list[tuple[str, float]]]:
    weights, row_of = generation.item_weights, generation.row_of
    if weights is None:
        return [[] for _ in item_ids]
    told = weights.terms(weights.read(history, row_of), [row_of.get(id_, -1) for id_ in item_ids])
    return [[(generation.item_ids[row], part) for row, part in parts] for parts in told]


def _reasons(source: str, parts: Sequence[tuple[str, float]]) -> list[Reason]:
    positive = [(item, part) for item, part in parts if part > 0]
    total = sum(part for _, part in positive)
    positive.sort(key=lambda pair: (-pair[1], pair[0]))
    return [
        Reason(item_id=item, source=source, share=part / total)
        for item, part in positive[:MOST_REASONS]
    ]
