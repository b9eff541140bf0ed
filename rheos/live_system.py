"""The whole live path in one process and without Kafka: the code that the workers run.

The stream's folds make the states, the indexer's live view takes them in the form in which they
would travel, and its retrieval answers. All of it is loaded by name, so that importing this file
needs none of the workers' libraries.
"""

import importlib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import msgspec
import numpy as np

from rheos.blend import Blend
from rheos.catalogue import Item, UserAttributes, encode_record
from rheos.events import Event, encode_event
from rheos.generation import Generation
from rheos.settings import Settings
from rheos.state import Float32s, Float64s, History, ItemState, UserState, encode_state
from rheos.topics import Topics

FOLD_IN, NEAR, FAR, TREND, LIVE = "fold-in", "next near", "next far", "trend", "live"
ITEM_WEIGHTS = "item weights"
"""The rows: each layer alone, over all items; and the list that the API would answer.

Item weights have one as long as the generation that serves has some.
"""


class _Record(NamedTuple):
    """A Kafka record as the folds read it."""

    offset: int
    timestamp: int
    key: bytes | None
    value: bytes | None


class Candidates(NamedTuple):
    """What a generation's blend would be asked to order: n items and their features, (n,) each."""

    item_ids: list[str]
    features: dict[str, Float64s]


class LiveSystem:
    """Takes events and answers with lists of ``k``. Not thread-safe.

    "Now" is the newest event. Each of ``blends`` has a row of its own in ``scores``, under its
    name: the list of k if it were the generation's blend.
    """

    def __init__(
        self,
        settings: Settings,
        item_ids: Sequence[str],
        k: int,
        blends: Mapping[str, Blend] | None = None,
    ) -> None:
        # How a log is cut into partitions changes no state; with one each, a chunk is one call.
        kafka = msgspec.structs.replace(settings.kafka, events_partitions=1, items_partitions=1)
        settings = msgspec.structs.replace(settings, kafka=kafka, clock="stream")
        topics = Topics(settings)
        self._user_topic, self._item_topic = topics.user_state, topics.item_state
        self._user_catalogue, self._item_catalogue = topics.users, topics.items
        self._user_fold = importlib.import_module("stream.users").UserFold(settings, 0)
        self._item_fold = importlib.import_module("stream.items").ItemFold(settings)
        self._retrieval = importlib.import_module("indexer.retrieval")
        self._candidates = importlib.import_module("indexer.candidates")
        self._serving_class: Any = importlib.import_module("indexer.serving").Serving
        self._ranking = importlib.import_module("indexer.ranking")
        self._live_users = importlib.import_module("indexer.live_users")
        live_view = importlib.import_module("indexer.live_view")
        self._view = live_view.LiveView(settings, self._items_changed)
        self._numbers = self._view.numbers.add_all(item_ids)  # 0, 1, 2, …
        self._answers = self._retrieval.Retrieval(settings, self._view)
        self._wish = self._retrieval.Wish(k=k, sources=frozenset(self._ranking.SOURCES))
        self._blends = dict(blends or {})
        self._index_kind = settings.indexer.index
        self._gap_ms = settings.history.session_gap_s * 1000
        self._users: dict[str, UserState] = {}
        self._items: dict[str, ItemState] = {}
        self._generation: Generation | None = None
        self._serving: Any = None
        self._events = 0
        self._transitions = 0

    def learn(self, events: Sequence[Event]) -> None:
        """Raises ValueError for an event that the stream would refuse."""
        records = [
            _Record(self._events + n, event.time_ms, event.user_id.encode(), encode_event(event))
            for n, event in enumerate(events)
        ]
        self._events += len(records)
        changes = self._user_fold.fold(records, self._users.get, self._generation)
        for letter in changes.dead_letters:
            raise ValueError(f"event {letter.offset}: {letter.reason}: {letter.text}")
        packed = [
            _Record(self._transitions + n, 0, None, value)
            for n, (_, value) in enumerate(changes.transitions)
        ]
        self._transitions += len(packed)
        items = self._item_fold.fold(packed, self._items.get)
        self._users |= changes.states
        self._items |= items
        for topic, states in ((self._user_topic, changes.states), (self._item_topic, items)):
            for key, state in states.items():
                self._view.take(topic, key.encode(), encode_state(state), key)
        self._view.tell_changed()

    def describe(self, records: Iterable[Item | UserAttributes]) -> None:
        """Takes records of the catalogue, of items and of users."""
        for record in records:
            if isinstance(record, Item):
                topic, key = self._item_catalogue, record.item_id
            else:
                topic, key = self._user_catalogue, record.user_id
            self._view.take(topic, key.encode(), encode_record(record), key)
        self._view.tell_changed()

    def serve(self, generation: Generation) -> None:
        if self._serving is not None:
            self._serving.close()
        self._generation = generation
        view = self._view
        self._serving = self._serving_class(
            generation, view.numbers, view.next_lists, view.catalogue, self._index_kind
        )
        self._serving.delta.refresh(range(len(view.numbers)))

    @property
    def features(self) -> list[str]:
        """The names of all features that candidates may have with the serving generation."""
        names: list[str] = self._ranking.feature_names(
            self._retrieval.layer_names(self._generation)
        )
        return names

    def candidates(self, user_id: str, left_out: Sequence[str]) -> Candidates:
        """The candidates for a user, none of them ``left_out``, with all of ``features``."""
        return self._candidates_of(*self._asked(user_id), left_out)

    def candidates_after(self, history: History) -> Candidates:
        """The same for a history that a query brings along, as POST /v1/recommendations takes it.

        Nothing is learned of it: so days are judged during which nobody may learn.
        """
        vector = None
        if self._generation is not None:
            [vector] = self._generation.encoder.encode([history])
        return self._candidates_of(history, vector, [])

    def _candidates_of(
        self, history: History, vector: Float32s | None, left_out: Sequence[str]
    ) -> Candidates:
        gathered = self._gathered(history, vector, left_out)
        facts = self._answers.facts(gathered, history)
        ids = map(self._view.numbers.id_of, gathered.candidates.tolist())
        return Candidates(list(ids), self._ranking.features(gathered.layers, facts, self.features))

    def answer(self, user_id: str, left_out: Sequence[str]) -> dict[str, float]:
        """The list that the API would answer, by item its score, best first.

        The generation's blend ranks it, if it has one.
        """
        return self._answer(*self._asked(user_id), left_out)

    def _answer(
        self, history: History, vector: Float32s | None, left_out: Sequence[str]
    ) -> dict[str, float]:
        wish = self._wish._replace(exclude=left_out)
        found = self._answers.recommend(wish, history, self._serving, vector)
        return {item.item_id: item.score for item in found.items}

    def scores(self, user_id: str, left_out: Sequence[str]) -> Mapping[str, Float64s]:
        """By row, (N,) of all items."""
        history, vector = self._asked(user_id)
        following = self._view.next_lists.scores(
            self._candidates.recent_items(history, self._gap_ms)
        )
        near, far = following.of(self._numbers)
        answer = np.full(len(self._numbers), -np.inf)
        for item_id, score in self._answer(history, vector, left_out).items():
            answer[self._view.numbers.get(item_id)] = score
        together = {}
        if self._generation is not None and self._generation.item_weights is not None:
            found = self._serving.item_scores(history)
            together[ITEM_WEIGHTS] = np.zeros(len(self._numbers))
            if found is not None:
                together[ITEM_WEIGHTS] = np.nan_to_num(found.of(self._serving.rows(self._numbers)))
        return {
            FOLD_IN: self._products(vector),
            **together,
            NEAR: near,
            FAR: far,
            TREND: self._view.trend.scores(self._numbers),
            LIVE: answer,
            **self._blended(history, vector, left_out),
        }

    def _asked(self, user_id: str) -> tuple[History, Float32s | None]:
        """A user's history and her vector in the serving generation."""
        user = self._view.users.get(user_id)
        history = self._live_users.NOBODY if user is None else user.history
        return history, self._view.vector(user_id, user, self._generation)

    def _gathered(self, history: History, vector: Float32s | None, left_out: Sequence[str]) -> Any:
        wish = self._wish._replace(exclude=left_out)
        return self._answers.gather(wish, history, self._serving, vector, every_layer=True)

    def _blended(
        self, history: History, vector: Float32s | None, left_out: Sequence[str]
    ) -> dict[str, Float64s]:
        """The rows of ``blends``."""
        if not self._blends:
            return {}
        gathered, rows = self._gathered(history, vector, left_out), {}
        for name, blend in self._blends.items():
            ranked = self._answers.blended(gathered, history, blend, self._wish.k)
            rows[name] = np.full(len(self._numbers), -np.inf)
            rows[name][gathered.candidates[ranked.places]] = ranked.scores
        return rows

    def _products(self, vector: Any) -> Float64s:
        """Inner products of a user vector with all items; 0 where there is nothing to tell."""
        if self._generation is None or vector is None or not vector.any():
            return np.zeros(len(self._numbers))
        retrieval_vector = vector[: self._generation.dimensions]
        found: Float64s = self._serving.products(retrieval_vector, self._numbers)
        return np.nan_to_num(found)

    def _items_changed(self, numbers: list[int]) -> None:
        if self._serving is not None:
            self._serving.delta.refresh(numbers)
