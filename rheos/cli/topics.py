"""``rheos topics``: our topics as they are in Kafka, and as they must be."""

from typing import TYPE_CHECKING, Annotated, Literal, NamedTuple

from cyclopts import Parameter

if TYPE_CHECKING:
    from rheos.settings import Settings


def command(
    action: Literal["list", "check", "create"] = "list",
    *,
    json: Annotated[bool, Parameter(negative="")] = False,
) -> int:
    """List, check or create the topics.

    Existing topics are never altered: what is wrong with one is said, with the command that
    repairs it, and the exit status is 1.

    Example: `rheos topics create`

    Parameters
    ----------
    action
        list: what is there. check: what is missing or wrong. create: make what is missing, then
        check.
    json
        Print JSON.
    """
    from rheos.cli import broker
    from rheos.cli.answer import print_json
    from rheos.settings import load
    from rheos.topics import ensure

    settings = load()
    broker.require(settings)
    if action == "list":
        _list(settings, json)
        return 0
    problems = ensure(settings, create=action == "create")
    if json:
        print_json({"prefix": settings.kafka.prefix, "problems": problems})
    elif problems:
        print(*problems, sep="\n")
    else:
        print(f"the topics under {settings.kafka.prefix} are there and as they must be")
    return 1 if problems else 0


def _list(settings: "Settings", json: bool) -> None:
    from rheos.cli.answer import print_json

    rows = rows_of(settings)
    if json:
        print_json([row._asdict() for row in rows])
        return
    from rich.console import Console
    from rich.table import Table

    table = Table()
    table.add_column("topic")
    for heading in ("partitions", "cleanup", "begin", "end"):
        table.add_column(heading, justify="left" if heading == "cleanup" else "right")
    for row in rows:
        if row.partitions:
            table.add_row(
                row.topic, str(row.partitions), row.cleanup, f"{row.begin:,}", f"{row.end:,}"
            )
        else:
            table.add_row(row.topic, "missing", "", "", "")
    Console().print(table)


class TopicRow(NamedTuple):
    """A topic as it is; 0 partitions: it is missing. Offsets are summed over the partitions.

    Between them lie records, but also transaction markers and what compaction took away.
    """

    topic: str
    partitions: int
    cleanup: str
    begin: int
    end: int


def rows_of(settings: "Settings") -> list[TopicRow]:
    """Each topic of ours. Blocks on the broker; raises KafkaError."""
    from kafka import KafkaConsumer, TopicPartition

    from rheos.topics import Topics

    consumer = KafkaConsumer(
        bootstrap_servers=settings.kafka.bootstrap.split(","),
        group_id=None,
        isolation_level="read_committed",
    )
    try:
        known = consumer.topics()
        intake = dict.fromkeys(Topics(settings).intake, 0)
        rows = []
        for topic in Topics(settings).all(intake):
            if topic.name not in known:
                rows.append(TopicRow(topic.name, 0, "", 0, 0))
                continue
            places = [
                TopicPartition(topic.name, number)
                for number in consumer.partitions_for_topic(topic.name) or ()
            ]
            begin, end = consumer.beginning_offsets(places), consumer.end_offsets(places)
            cleanup = topic.config["cleanup.policy"]
            rows.append(
                TopicRow(topic.name, len(places), cleanup, sum(begin.values()), sum(end.values()))
            )
        return rows
    finally:
        consumer.close()
