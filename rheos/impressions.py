"""What was shown: one record an answer, JSON, on ``rheos.impressions``, for attribution."""

import msgspec


class ShownItem(msgspec.Struct, frozen=True, kw_only=True):
    """An item of an answer; its place in the list is its position."""

    item_id: str
    score: float
    source: str


class Impression(msgspec.Struct, frozen=True, kw_only=True):
    """One answer. ``generation`` is None before the first; an event's ``request_id`` names it."""

    request_id: str
    user_id: str | None
    generation: str | None
    time_ms: int
    items: list[ShownItem]


encode_impression = msgspec.json.Encoder().encode
