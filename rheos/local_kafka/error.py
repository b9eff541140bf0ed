"""What a person can be told in one line when the private Kafka cannot be fetched or started."""


class LocalKafkaError(RuntimeError):
    """The private Kafka is not to be had; the message is one line that names cause and fix."""
