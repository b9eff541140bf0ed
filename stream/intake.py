"""Intake: records of a foreign source become events, each in its user's partition."""

from collections.abc import Callable, Sequence
from typing import Any

from rheos.events import MAX_EVENT_BYTES, InvalidEvent, encode_event
from rheos.ids import id_problem, partition_of
from rheos.mapping import EventMapping
from rheos.settings import Settings, SourceSettings
from rheos.state import DeadLetter
from rheos.topics import Topics
from stream.agent import Agent, Changes, Fold, Output
from stream.record import Record


def intake_agent(settings: Settings, source: SourceSettings) -> Agent:
    """The agent of one source. Its state topic holds checkpoints only.

    An event's limits are left to the users agent; what has no place in the events topic (no user
    to key it by, too large) or no event in it becomes a dead letter here, with the foreign bytes.
    An event gets no id of its own from its offset: what is sent twice stays recognisable.
    """
    topics = Topics(settings)
    mapping = EventMapping(source)
    partitions = settings.kafka.events_partitions

    def new_fold(partition: int) -> Fold:
        def fold(records: Sequence[Record], state_of: Callable[[str], Any]) -> Changes:
            outputs: list[Output] = []
            dead_letters: list[DeadLetter] = []
            for record in records:
                try:
                    outputs.append(_event(record))
                except InvalidEvent as error:
                    dead_letters.append(
                        agent.dead_letter(partition, record, error.reason, str(error))
                    )
            return Changes({}, outputs, dead_letters)

        return fold

    def _event(record: Record) -> Output:
        event = mapping.event_from_json(record.value)
        problem = id_problem(event.user_id)
        if problem:
            raise InvalidEvent(problem, f"user_id {event.user_id[:80]!r} at {source.user}")
        value = encode_event(event)
        if len(value) > MAX_EVENT_BYTES:
            raise InvalidEvent(
                "too_large", f"the event has {len(value)} bytes; at most {MAX_EVENT_BYTES}"
            )
        home = partition_of(event.user_id, partitions)
        return Output(topics.events, home, event.user_id.encode(), value)

    agent = Agent(
        name=f"intake.{source.name}",
        input_topic=source.topic,
        state_topic=topics.intake[source.name],
        interval_s=settings.stream.users_interval_ms / 1000,
        new_fold=new_fold,
        decode_state=lambda value: value,
        source=source.name,
    )
    return agent
