"""What a partition asks the brokers when it opens."""

from typing import NamedTuple

from confluent_kafka import IsolationLevel, KafkaException, TopicCollection, TopicPartition
from confluent_kafka.admin import AdminClient, OffsetSpec

ANSWER_WITHIN_S = 10.0
CLIENT: dict[str, str | int] = {
    "log_level": 0,  # librdkafka tells stderr of each refused connection; errors come back anyway
    "reconnect.backoff.max.ms": 1000,  # 10 s by default: as long after a broker's restart
}
"""What all our clients of librdkafka have in common."""


class TopicIdentity(NamedTuple):
    """A topic of the same name that was deleted and created again has another id."""

    topic_id: str
    partitions: int


class Range(NamedTuple):
    """The offsets that a partition's log holds: from ``begin``, below ``end``."""

    begin: int
    end: int


class Cluster:
    """Thread-safe. All methods block up to ``ANSWER_WITHIN_S`` and raise KafkaException."""

    def __init__(self, bootstrap: str) -> None:
        self._bootstrap = bootstrap
        self._admin = self._connect()

    def _connect(self) -> AdminClient:
        return AdminClient({"bootstrap.servers": self._bootstrap, **CLIENT})

    def identity(self, topic: str) -> TopicIdentity:
        admin = self._admin  # as in `_offset`
        answers = admin.describe_topics(TopicCollection([topic]), request_timeout=ANSWER_WITHIN_S)
        described = answers[topic].result()
        return TopicIdentity(str(described.topic_id), len(described.partitions))

    def range(self, topic: str, partition: int) -> Range:
        """The log's range, transactions in progress included."""
        return Range(
            self._offset(topic, partition, OffsetSpec.earliest()),
            self._offset(topic, partition, OffsetSpec.latest()),
        )

    def _offset(self, topic: str, partition: int, spec: OffsetSpec) -> int:
        # Held until it has answered: another thread may replace it meanwhile, and what a client is
        # asked that is gone by then is never answered.
        admin = self._admin
        answers = admin.list_offsets(
            {TopicPartition(topic, partition): spec},
            isolation_level=IsolationLevel.READ_UNCOMMITTED,
            request_timeout=ANSWER_WITHIN_S,
        )
        (answer,) = answers.values()
        try:
            return int(answer.result().offset)
        except KafkaException:
            # It remembers each leader's epoch, and after a crash of the broker goes on asking with
            # the old one (_FENCED_LEADER_EPOCH) for minutes: the next question has a new client.
            self._admin = self._connect()
            raise
