"""The trainer reads the catalogue's topics from a real Kafka."""

from pathlib import Path

import msgspec
import numpy as np
import pytest
from kafka import KafkaProducer

from rheos import topics
from rheos.catalogue import Item, UserAttributes, encode_record
from rheos.generation import Generation
from rheos.local_kafka import KafkaProcess
from rheos.settings import FeatureDeclaration, FeatureSettings, Settings, from_tree
from rheos.snapshot_store import LocalStore
from rheos.state import History
from tests.trainer import shop
from trainer.catalogue import with_catalogue
from trainer.cycle import train_once
from trainer.data_set import of_interactions

pytestmark = pytest.mark.kafka

DATA = of_interactions(["ann", "bob", "cid"], ["a", "b", "c"], [1, 2, 3])


def settings_for(broker: KafkaProcess, prefix: str, folder: Path) -> Settings:
    return from_tree(
        {
            "data_dir": str(folder),
            "kafka": {"bootstrap": broker.bootstrap, "prefix": prefix},
            "features": {"users": [{"name": "age", "kind": "numeric"}]},
        }
    )


def send(settings: Settings, topic: str, key: bytes | None, value: bytes | None) -> None:
    producer = KafkaProducer(bootstrap_servers=settings.kafka.bootstrap.split(","))
    producer.send(topic, key=key, value=value, partition=1).get(30)
    producer.close()


def test_the_latest_record_of_every_item_and_of_the_data_sets_users_is_known(
    broker: KafkaProcess, prefix: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    settings = settings_for(broker, prefix, tmp_path)
    assert topics.ensure(settings) == []
    names = topics.Topics(settings)

    def item(item_id: str, **fields: object) -> None:
        record = Item(item_id=item_id, **fields)  # type: ignore[arg-type]
        send(settings, names.items, item_id.encode(), encode_record(record))

    item("a", title="old")
    item("a", title="new")
    item("never taken", price=3.0)
    item("b", title="deleted", deleted=True)
    item("c", title="gone")
    send(settings, names.items, b"c", None)
    for broken in (b"{", b'{"item_id": 7, "price": -1}', b"\xff"):
        send(settings, names.items, b"broken", broken)
    send(settings, names.items, b"\xff\xfe", encode_record(Item(item_id="x")))
    for user_id in ("ann", "a stranger"):
        record = UserAttributes(user_id=user_id, attributes={"age": 30.0})
        send(settings, names.users, user_id.encode(), encode_record(record))

    known = with_catalogue(DATA, settings)

    assert {item_id: one.title for item_id, one in known.items_known.items()} == {
        "a": "new",
        "never taken": "",
    }
    assert list(known.users_known) == ["ann"]
    assert known.users_known["ann"].attributes == {"age": 30.0}
    assert known.features == settings.features
    assert known.users is DATA.users
    assert f"{names.items}: 4 records are not used" in caplog.text


def test_what_a_producer_never_committed_is_not_known(
    broker: KafkaProcess, prefix: str, tmp_path: Path
) -> None:
    settings = settings_for(broker, prefix, tmp_path)
    assert topics.ensure(settings) == []
    topic = topics.Topics(settings).items
    send(settings, topic, b"a", encode_record(Item(item_id="a", title="committed")))
    producer = KafkaProducer(
        bootstrap_servers=settings.kafka.bootstrap.split(","), transactional_id=f"{prefix}-test"
    )
    producer.init_transactions()
    producer.begin_transaction()
    value = encode_record(Item(item_id="a", title="aborted"))
    producer.send(topic, key=b"a", value=value, partition=1).get(30)
    producer.abort_transaction()
    producer.close()

    assert with_catalogue(DATA, settings).items_known["a"].title == "committed"


def test_without_the_topics_nothing_is_known(
    broker: KafkaProcess, prefix: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    known = with_catalogue(DATA, settings_for(broker, prefix, tmp_path))
    assert not known.items_known
    assert not known.users_known
    assert f"no topic {prefix}.items" in caplog.text


NOBODY = History([], np.zeros(0, np.float32), np.zeros(0, np.int64))


def test_a_cycle_teaches_the_model_what_the_catalogue_says(
    broker: KafkaProcess, prefix: str, tmp_path: Path
) -> None:
    declared = FeatureSettings(
        items=(FeatureDeclaration(name="category", kind="categorical"),),
        users=(FeatureDeclaration(name="likes", kind="categorical"),),
    )
    parameters = {"factors": 8, "hidden": 16, "epochs": 8, "batch": 64, "learning_rate": 0.02}
    settings = shop.settings_for(
        broker.bootstrap, prefix, tmp_path, model="two_tower", parameters=parameters
    )
    settings = msgspec.structs.replace(settings, features=declared)
    shop.send(settings, shop.taste(800))
    names = topics.Topics(settings)
    with shop.producer(settings) as out:
        for number in range(100):
            item = Item(item_id=f"i{number}", category=f"department {number % 5}")
            out.send(names.items, key=item.item_id.encode(), value=encode_record(item))
        for number in range(40):
            likes = f"department {number % 5}"
            user = UserAttributes(user_id=f"u{number}", attributes={"likes": likes})
            out.send(names.users, key=user.user_id.encode(), value=encode_record(user))
        out.flush()

    outcome = train_once(settings)

    assert outcome.kind == "promoted", outcome
    generation = Generation(LocalStore(settings.store_dir).get(outcome.generation))
    assert generation.content is not None
    new = [Item(item_id="new", category=f"department {number}") for number in range(5)]
    likes = [
        UserAttributes(user_id="new", attributes={"likes": f"Department {number}"})
        for number in range(5)
    ]
    users = generation.encoder.encode([NOBODY] * 5, likes)
    scores = users @ generation.content.encode(new).T
    np.testing.assert_array_equal(scores.argmax(axis=1), np.arange(5))
