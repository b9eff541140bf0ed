"""The indexer against a real Kafka: every resource, as a client sees it."""

from collections.abc import Iterator

import httpx
import numpy as np
import pytest

from rheos import fit_progress
from rheos.catalogue import Item
from rheos.local_kafka import KafkaProcess
from tests.indexer import shop
from tests.integration.indexer_rig import Feed, Indexer, running, settings_for, until

pytestmark = pytest.mark.kafka

ITEMS = [f"i{number}" for number in range(40)]


@pytest.fixture(scope="module")
def world(
    run_broker: KafkaProcess, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[Feed, Indexer]]:
    """A shop of 40 items, three users and one generation; i39 is unknown to the generation."""
    run_broker.start()
    settings = settings_for(run_broker.bootstrap, "tapi", tmp_path_factory.mktemp("indexer"))
    feed = Feed(settings)
    vectors = shop.vectors(39)
    name = shop.stored(feed.store, ITEMS[:39], vectors)
    generation = shop.generation(ITEMS[:39], vectors)
    generation.name = name
    feed.user("anna", shop.user_state(ITEMS[:3], generation=generation, offset=7))
    feed.user("ben", shop.user_state(ITEMS[5:7], offset=9))
    feed.user("mia", shop.user_state(["nowhere"], offset=1))
    feed.checkpoint()
    for number, item in enumerate(ITEMS):
        near = {ITEMS[(number + step) % 40]: (1.0 / step, 1.0 / step) for step in (1, 2, 3)}
        feed.item_state(item, shop.item_state(100 - number, near))
        feed.item(
            Item(
                item_id=item,
                title=f"Mug number {number}",
                category="even" if number % 2 == 0 else "odd",
                price=float(number),
                available=number != 30,
            )
        )
    feed.announce(name)
    feed.flush()
    with running(settings) as indexer:
        yield feed, indexer.ready()
    feed.close()


@pytest.fixture
def client(world: tuple[Feed, Indexer]) -> httpx.Client:
    return world[1].client


@pytest.fixture
def feed(world: tuple[Feed, Indexer]) -> Feed:
    return world[0]


def test_a_user_gets_items_of_one_generation_with_source_title_and_place(
    client: httpx.Client,
) -> None:
    answer = client.get("/v1/users/anna/recommendations", params={"k": 5}).json()
    assert answer["user_id"] == "anna"
    assert answer["generation"].startswith("1-")
    assert answer["as_of"]["offset"] == 7
    assert len(answer["items"]) == 5
    assert not {item["item_id"] for item in answer["items"]} & set(ITEMS[:3])
    assert {item["source"] for item in answer["items"]} <= {"vector", "next", "trend", "new"}
    assert all(item["title"].startswith("Mug") for item in answer["items"])
    assert answer["ignored"] == []


def test_without_a_vector_of_the_generation_the_history_is_encoded_again(
    client: httpx.Client, world: tuple[Feed, Indexer]
) -> None:
    answer = client.get("/v1/users/ben/recommendations?sources=vector&k=4").json()
    serving = world[1].service.swap.current
    assert serving is not None
    history = shop.user_state(ITEMS[5:7]).history()
    vector = serving.generation.encoder.encode([history])[0]
    scores = serving.generation.item_vectors @ vector
    scores[[5, 6, 30]] = -np.inf
    expected = np.argsort(-scores)[:4]
    assert [item["item_id"] for item in answer["items"]] == [ITEMS[row] for row in expected]
    assert [item["score"] for item in answer["items"]] == pytest.approx(
        scores[expected].tolist(), rel=1e-4
    )


def test_an_unknown_user_gets_the_trend_and_no_place(client: httpx.Client) -> None:
    answer = client.get("/v1/users/nobody/recommendations?k=3").json()
    assert [item["item_id"] for item in answer["items"]] == ["i0", "i1", "i2"]
    assert {item["source"] for item in answer["items"]} == {"trend"}
    assert answer["as_of"] is None


def test_unknown_items_of_a_history_are_named_and_ignored(client: httpx.Client) -> None:
    answer = client.get("/v1/users/mia/recommendations?k=3").json()
    assert answer["ignored"] == ["nowhere"]
    assert len(answer["items"]) == 3
    body = {"history": [{"item_id": "i1"}, {"item_id": "lost"}, {"item_id": 77}], "k": 3}
    (anonymous,) = client.post("/v1/recommendations", json=body).json()["answers"]
    assert anonymous["ignored"] == ["lost", "77"]
    assert anonymous["user_id"] is None
    assert len(anonymous["items"]) == 3


def test_unavailable_excluded_and_seen_items_never_stand_in_an_answer(
    client: httpx.Client,
) -> None:
    answer = client.get(
        "/v1/users/anna/recommendations", params={"k": 40, "exclude": ["i10", "i11"]}
    ).json()
    found = [item["item_id"] for item in answer["items"]]
    assert sorted(found) == sorted(set(ITEMS) - {"i0", "i1", "i2", "i10", "i11", "i30"})


def test_a_category_holds_for_every_source(client: httpx.Client) -> None:
    for sources in (None, "vector", "next", "trend"):
        params = {"k": 30, "category": "odd"} | ({"sources": sources} if sources else {})
        answer = client.get("/v1/users/anna/recommendations", params=params).json()
        assert answer["items"]
        assert all(int(item["item_id"][1:]) % 2 for item in answer["items"])
    answer = client.get("/v1/users/anna/recommendations?category=nothing").json()
    assert answer["items"] == []


def test_an_item_that_the_generation_does_not_know_is_new(client: httpx.Client) -> None:
    answer = client.get("/v1/users/anna/recommendations?sources=new").json()
    assert [(item["item_id"], item["source"]) for item in answer["items"]] == [("i39", "new")]


def test_an_explanation_names_items_of_the_history_and_shares(client: httpx.Client) -> None:
    answer = client.get("/v1/users/anna/recommendations?explain=true&k=10").json()
    reasons = [reason for item in answer["items"] for reason in item["because"]]
    assert reasons
    assert {reason["item_id"] for reason in reasons} <= set(ITEMS[:3])
    assert {reason["source"] for reason in reasons} == {"vector", "next"}
    assert all(0 < reason["share"] <= 1 for reason in reasons)


def test_several_users_are_answered_in_order(client: httpx.Client) -> None:
    answers = client.post(
        "/v1/recommendations", json={"users": ["ben", "anna", "x"], "k": 2}
    ).json()["answers"]
    assert [answer["user_id"] for answer in answers] == ["ben", "anna", "x"]
    alone = client.get("/v1/users/anna/recommendations?k=2").json()
    assert answers[1]["items"] == alone["items"]


def test_items_like_an_item_leave_it_out_and_know_its_neighbours(client: httpx.Client) -> None:
    answer = client.get("/v1/items/i7/similar?k=8").json()
    found = [item["item_id"] for item in answer["items"]]
    assert len(found) == 8
    assert "i7" not in found
    following = client.get("/v1/items/i7/similar?k=3&sources=next").json()
    assert [item["item_id"] for item in following["items"]] == ["i8", "i9", "i10"]
    assert client.get("/v1/items/nothing/similar").status_code == 404
    assert client.get("/v1/items/i39/similar").json()["items"]


def test_events_are_written_where_their_user_belongs(client: httpx.Client, feed: Feed) -> None:
    event = {"user_id": "anna", "item_id": "i9", "type": "click", "time_ms": 1_700_000_000_000}
    one = client.post("/v1/events", json=event)
    assert one.status_code == 202
    many = client.post("/v1/events", json=[event, {**event, "user_id": 5, "time_ms": None}] * 500)
    assert many.status_code == 202
    places = many.json()["events"]
    assert len(places) == 1000
    mine = [one.json()["events"][0], *places[::2]]
    assert {place["partition"] for place in mine} == {mine[0]["partition"]}
    offsets = [place["offset"] for place in mine]
    assert offsets == sorted(set(offsets))


def test_one_bad_event_refuses_all_and_nothing_is_written(client: httpx.Client) -> None:
    good = {"user_id": "u", "item_id": "i", "type": "click", "time_ms": 1}
    before = client.post("/v1/events", json=good).json()["events"][0]["offset"]
    bad = [
        ({"type": "jump"}, "unknown_type"),
        ({"user_id": ""}, "empty_id"),
        ({"item_id": "x" * 300}, "long_id"),
        ({"item_id": "a\x00b"}, "control_character"),
        ({"time_ms": 1 << 52}, "in_the_future"),
        ({"time_ms": "yesterday"}, "wrong_type"),
        ({"value": -1.0}, "out_of_range"),
        ({"type": "forget"}, "unknown_type"),
    ]
    for change, reason in bad:
        answer = client.post("/v1/events", json=[good, {**good, **change}, good])
        assert answer.status_code == 422, change
        error = answer.json()["error"]
        assert (error["code"], error["index"], error["reason"]) == ("invalid_event", 1, reason)
    raw = b'[{"user_id":"u","item_id":"i","type":"rating","value":NaN,"time_ms":1}]'
    assert client.post("/v1/events", content=raw).status_code == 400
    assert client.post("/v1/events", json=[]).status_code == 422
    assert client.post("/v1/events", json=[good] * 1001).status_code == 422
    assert client.post("/v1/events", json="click").status_code == 422
    after = client.post("/v1/events", json=good).json()["events"][0]["offset"]
    assert after == before + 1


def test_an_item_is_put_found_deleted_and_put_back(client: httpx.Client) -> None:
    item = {"title": "Blue <b>teapot</b>", "category": "odd", "price": 12.5}
    answer = client.put("/v1/items/t%2F1", json=item)
    assert answer.status_code == 202
    assert answer.json()["items"][0]["item_id"] == "t/1"
    until(lambda: client.get("/v1/items/t%2F1").status_code == 200)
    found = client.get("/v1/items", params={"query": "TEAPOT blue"}).json()["items"]
    assert [one["item_id"] for one in found] == ["t/1"]
    assert found[0]["price"] == 12.5
    assert client.delete("/v1/items/t%2F1").status_code == 202
    until(lambda: client.get("/v1/items/t%2F1").status_code == 404)
    assert client.get("/v1/items", params={"query": "teapot"}).json() == {"items": []}
    assert client.post("/v1/items", json=[{"item_id": "t/1", **item}]).status_code == 202
    until(lambda: client.get("/v1/items/t%2F1").status_code == 200)


def test_a_deleted_item_leaves_every_answer(client: httpx.Client) -> None:
    def found(item_id: str) -> bool:
        answer = client.get("/v1/users/anna/recommendations?k=100").json()
        return item_id in [item["item_id"] for item in answer["items"]]

    assert found("i20")
    client.delete("/v1/items/i20")
    until(lambda: not found("i20"))
    assert client.get("/v1/items/i20").status_code == 404
    client.put("/v1/items/i20", json={"title": "Mug number 20", "category": "even"})
    until(lambda: found("i20"))


def test_bad_items_are_refused_with_their_place(client: httpx.Client) -> None:
    for body in (
        [{"item_id": "ok"}, {"title": "no id"}],
        [{"item_id": "ok"}, {"item_id": "x", "price": -1}],
        [{"item_id": "ok"}, {"item_id": "x", "title": "t" * 2000}],
        [{"item_id": "ok"}, {"item_id": "\n"}],
    ):
        answer = client.post("/v1/items", json=body)
        assert (answer.status_code, answer.json()["error"]["index"]) == (422, 1)
    assert client.put("/v1/items/a", json={"item_id": "b"}).status_code == 422
    assert client.get("/v1/items/ok").status_code == 404


def test_users_show_history_newest_first_and_take_attributes(client: httpx.Client) -> None:
    user = client.get("/v1/users/anna").json()
    assert [item["item_id"] for item in user["history"]] == ["i2", "i1", "i0"]
    assert user["history"][0]["title"] == "Mug number 2"
    assert (user["accepted"], user["as_of"]["offset"]) == (3, 7)
    assert client.get("/v1/users/ghost").status_code == 404
    body = {"attributes": {"segment": "b2b", "tags": ["a", "b"]}}
    assert client.put("/v1/users/anna", json=body).status_code == 202
    until(lambda: client.get("/v1/users/anna").json()["attributes"] == body["attributes"])
    assert client.put("/v1/users/anna", json={"attributes": 5}).status_code == 422
    assert client.put("/v1/users/anna", json={"user_id": "ben"}).status_code == 422
    users = client.get("/v1/users?limit=2").json()["users"]
    assert users == [{"user_id": "anna", "accepted": 3}, {"user_id": "ben", "accepted": 2}]


def test_a_forgotten_user_is_gone_and_a_new_state_replaces_the_old(
    client: httpx.Client, feed: Feed
) -> None:
    feed.user("tom", shop.user_state(["i1"], offset=3))
    feed.flush()
    until(lambda: client.get("/v1/users/tom").status_code == 200)
    feed.user("tom", shop.user_state(["i1", "i2"], offset=4))
    feed.flush()
    until(lambda: client.get("/v1/users/tom").json()["as_of"]["offset"] == 4)
    feed.user("tom", None)
    feed.flush()
    until(lambda: client.get("/v1/users/tom").status_code == 404)
    assert client.get("/v1/users/tom/recommendations").json()["as_of"] is None


def test_records_that_cannot_be_read_are_passed_over(client: httpx.Client, feed: Feed) -> None:
    feed.raw(feed.topics.items, b"broken", b"{")
    feed.raw(feed.topics.items, b"\xff\xfe", b'{"item_id": "x"}')
    feed.raw(feed.topics.items, None, b'{"item_id": "x"}')
    feed.raw(feed.topics.user_state, b"broken", b"\xc1")
    feed.raw(feed.topics.item_state, b"broken", b"\x93\x01")
    feed.user("after", shop.user_state(["i1"]))
    feed.flush()
    until(lambda: client.get("/v1/users/after").status_code == 200)
    assert client.get("/healthz").status_code == 200


def test_status_names_generation_view_and_readiness(client: httpx.Client) -> None:
    status = client.get("/v1/status").json()
    assert status["ready"]
    assert status["not_ready"] is None
    assert status["generation"]["items"] == 39
    assert status["generation"]["index"] == "flat"
    assert status["generation"]["new_items"] == 1
    assert status["generation"]["report"] is False
    assert status["view"]["items"] == 40
    assert status["swaps"] == {"done": 1, "refused_generation": None, "refused_reason": None}
    client.get("/v1/users/anna/recommendations")
    text = client.get("/metrics").text
    assert "rheos_view_users" in text
    assert 'rheos_request_seconds_count{route="/v1/users/{user_id}/recommendations"' in text


def test_status_says_how_far_a_running_fit_is(client: httpx.Client, feed: Feed) -> None:
    assert client.get("/v1/status").json()["fit"] is None
    with fit_progress.told(feed.settings.store_dir, "mf", lambda *_: None) as tell:
        tell("fit", 3, 256)
        fit = client.get("/v1/status").json()["fit"]
        assert (fit["model"], fit["stage"], fit["done"], fit["total"]) == ("mf", "fit", 3, 256)
    assert client.get("/v1/status").json()["fit"] is None


def test_answers_reach_the_impressions_topic(client: httpx.Client, feed: Feed) -> None:
    import msgspec
    from kafka import KafkaConsumer, TopicPartition

    from rheos.ids import partition_of
    from rheos.impressions import Impression

    answer = client.get("/v1/users/anna/recommendations?k=2").json()
    at = TopicPartition(feed.topics.impressions, partition_of("anna", 2))
    consumer = KafkaConsumer(
        bootstrap_servers=feed.settings.kafka.bootstrap, isolation_level="read_committed"
    )
    consumer.assign([at])
    consumer.seek_to_beginning(at)
    found: list[str] = []

    def shown() -> bool:
        for records in consumer.poll(timeout_ms=200).values():
            for record in records:
                impression = msgspec.json.decode(record.value, type=Impression)
                if impression.request_id == answer["request_id"]:
                    found.extend(item.item_id for item in impression.items)
        return bool(found)

    until(shown)
    consumer.close()
    assert found == [item["item_id"] for item in answer["items"]]


def test_the_page_and_the_docs_are_served_without_help_from_elsewhere(
    client: httpx.Client,
) -> None:
    page = client.get("/")
    assert page.status_code == 200
    assert "text/html" in page.headers["content-type"]
    docs = client.get("/docs")
    assert "/v1/events" in docs.text
    for text in (page.text, docs.text):
        assert "http://" not in text.replace("http://www.w3.org", "")
        assert "https://" not in text
    assert client.get("/openapi.json").json()["openapi"].startswith("3.")
    assert client.get("/page/../worker.py").status_code == 404
    assert client.get("/page/%2e%2e/worker.py").status_code == 404


def test_a_stored_generations_report_is_served_as_json_and_as_a_page(
    client: httpx.Client, feed: Feed
) -> None:
    files = {"report.json": b'{"number": 1}', "report.html": b"<!doctype html><p>fine"}
    name = shop.stored(feed.store, ITEMS[:39], shop.vectors(39), files=files)
    answer = client.get(f"/v1/generations/{name}/report")
    assert (answer.status_code, answer.json()) == (200, {"number": 1})
    page = client.get(f"/v1/generations/{name}/report.html")
    assert page.content == files["report.html"]
    assert page.headers["content-type"] == "text/html; charset=utf-8"
    assert page.headers["content-security-policy"].startswith("default-src 'none'")

    (feed.settings.store_dir / name / "report.html").write_text("<p>not what was written")
    serving = client.get("/v1/status").json()["generation"]["name"]
    for wrong in (f"{name}/report.html", f"{serving}/report", "9-00000000/report", "..%2F/report"):
        refused = client.get(f"/v1/generations/{wrong}")
        assert refused.status_code == 404
        assert refused.json()["error"]["code"] == "not_found"
