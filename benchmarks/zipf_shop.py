"""A shop's click log: users and items by Zipf's law, short sessions, many of them at once."""

from typing import NamedTuple

import numpy as np

from rheos.events import Event, encode_event
from rheos.ids import partition_of

_MINUTE_MS = 60_000
_SESSION_EVERY_MS = 5 * _MINUTE_MS  # a hundred thousand sessions last a year


class Click(NamedTuple):
    """A record for the events topic."""

    user_id: str
    item_id: str
    value: bytes


def item_name(item: int) -> str:
    return f"item-{item:06d}"


def clicks(
    count: int,
    *,
    users: int,
    items: int,
    random: np.random.Generator,
    end_ms: int,
    session_clicks: float = 4.0,
    at_once: int = 1_000,
    taste: int = 200,
) -> list[Click]:
    """``count`` clicks in log order, the last at about ``end_ms``.

    A session has ``session_clicks`` on average (geometric, as in RSC15), 45 s apart; it stays
    within ``taste`` items of about equal popularity. About ``at_once`` sessions are under way at
    any place of the log. A user's own clicks are in order.
    """
    sessions = int(1.2 * count / session_clicks) + 100
    lengths = random.geometric(1 / session_clicks, sessions)
    session_of = np.repeat(np.arange(sessions), lengths)[:count]
    step = np.arange(count) - (np.cumsum(lengths) - lengths)[session_of]
    user_of_session = _zipf(users, sessions, random)
    user = user_of_session[session_of]
    centre = _zipf(items, sessions, random)[session_of]
    item = (centre + random.integers(0, taste, count)) % items
    end_of_session = int(session_of[-1])
    time_ms = (
        end_ms
        - (end_of_session - session_of + 1) * _SESSION_EVERY_MS
        + step * 45_000
        + random.integers(0, 20_000, count)
    )
    # Between two clicks of a session the log holds about `at_once` clicks of others.
    waits = random.exponential(at_once, count) * (step > 0)
    since_first = np.cumsum(waits)
    first = np.flatnonzero(step == 0)
    since_first -= since_first[first][session_of]
    place = session_of * session_clicks + since_first
    # Where two sessions of a user overlap, the earlier one's clicks stand first.
    by_time = np.lexsort((time_ms, user))
    by_place = np.lexsort((place, user))
    order = np.empty(count)
    order[by_time] = place[by_place]
    return [_click(int(user[row]), int(item[row]), int(time_ms[row])) for row in np.argsort(order)]


def _zipf(kinds: int, count: int, random: np.random.Generator) -> np.ndarray:
    """Numbers below ``kinds``, the k-th with probability ~ 1/k (Zipf's exponent 1)."""
    shares = 1.0 / np.arange(1, kinds + 1)
    return random.choice(kinds, count, p=shares / shares.sum())


def _click(user: int, item: int, time_ms: int) -> Click:
    event = Event(
        user_id=f"user-{user:06d}", item_id=item_name(item), type="click", time_ms=time_ms
    )
    return Click(event.user_id, event.item_id, encode_event(event))


def partition(click: Click, partitions: int) -> int:
    return partition_of(click.user_id, partitions)
