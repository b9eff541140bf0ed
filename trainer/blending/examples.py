"""Recorded queries: what blends are fitted on and judged by.

A log is played through the live system, the code that serves (``rheos.live_system``); before chosen
events the candidates for the event's user are asked for, with their features. A candidate is
relevant if it is among the items, new to the user, that she still takes in the same session, the
event's own included. Those of equal times are relevant alike, so the order in which a file or a log
gives them is of no use; sessions that may still go on give no examples.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from rheos.events import Event
from rheos.live_system import LiveSystem
from rheos.settings import Settings
from rheos.state import Float32s, Float64s, Int64s
from trainer.data_set import Mask

_LEARN_AT_ONCE = 500


@dataclass(frozen=True, eq=False)
class Examples:
    """Q queries with n candidates in all, one query's after the other's.

    ``features`` (n, F), named ``names``; ``relevant`` (n,); ``begins`` (Q + 1,): the query q has
    the candidates begins[q]:begins[q + 1]. ``wanted`` (Q,): how many items were relevant, those
    that are no candidates included. ``users`` (Q,): a number a user.
    """

    names: list[str]
    features: Float32s
    relevant: Mask
    begins: Int64s
    wanted: Int64s
    users: Int64s

    def __len__(self) -> int:
        return len(self.wanted)

    @property
    def layers(self) -> list[str]:
        """The layers that had an opinion on any of the candidates."""
        named = [name.removesuffix(".z") for name in self.names if name.endswith(".z")]
        return [layer for layer in named if self.column(f"{layer}.z").any()]

    def column(self, name: str) -> Float64s:
        """A feature of all candidates (n,)."""
        return self.features[:, self.names.index(name)].astype(np.float64)

    def columns(self) -> dict[str, Float64s]:
        """All features by name, as a blend reads them."""
        return {name: self.column(name) for name in self.names}

    def part(self, begin: int, end: int) -> "Examples":
        """The queries from ``begin`` to before ``end``."""
        rows = slice(self.begins[begin], self.begins[end])
        return Examples(
            self.names,
            self.features[rows],
            self.relevant[rows],
            self.begins[begin : end + 1] - self.begins[begin],
            self.wanted[begin:end],
            self.users[begin:end],
        )

    def every(self, step: int) -> "Examples":
        """Each ``step``-th query."""
        if step == 1:
            return self
        query = np.repeat(np.arange(len(self)), np.diff(self.begins))
        kept = self.keeping(query % step == 0)
        return Examples(
            self.names,
            kept.features,
            kept.relevant,
            np.r_[kept.begins[:-1:step], kept.begins[-1]],
            self.wanted[::step],
            self.users[::step],
        )

    def keeping(self, candidates: Mask) -> "Examples":
        """All queries, with the ``candidates`` (n,) under a mask only."""
        kept = np.r_[0, np.cumsum(candidates)]
        return Examples(
            self.names,
            self.features[candidates],
            self.relevant[candidates],
            kept[self.begins].astype(np.int64),
            self.wanted,
            self.users,
        )


class Recorder:
    """Plays ``events``, in their order, through ``live`` and asks before some of them."""

    def __init__(self, live: LiveSystem, events: Sequence[Event], settings: Settings) -> None:
        self._live, self._events = live, events
        self._repeats = not settings.retrieval.leave_out_seen
        gap_ms = settings.history.session_gap_s * 1000
        weigh = settings.event_rules().weight
        self._to_come = _to_come(events, gap_ms, self._repeats, lambda event: weigh(event) > 0)
        self._had: dict[str, dict[str, None]] = {}
        self._learnt = 0
        self._features: list[Float32s] = []
        self._relevant: list[Mask] = []
        self._wanted: list[int] = []
        self._users: list[str] = []
        self._places: list[int] = []

    def askable(self) -> Int64s:
        """The places of all events before which a question has an answer, ascending."""
        return np.array(sorted(self._to_come), np.int64)

    def play(self, end: int, asked: Iterable[int] = ()) -> None:
        """Plays up to before the event ``end`` and asks before those of ``asked``, ascending."""
        for n in asked:
            self._learn(n)
            new, place = self._to_come[n]
            items = {self._events[later].item_id for later in new[place:]}
            if self._ask(self._events[n].user_id, items):
                self._places.append(n)
        self._learn(end)

    def examples(self) -> Examples | None:
        """All that was recorded so far, or None if that is nothing."""
        if not self._features:
            return None
        lengths = [len(relevant) for relevant in self._relevant]
        return Examples(
            self._live.features,
            np.concatenate(self._features),
            np.concatenate(self._relevant),
            np.r_[0, np.cumsum(lengths)].astype(np.int64),
            np.array(self._wanted, np.int64),
            np.unique(self._users, return_inverse=True)[1].astype(np.int64),
        )

    @property
    def places(self) -> Int64s:
        """The events before which the recorded queries were asked."""
        return np.array(self._places, np.int64)

    def _learn(self, end: int) -> None:
        while self._learnt < end:
            part = self._events[self._learnt : min(end, self._learnt + _LEARN_AT_ONCE)]
            self._live.learn(part)
            for event in part:
                self._had.setdefault(event.user_id, {})[event.item_id] = None
            self._learnt += len(part)

    def _ask(self, user_id: str, to_come: set[str]) -> bool:
        """Whether there were any candidates."""
        had = [] if self._repeats else list(self._had.get(user_id, {}))
        found = self._live.candidates(user_id, had)
        if not found.item_ids:
            return False
        columns = [found.features[name] for name in self._live.features]
        self._features.append(np.stack(columns, axis=1).astype(np.float32))
        self._relevant.append(np.array([item in to_come for item in found.item_ids], bool))
        self._wanted.append(len(to_come))
        self._users.append(user_id)
        return True


def _to_come(
    events: Sequence[Event], gap_ms: int, repeats: bool, liked: Callable[[Event], bool]
) -> dict[int, tuple[list[int], int]]:
    """By event: the events of its session whose items are liked and new to the user, and its place.

    None for an event whose own item is not, or whose session was not over when the log ended. With
    ``repeats`` all items count as new.
    """
    places: dict[str, list[int]] = {}
    for n, event in enumerate(events):
        places.setdefault(event.user_id, []).append(n)
    over_ms = max((event.time_ms for event in events), default=0) - gap_ms
    to_come: dict[int, tuple[list[int], int]] = {}
    for mine in places.values():
        had: set[str] = set()
        for session in _sessions(mine, events, gap_ms):
            if events[session[-1]].time_ms >= over_ms:
                break
            new: list[int] = []
            for n in session:
                item = events[n].item_id
                if liked(events[n]) and (repeats or item not in had):
                    new.append(n)
                had.add(item)
            to_come |= {n: (new, place) for place, n in enumerate(new)}
    return to_come


def _sessions(mine: Sequence[int], events: Sequence[Event], gap_ms: int) -> Iterable[list[int]]:
    """A user's events, by their places, cut where more than ``gap_ms`` lie between."""
    session: list[int] = []
    for n in mine:
        if session and events[n].time_ms - events[session[-1]].time_ms > gap_ms:
            yield session
            session = []
        session.append(n)
    yield session
