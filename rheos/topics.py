"""Our Kafka topics: names, partition counts, settings; creating them and naming what is wrong."""

from collections.abc import Mapping
from typing import Any, NamedTuple

from kafka import KafkaAdminClient
from kafka.admin import ConfigResource, ConfigResourceType
from kafka.errors import TopicAlreadyExistsError

from rheos.settings import Settings

CREATED_MS = 60_000
"""A busy broker takes its time with new topics; giving up would end a start that was going well."""
_DAY_MS = 86_400_000


class Topic(NamedTuple):
    """A topic as it must be."""

    name: str
    partitions: int
    config: Mapping[str, str]


class Topics:
    """The topic names under a prefix and, as ``all``, what each must look like."""

    def __init__(self, settings: Settings) -> None:
        prefix = settings.kafka.prefix
        self.events = f"{prefix}.events"
        self.items = f"{prefix}.items"
        self.users = f"{prefix}.users"
        self.user_state = f"{prefix}.user-state"
        self.transitions = f"{prefix}.transitions"
        self.item_state = f"{prefix}.item-state"
        self.dead_letters = f"{prefix}.dead-letters"
        self.generations = f"{prefix}.generations"
        self.impressions = f"{prefix}.impressions"
        self.intake = {source.name: f"{prefix}.intake.{source.name}" for source in settings.sources}
        self.replay = f"{prefix}.replay"
        self._settings = settings

    def all(self, source_partitions: Mapping[str, int] | None = None) -> list[Topic]:
        """Every topic of ours. ``source_partitions`` gives each source its topic's partitions."""
        kafka = self._settings.kafka
        users, items = kafka.events_partitions, kafka.items_partitions
        # LogAppendTime: retention counts from arrival, so a replay of old data is not deleted.
        log = {
            "cleanup.policy": "delete",
            "retention.ms": str(kafka.retention_days * _DAY_MS),
            "message.timestamp.type": "LogAppendTime",
        }
        table = {
            "cleanup.policy": "compact",
            "message.timestamp.type": "LogAppendTime",
            # A restart reads a state topic whole: compact early, and let segments end early too.
            "min.cleanable.dirty.ratio": "0.2",
            "segment.bytes": str(64 * 1024 * 1024),
        }
        # Transitions are read within seconds and can be large; a week outlasts any repair.
        brief = {**log, "retention.ms": str(7 * _DAY_MS)}
        return [
            Topic(self.events, users, log),
            Topic(self.items, items, table),
            Topic(self.users, users, table),
            Topic(self.user_state, users, table),
            Topic(self.transitions, items, brief),
            Topic(self.item_state, items, table),
            Topic(self.dead_letters, 1, log),
            Topic(self.generations, 1, table),
            Topic(self.impressions, users, log),
            Topic(self.replay, 1, table),
            *(
                Topic(name, partitions, table)
                for source, partitions in (source_partitions or {}).items()
                for name in [self.intake[source]]
            ),
        ]


def ensure(settings: Settings, *, create: bool = True) -> list[str]:
    """Creates the topics that are missing; returns what is wrong with existing ones, a line each.

    Existing topics are never altered. Blocks on the broker; raises KafkaError when it is away.
    """
    topics = Topics(settings)
    admin = KafkaAdminClient(bootstrap_servers=settings.kafka.bootstrap.split(","))
    try:
        existing = {entry["name"]: entry for entry in admin.describe_topics()}
        problems = [
            f"source {source.name}: topic {source.topic} does not exist"
            for source in settings.sources
            if source.topic not in existing
        ]
        source_partitions = {
            source.name: len(existing[source.topic]["partitions"])
            for source in settings.sources
            if source.topic in existing
        }
        wanted = topics.all(source_partitions)
        missing = [topic for topic in wanted if topic.name not in existing]
        if create and missing:
            try:
                admin.create_topics(
                    {
                        topic.name: {
                            "num_partitions": topic.partitions,
                            "replication_factor": settings.kafka.replication,
                            "configs": dict(topic.config),
                        }
                        for topic in missing
                    }
                )
                admin.wait_for_topics([topic.name for topic in missing], CREATED_MS)
            except TopicAlreadyExistsError:
                # Workers that start together create together: look again at what is there now.
                return ensure(settings)
        elif missing:
            problems += [f"topic {topic.name} does not exist" for topic in missing]
        present = [topic for topic in wanted if topic.name in existing]
        return problems + _differences(admin, present, existing)
    finally:
        admin.close()


def _differences(
    admin: KafkaAdminClient, topics: list[Topic], existing: Mapping[str, Any]
) -> list[str]:
    """What existing topics have otherwise than they must, a line each with the fix."""
    if not topics:
        return []
    resources = [ConfigResource(ConfigResourceType.TOPIC, topic.name) for topic in topics]
    configs = admin.describe_configs(resources, config_filter="all")["topic"]
    problems = []
    for topic in topics:
        found = len(existing[topic.name]["partitions"])
        if found != topic.partitions:
            problems.append(
                f"topic {topic.name} has {found} partitions, the settings say {topic.partitions};"
                " change the settings, or start under another prefix"
            )
        for key in ("cleanup.policy", "message.timestamp.type"):
            value = configs[topic.name][key]["value"]
            if value != topic.config[key]:
                problems.append(
                    f"topic {topic.name} has {key}={value}, needed {topic.config[key]};"
                    f" kafka-configs --alter --topic {topic.name} --add-config"
                    f" {key}={topic.config[key]}"
                )
    return problems
