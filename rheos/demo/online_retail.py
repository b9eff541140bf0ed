"""Online Retail: a gift wholesaler's invoices of a year, 541,909 lines (ATTRIBUTION.txt)."""

import lzma
from collections.abc import Iterator
from pathlib import Path

from rheos.catalogue import Item, decode_item, encode_record
from rheos.ids import partition_of
from rheos.mapping import EventMapping
from rheos.row_file import RowFile
from rheos.settings import Settings, SourceSettings
from rheos.topics import Topics

NAME = "online-retail"
ROWS = 541_909

ROWS_FILE = Path(__file__).with_name("online_retail.csv.xz")
ITEMS_FILE = Path(__file__).with_name("items.jsonl.xz")

SHAPE = SourceSettings(
    name=NAME,
    topic=NAME,
    user="CustomerID",
    item="StockCode",
    fixed_type="purchase",
    time="InvoiceDate",
    time_unit="iso",
    value="Quantity",
    session_id="InvoiceNo",
)
"""A line is a purchase of ``Quantity`` pieces. Lines without a customer and with a negative
quantity (cancellations, corrections) are no events; they become dead letters."""

LOADED = b"demo-catalogue"
"""The key in ``rheos.replay`` under which it stands that the items were written."""


def rows() -> RowFile:
    """The invoice lines by time, those of one invoice and minute in no order."""
    return RowFile(ROWS_FILE)


def mapping() -> EventMapping:
    return EventMapping(SHAPE)


def items() -> Iterator[Item]:
    """What the lines tell of each item: title, median price, a category from the title's words."""
    with lzma.open(ITEMS_FILE) as lines:
        yield from map(decode_item, lines)


def load_catalogue(settings: Settings) -> int:
    """Writes the items to ``rheos.items``, once: returns their number, or 0 if they were written
    before, so that what was changed there since then stays.

    Items and the note that they were written go in one transaction. Blocks; raises KafkaError.
    """
    from kafka import KafkaProducer

    topics = Topics(settings)
    producer = KafkaProducer(
        bootstrap_servers=settings.kafka.bootstrap.split(","),
        transactional_id=f"{settings.kafka.prefix}.{LOADED.decode()}",
        transaction_timeout_ms=settings.stream.transaction_timeout_s * 1000,
        linger_ms=5,
    )
    try:
        producer.init_transactions()  # settles what an earlier run that was killed had begun
        if _is_loaded(settings):
            return 0
        count = 0
        producer.begin_transaction()
        for item in items():
            partition = partition_of(item.item_id, settings.kafka.items_partitions)
            producer.send(
                topics.items, encode_record(item), item.item_id.encode(), partition=partition
            )
            count += 1
        producer.send(topics.replay, b'{"next":{"item":%d}}' % count, LOADED, partition=0)
        producer.commit_transaction()
        return count
    finally:
        producer.close()


def _is_loaded(settings: Settings) -> bool:
    from kafka import KafkaConsumer, TopicPartition

    place = TopicPartition(Topics(settings).replay, 0)
    consumer = KafkaConsumer(
        bootstrap_servers=settings.kafka.bootstrap.split(","),
        group_id=None,
        isolation_level="read_committed",
        auto_offset_reset="earliest",
        enable_auto_commit=False,
    )
    try:
        consumer.assign([place])
        end = consumer.end_offsets([place])[place]
        consumer.seek_to_beginning(place)
        while consumer.position(place) < end:
            for records in consumer.poll(timeout_ms=1000).values():
                if any(record.key == LOADED for record in records):
                    return True
        return False
    finally:
        consumer.close()
