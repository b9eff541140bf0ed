"""The demo's items are written once, all or none."""

import pytest
from kafka import KafkaProducer

from rheos import topics
from rheos.catalogue import decode_item
from rheos.demo import online_retail
from rheos.ids import partition_of
from rheos.local_kafka import KafkaProcess
from rheos.settings import Settings, from_tree
from rheos.topics import Topics
from tests.committed import committed

pytestmark = pytest.mark.kafka


@pytest.fixture
def settings(broker: KafkaProcess, prefix: str) -> Settings:
    made = from_tree({"kafka": {"bootstrap": broker.bootstrap, "prefix": prefix}})
    assert topics.ensure(made) == []
    return made


def items(settings: Settings) -> list[tuple[int, str]]:
    """The committed items as (partition, id)."""
    found = []
    for partition, key, value in committed(settings, Topics(settings).items):
        item = decode_item(value or b"")
        assert key == item.item_id.encode()
        found.append((partition, item.item_id))
    return found


def test_each_item_is_written_once_to_its_partition(settings: Settings) -> None:
    assert online_retail.load_catalogue(settings) == 4070
    assert online_retail.load_catalogue(settings) == 0
    found = items(settings)
    assert len(found) == len({item_id for _, item_id in found}) == 4070
    assert all(place == partition_of(item_id, 4) for place, item_id in found)


def test_a_run_that_died_half_way_leaves_nothing_behind(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    def die(producer: KafkaProducer) -> None:
        producer.flush()
        raise InterruptedError

    with monkeypatch.context() as broken:
        broken.setattr(KafkaProducer, "commit_transaction", die)
        with pytest.raises(InterruptedError):
            online_retail.load_catalogue(settings)
    assert online_retail.load_catalogue(settings) == 4070
    assert len(items(settings)) == 4070
