"""A private Apache Kafka, the real one: locked jars, a fetcher, a broker on 127.0.0.1."""

from rheos.local_kafka.error import LocalKafkaError
from rheos.local_kafka.fetch import check_jars, default_jars_dir, fetch_jars
from rheos.local_kafka.lock import KAFKA_VERSION
from rheos.local_kafka.run import KafkaProcess, LocalKafka

__all__ = [
    "KAFKA_VERSION",
    "KafkaProcess",
    "LocalKafka",
    "LocalKafkaError",
    "check_jars",
    "default_jars_dir",
    "fetch_jars",
]
