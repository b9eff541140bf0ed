"""Recommendations: for a user, for several, for an anonymous history; and items like an item."""

import asyncio
import functools
import math
import secrets
from typing import Annotated, Any

import msgspec
import numpy as np
from msgspec import Meta, Struct
from starlette.responses import Response

from indexer.api.endpoint import Call, Endpoint, checked_id, decoded, json_response
from indexer.api.error import ApiError, ErrorAnswer
from indexer.explanation import Reason
from indexer.live_users import NOBODY, LiveUser
from indexer.ranking import SOURCES
from indexer.retrieval import Choice, Chosen, Wish
from indexer.serving import Serving
from rheos.catalogue import MAX_ATTRIBUTES, Attribute, UserAttributes
from rheos.ids import partition_of
from rheos.impressions import Impression, ShownItem
from rheos.state import Float32s, History

MOST_USERS = 100
MOST_HISTORY = 1000
MOST_EXCLUDED = 1000
DEFAULT_K = 20

K = Annotated[int, Meta(ge=1, description="How many items, at most; the setting max_k bounds it.")]
Category = Annotated[str | None, Meta(description="Only items of this category.")]
Exclude = Annotated[
    list[str], Meta(max_length=MOST_EXCLUDED, description="Item ids to leave out; repeat it.")
]
Explain = Annotated[bool, Meta(description="Say which items of the history gave each score.")]
Sources = Annotated[
    str | None,
    Meta(
        description="Only these sources, comma separated: vector, item_weights, next, history,"
        " trend, new."
    ),
]


class RecommendQuery(Struct, forbid_unknown_fields=True):
    """Query parameters of a user's recommendations."""

    k: K = DEFAULT_K
    category: Category = None
    exclude: Exclude = []
    explain: Explain = False
    sources: Sources = None


class SimilarQuery(Struct, forbid_unknown_fields=True):
    """Query parameters of items like an item."""

    k: K = DEFAULT_K
    category: Category = None
    exclude: Exclude = []
    sources: Sources = None


class PastItem(Struct, forbid_unknown_fields=True, kw_only=True):
    """One item of an anonymous history. Without a time, it is the newest so far."""

    item_id: str | int
    type: str | None = None
    weight: float | None = None
    time_ms: Annotated[int, Meta(ge=0, le=(1 << 53) - 1)] | None = None


class RecommendBody(Struct, forbid_unknown_fields=True, kw_only=True):
    """Either ``users`` or ``history`` (oldest first), and what a query may choose.

    ``attributes``: what is known of who has the history, which may be empty.
    """

    users: (
        Annotated[list[str | int], Meta(min_length=1, max_length=MOST_USERS)] | msgspec.UnsetType
    ) = msgspec.UNSET
    history: Annotated[list[PastItem], Meta(max_length=MOST_HISTORY)] | msgspec.UnsetType = (
        msgspec.UNSET
    )
    attributes: Annotated[dict[str, Attribute], Meta(max_length=MAX_ATTRIBUTES)] = {}
    k: K = DEFAULT_K
    category: Category = None
    exclude: Exclude = []
    explain: Explain = False
    sources: Annotated[list[str], Meta(max_length=8)] | None = None


class AsOf(Struct):
    """The user's last event in the answer: its place in the events topic."""

    partition: int
    offset: int


class AnswerReason(Struct, omit_defaults=True):
    """A history item's share of what its source gave the score."""

    item_id: str
    source: str
    share: float
    title: str | None = None


class AnswerItem(Struct, omit_defaults=True):
    """One recommended item.

    ``source``: vector, item_weights, next, history, trend or new (too young for the model).
    """

    item_id: str
    score: float
    source: str
    title: str | None = None
    price: float | None = None
    because: list[AnswerReason] | None = None


class Answer(Struct):
    """Of one generation, which may be null before the first. ``ignored``: unknown history items."""

    user_id: str | None
    generation: str | None
    request_id: str
    as_of: AsOf | None
    items: list[AnswerItem]
    ignored: list[str]


class Answers(Struct):
    answers: list[Answer]


class SimilarAnswer(Struct):
    """Items like ``item_id``, of one generation."""

    item_id: str
    generation: str | None
    request_id: str
    items: list[AnswerItem]


async def for_user(call: Call) -> Response:
    wish = _wish(call, call.query.sources and call.query.sources.split(","))
    return json_response(await _for_user(call, call.ids["user_id"], wish))


async def for_body(call: Call) -> Response:
    body: RecommendBody = decoded(call.body, RecommendBody)
    if (body.users is msgspec.UNSET) == (body.history is msgspec.UNSET):
        raise ApiError(422, "invalid_body", "give either users or history, not both or none")
    if body.attributes and body.history is msgspec.UNSET:
        raise ApiError(422, "invalid_body", "attributes go with a history; users have their own")
    wish = _wish(call._replace(query=body), body.sources)
    if not isinstance(body.users, msgspec.UnsetType):
        users = [checked_id("user_id", str(user)) for user in body.users]
        answers = []
        for user in users:
            answers.append(await _for_user(call, user, wish))
            await asyncio.sleep(0)  # others' requests have their turn between two users
        return json_response(Answers(answers))
    assert not isinstance(body.history, msgspec.UnsetType)
    history = _history(call, body.history)
    serving = call.service.swap.current
    vector = None
    if serving is not None:
        known = UserAttributes(user_id="", attributes=body.attributes) if body.attributes else None
        vector = serving.generation.encoder.encode([history], [known])[0]
    return json_response(Answers([await _answer(call, wish, None, None, history, serving, vector)]))


async def similar(call: Call) -> Response:
    service, item_id = call.service, call.ids["item_id"]
    wish = _wish(call, call.query.sources and call.query.sources.split(","))
    serving = service.swap.current
    if not service.retrieval.knows(item_id, serving):
        raise ApiError(404, "not_found", f"item {item_id!r} is not known")
    items = await service.search(
        serving, functools.partial(service.retrieval.similar, wish, item_id, serving)
    )
    return json_response(
        SimilarAnswer(
            item_id,
            None if serving is None else serving.name,
            secrets.token_hex(8),
            [_item(call, chosen) for chosen in items],
        )
    )


async def _for_user(call: Call, user_id: str, wish: Wish) -> Answer:
    # One reference to one generation, and one to one state of the user, for the whole answer.
    serving = call.service.swap.current
    user = call.service.view.users.get(user_id)
    history = NOBODY if user is None else user.history
    generation = None if serving is None else serving.generation
    vector = call.service.view.vector(user_id, user, generation)
    return await _answer(call, wish, user_id, user, history, serving, vector)


async def _answer(
    call: Call,
    wish: Wish,
    user_id: str | None,
    user: LiveUser | None,
    history: History,
    serving: Serving | None,
    vector: Float32s | None,
) -> Answer:
    service = call.service
    choice: Choice = await service.search(
        serving,
        functools.partial(service.retrieval.recommend, wish, history, serving, vector),
    )
    as_of = None
    if user is not None and user_id is not None:
        partitions = service.settings.kafka.events_partitions
        as_of = AsOf(partition_of(user_id, partitions), user.state.offset)
    answer = Answer(
        user_id,
        None if serving is None else serving.name,
        secrets.token_hex(8),
        as_of,
        [_item(call, chosen, wish.explain) for chosen in choice.items],
        choice.ignored,
    )
    if service.settings.indexer.impressions:
        service.impressions.put(
            Impression(
                request_id=answer.request_id,
                user_id=user_id,
                generation=answer.generation,
                time_ms=service.view.now_ms(),
                items=[
                    ShownItem(item_id=item.item_id, score=item.score, source=item.source)
                    for item in answer.items
                ],
            )
        )
    return answer


def _item(call: Call, chosen: Chosen, explained: bool = False) -> AnswerItem:
    title, price = call.service.view.catalogue.label(chosen.item_id)
    because = [_reason(call, reason) for reason in chosen.because] if explained else None
    return AnswerItem(chosen.item_id, chosen.score, chosen.source, title, price, because)


def _reason(call: Call, reason: Reason) -> AnswerReason:
    title = call.service.view.catalogue.title(reason.item_id)
    return AnswerReason(reason.item_id, reason.source, reason.share, title)


def _wish(call: Call, sources: list[str] | None) -> Wish:
    """Raises ApiError 422."""
    query: Any = call.query
    most = call.service.settings.indexer.max_k
    if query.k > most:
        raise ApiError(422, "invalid_query", f"k {query.k}; at most {most}")
    chosen = frozenset(SOURCES) if sources is None else frozenset(sources)
    unknown = chosen - set(SOURCES)
    if unknown or not chosen:
        raise ApiError(
            422,
            "invalid_query",
            f"sources {sorted(unknown)!r:.80}; known: {', '.join(SOURCES)}",
        )
    for item_id in query.exclude:
        checked_id("exclude", item_id)
    return Wish(
        query.k,
        chosen,
        query.category,
        query.exclude,
        getattr(query, "explain", False),
    )


def _history(call: Call, items: list[PastItem]) -> History:
    """An anonymous history, ordered by time as the stream would. Raises ApiError 422."""
    known = call.service.settings.events.weights
    now_ms = call.service.view.now_ms()
    item_ids, weights, times_ms = [], [], []
    for index, item in enumerate(items):
        item_ids.append(checked_id("item_id", str(item.item_id)))
        kind = item.type
        if item.weight is not None:
            if not math.isfinite(item.weight) or abs(item.weight) > 100:
                raise ApiError(422, "invalid_body", f"weight {item.weight}", index=index)
            weights.append(item.weight)
        elif kind is None:
            weights.append(1.0)
        elif kind in known:
            weights.append(known[kind])
        else:
            raise ApiError(
                422, "invalid_body", f"type {kind[:80]!r}; known: {', '.join(known)}", index=index
            )
        times_ms.append(now_ms if item.time_ms is None else item.time_ms)
    order = np.argsort(np.array(times_ms, np.int64), kind="stable")
    return History(
        [item_ids[place] for place in order],
        np.array(weights, np.float32)[order],
        np.array(times_ms, np.int64)[order],
    )


_ERRORS = {422: ErrorAnswer, 503: ErrorAnswer}

ENDPOINTS = [
    Endpoint(
        "GET",
        "/v1/users/{user_id}/recommendations",
        for_user,
        "What to show a user now. An unknown user gets what everybody takes now.",
        {200: Answer, **_ERRORS},
        query=RecommendQuery,
        needs_ready=True,
    ),
    Endpoint(
        "POST",
        "/v1/recommendations",
        for_body,
        "The same for several users, or for a history without a user.",
        {200: Answers, 400: ErrorAnswer, 408: ErrorAnswer, 413: ErrorAnswer, **_ERRORS},
        body=RecommendBody,
        needs_ready=True,
    ),
    Endpoint(
        "GET",
        "/v1/items/{item_id}/similar",
        similar,
        "Items like an item.",
        {200: SimilarAnswer, 404: ErrorAnswer, **_ERRORS},
        query=SimilarQuery,
        needs_ready=True,
    ),
]
