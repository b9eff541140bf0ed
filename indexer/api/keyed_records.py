"""Records that a request writes: each under its id, in the partition that its id has."""

from collections.abc import Sequence

from indexer.api.endpoint import Call
from indexer.api.error import unavailable
from indexer.event_writer import NotWrittenError, Record, Written
from rheos.ids import partition_of


async def write(
    call: Call, topic: str, partitions: int, records: Sequence[tuple[str, bytes]], advice: str
) -> list[Written]:
    """Writes (id, value) pairs and tells where each stands, in order.

    Raises ApiError 503 with ``advice`` when Kafka does not acknowledge.
    """
    keyed = [
        Record(topic, partition_of(id_, partitions), id_.encode(), value) for id_, value in records
    ]
    try:
        return await call.service.writer.write(keyed)
    except NotWrittenError as error:
        raise unavailable("kafka_away", f"{error}. {advice}") from error
