"""Interactions of a data set as events, and the live system that is to take them."""

from typing import NamedTuple

import msgspec
import numpy as np

from rheos.events import Event
from rheos.live_system import LiveSystem
from rheos.settings import Settings
from rheos.state import Int64s
from trainer.data_set import DataSet

MOST_FOLDED = 300_000
"""So many events before the first question, the newest, make the states."""


class Replay(NamedTuple):
    """``live`` knows the catalogue and has learned none of the ``events`` yet.

    Under these ``settings`` the events have the weights that the interactions have.
    """

    settings: Settings
    events: list[Event]
    live: LiveSystem


def in_time(data: DataSet) -> Int64s:
    """The interactions (n,) in the order in which they are played."""
    return np.lexsort((np.arange(len(data)), data.users, data.times_ms))


def of(settings: Settings, data: DataSet, order: Int64s, k: int) -> Replay:
    """The replay of the interactions ``order`` (m,), and lists of ``k``."""
    settings, events = _as_events(settings, data, order)
    live = LiveSystem(settings, data.item_ids, k)
    live.describe([*data.items_known.values(), *data.users_known.values()])
    return Replay(settings, events, live)


def _as_events(settings: Settings, data: DataSet, order: Int64s) -> tuple[Settings, list[Event]]:
    """Interactions as events, and settings under which these have the same weights again."""
    weights = data.weights[order]
    types = {weight: f"weight {n}" for n, weight in enumerate(np.unique(weights).tolist())}
    kinds = msgspec.structs.replace(
        settings.events, weights={name: weight for weight, name in types.items()}
    )
    rows = zip(
        data.users[order].tolist(),
        data.items[order].tolist(),
        weights.tolist(),
        data.times_ms[order].tolist(),
        strict=True,
    )
    events = [
        Event(
            user_id=data.user_ids[user],
            item_id=data.item_ids[item],
            type=types[weight],
            time_ms=time_ms,
        )
        for user, item, weight, time_ms in rows
    ]
    return msgspec.structs.replace(settings, events=kinds), events
