"""A partition's log, read committed, from an offset to the end that it has now."""

import time
from collections.abc import Iterator

from confluent_kafka import Consumer, KafkaError, KafkaException, Message, TopicPartition

ASK_TIMEOUT_S = 10.0
ASK_AGAIN_S = 0.1
FETCH_RECORDS, FETCH_TIMEOUT_S = 1000, 0.05  # it waits for both: the last few would take long


class CommittedLogError(RuntimeError):
    """A log that could not be read to its end; the text names the place and the cause."""


def read_committed(
    bootstrap: str, topic: str, partition: int, start: int = 0, *, silence_s: float = 60.0
) -> Iterator[Message]:
    """The committed records from offset ``start`` to the end, as it stands when reading begins.

    The end is asked *read uncommitted*: while someone's transaction is open, a read-committed
    consumer's own end lies before records that are committed already. Reading goes on until the
    position is there, so it waits for open transactions to end, their time-out at most.

    Blocks. Raises CommittedLogError when the broker is away, the topic does not exist, or nothing
    was read for ``silence_s`` seconds.
    """
    end = end_of(bootstrap, topic, partition)
    if start >= end:
        return
    consumer = _consumer(bootstrap, "read_committed")
    try:
        consumer.assign([TopicPartition(topic, partition, start)])
        position, heard_s = start, time.monotonic()
        while position < end:
            messages = consumer.consume(FETCH_RECORDS, timeout=FETCH_TIMEOUT_S)
            now_s = time.monotonic()
            if not messages and now_s - heard_s > silence_s:
                raise CommittedLogError(
                    f"{topic}[{partition}] was read to {position} of {end}; a transaction is open"
                    f" there for {silence_s:.0f} s, or the broker is away"
                )
            for message in messages:
                error = message.error()
                if error is None:
                    position = message.offset() + 1
                    if position <= end:
                        yield message
                # Where the end is reached over markers and aborted records, no record says so.
                elif error.code() == KafkaError._PARTITION_EOF:
                    position = max(position, message.offset())
                elif not error.retriable():
                    raise CommittedLogError(f"{topic}[{partition}]@{position}: {error.str()}")
            if messages:
                heard_s = time.monotonic()  # after the caller's work: it is no silence of the log's
    finally:
        consumer.close()


def end_of(bootstrap: str, topic: str, partition: int) -> int:
    """The offset after the partition's last record, committed or not.

    Blocks. Raises CommittedLogError when the broker is away or the topic does not exist.
    """
    consumer = _consumer(bootstrap, "read_uncommitted")
    place = TopicPartition(topic, partition)
    give_up_s = time.monotonic() + ASK_TIMEOUT_S
    try:
        while True:
            try:
                _, end = consumer.get_watermark_offsets(place, timeout=ASK_TIMEOUT_S)
                return int(end)
            except KafkaException as error:
                # A topic that was just made, or a broker that just started, has no leader yet.
                if time.monotonic() > give_up_s:
                    text = error.args[0].str()
                    raise CommittedLogError(f"{topic}[{partition}]: {text}") from None
                time.sleep(ASK_AGAIN_S)
    finally:
        consumer.close()


def _consumer(bootstrap: str, isolation: str) -> Consumer:
    return Consumer(
        {
            "bootstrap.servers": bootstrap,
            "group.id": "unused",  # librdkafka wants one; nothing joins it or commits to it
            "enable.auto.commit": False,
            "enable.auto.offset.store": False,
            "auto.offset.reset": "earliest",
            "isolation.level": isolation,
            "enable.partition.eof": True,
            "log_level": 2,
        }
    )
