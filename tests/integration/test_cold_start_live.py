"""New items and new users over HTTP, before their first event, by a trained two-tower model."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from rheos.local_kafka import KafkaProcess
from tests.contract.test_models import checkerboard, item_of, user_of
from tests.indexer import shop
from tests.integration.indexer_rig import Feed, Indexer, running, settings_for, until
from trainer.fitting import make
from trainer.models.model import Run
from trainer.models.two_tower import TwoTower

pytestmark = pytest.mark.kafka

MODEL = TwoTower(factors=8, hidden=16, epochs=20, batch=64, negatives=8, learning_rate=0.02)
EACH = 12
"""Items of each colour in the model; even numbers are white."""


class Shop:
    """An indexer that serves a model of white and black items and of users who take only one."""

    def __init__(self, indexer: Indexer, feed: Feed) -> None:
        self.client = indexer.client
        self.feed = feed

    def put(self, path: str, attributes: dict[str, Any] | None = None, **fields: Any) -> None:
        body = {"attributes": attributes or {}, **fields}
        assert self.client.put(path, json=body).status_code == 202

    def list_of(self, user_id: str, k: int = EACH + 1) -> dict[str, str]:
        """The sources of a user's items by id, best first."""
        answer = self.client.get(f"/v1/users/{user_id}/recommendations", params={"k": k}).json()
        return {item["item_id"]: item["source"] for item in answer["items"]}


@pytest.fixture
def live(broker: KafkaProcess, prefix: str, tmp_path: Path) -> Iterator[Shop]:
    settings = settings_for(broker.bootstrap, prefix, tmp_path)
    feed = Feed(settings)
    data = checkerboard(missing=2)
    name = feed.store.put(*make(1, MODEL, MODEL.fit(data, Run()), data, {}))
    feed.announce(name)
    with running(settings) as indexer:
        yield Shop(indexer.ready(), feed)
    feed.close()


def colours(items: dict[str, str]) -> list[int]:
    return [int(item_id[1:]) % 2 for item_id in items]


def test_new_items_and_new_users_meet_before_any_event(live: Shop) -> None:
    assert live.list_of("white") == {}  # nothing is known of anybody
    for user_id, like in (("white", user_of(100)), ("black", user_of(101))):
        live.put(f"/v1/users/{user_id}", dict(like.attributes))
    until(lambda: bool(live.list_of("white") and live.list_of("black")))
    assert colours(live.list_of("white", EACH)).count(0) >= EACH - 1
    assert colours(live.list_of("black", EACH)).count(1) >= EACH - 1

    for item in (item_of(100), item_of(101)):
        live.put(f"/v1/items/{item.item_id}", title=item.title, category=item.category)
    until(lambda: "i100" in live.list_of("white") and "i101" in live.list_of("black"))
    white, black = live.list_of("white"), live.list_of("black")
    assert white["i100"] == "new"
    assert black["i101"] == "new"
    assert "i101" not in white
    assert "i100" not in black


def test_a_changed_record_counts_at_once_for_items_and_for_users(live: Shop) -> None:
    live.put("/v1/users/u", dict(user_of(100).attributes))
    live.put("/v1/items/i100", title=item_of(100).title, category="white")
    until(lambda: "i100" in live.list_of("u"))
    live.put("/v1/items/i100", title=item_of(101).title, category="black")
    until(lambda: "i100" not in live.list_of("u"))
    live.put("/v1/users/u", dict(user_of(101).attributes))
    until(lambda: "i100" in live.list_of("u"))
    assert live.client.delete("/v1/items/i100").status_code == 202
    until(lambda: "i100" not in live.list_of("u", 2 * EACH))


def test_a_history_speaks_beside_the_attributes(live: Shop) -> None:
    generation = live.feed.store.get(live.feed.store.names()[0]).name
    state = shop.user_state(["i00", "i02", "i04", "i06"])
    live.feed.user("u", state)
    live.feed.flush()
    until(lambda: bool(live.list_of("u")))
    assert colours(live.list_of("u", 6)).count(0) >= 5
    live.put("/v1/users/u", dict(user_of(101).attributes))
    answer = live.client.get("/v1/users/u/recommendations").json()
    assert answer["generation"] == generation
    assert answer["as_of"] is not None


def test_an_anonymous_visitor_may_say_what_is_known_of_her(live: Shop) -> None:
    def asked(**body: Any) -> Any:
        return live.client.post("/v1/recommendations", json={"k": EACH, **body})

    (answer,) = asked(history=[], attributes=dict(user_of(101).attributes)).json()["answers"]
    assert sum(int(item["item_id"][1:]) % 2 for item in answer["items"]) >= EACH - 1
    assert asked(history=[], attributes={"side": ["?"], "x": None}).status_code == 200
    assert asked(users=["u"], attributes={"side": "W"}).status_code == 422
    assert asked(history=[], attributes={"side": {"deep": 1}}).status_code in (400, 422)
