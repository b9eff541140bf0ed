"""What a topic holds, as another client than the code under test reads it."""

from kafka import KafkaConsumer, TopicPartition

from rheos.settings import Settings


def committed(settings: Settings, topic: str) -> list[tuple[int, bytes | None, bytes | None]]:
    """All committed records as (partition, key, value), each partition in log order."""
    consumer = KafkaConsumer(
        bootstrap_servers=settings.kafka.bootstrap,
        group_id=None,
        isolation_level="read_committed",
        auto_offset_reset="earliest",
    )
    try:
        places = [TopicPartition(topic, n) for n in consumer.partitions_for_topic(topic)]
        consumer.assign(places)
        ends = consumer.end_offsets(places)
        found = []
        while any(consumer.position(place) < ends[place] for place in places):
            for place, records in consumer.poll(timeout_ms=200).items():
                found += [(place.partition, record.key, record.value) for record in records]
        return found
    finally:
        consumer.close()
