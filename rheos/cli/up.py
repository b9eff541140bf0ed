"""``rheos up``: the whole system on one machine, a private Kafka included."""

from typing import TYPE_CHECKING, Annotated, TextIO, cast

from cyclopts import Parameter

from rheos.cli.play_demo import DEFAULT_SPEED

if TYPE_CHECKING:
    from pathlib import Path

    from rheos.local_kafka import LocalKafka
    from rheos.settings import Settings
    from rheos.supervisor import Child

LOCAL_HOST = "127.0.0.1"
LOCAL_HOSTS = (LOCAL_HOST, "localhost")

# Seconds to stop in, by stop order; nine in all (rheos.supervisor).
DEMO_GRACE_S, WORKER_GRACE_S, KAFKA_GRACE_S = 1.0, 4.5, 3.5

TRAINER_BEGINS_EVENTS = 200_000
"""The demo's player asks for the first fit itself, on the 189,000 events of the first half; the
trainer would begin with the first thousand, and compete with the backfill for the processor."""

READY_TIMEOUT_S = 900.0
"""An indexer is ready once it has read all states, which takes minutes for millions; Kafka after a
crash once it has recovered all partitions, which killing it would only prolong."""


def command(
    *,
    demo: Annotated[bool, Parameter(parse=False)],
    kafka: str = "",
    fresh: Annotated[bool, Parameter(negative="")] = False,
    speed: float = DEFAULT_SPEED,
    port: int | None = None,
) -> int:
    """Run everything on this machine: Kafka, a stream worker, an indexer and the trainer.

    The first run fetches Apache Kafka (45 MB). With --demo it also plays a year of a real shop
    (Online Retail, CC BY 4.0) into it: the first half as fast as it is taken, then it trains, and
    then the second half goes on as a live stream. Ctrl-C stops everything; the next run goes on
    where this one stopped.

    Example: `rheos up --demo`

    Parameters
    ----------
    kafka
        Use the Kafka at HOST:PORT and start none.
    fresh
        Begin the demo from nothing: empty its folder, or its topics in the Kafka given. Only with
        --demo.
    speed
        How many times faster than recorded the demo's second half is played; 0: as fast as taken.
    port
        Port of the API and the page (setting indexer.port).
    """
    import os
    from pathlib import Path

    from rheos.cli.broker import addresses
    from rheos.cli.error import WRONG_USAGE, CommandError
    from rheos.settings import load
    from rheos.supervisor import folder_lock

    if fresh and not demo:
        raise CommandError("--fresh empties the demo only: rheos up --demo --fresh", WRONG_USAGE)
    # The environment, which the children inherit.
    if kafka:
        os.environ["RHEOS_KAFKA_BOOTSTRAP"] = kafka
    if port is not None:
        os.environ["RHEOS_INDEXER_PORT"] = str(port)
    settings = load()
    brokers = addresses(settings.kafka.bootstrap)
    if not kafka and any(host not in LOCAL_HOSTS for host, _ in brokers):
        raise CommandError(
            f"kafka.bootstrap = {settings.kafka.bootstrap} is elsewhere: to use it, say"
            f" rheos up --kafka {settings.kafka.bootstrap}; to start one here, set 127.0.0.1:9092",
            WRONG_USAGE,
        )
    data_dir = Path(settings.data_dir)
    with folder_lock(data_dir):
        if fresh:
            _empty(data_dir)
        private = None
        if kafka:
            _use(settings, fresh)
        else:
            private = _private(settings, brokers[0][1])
        _run(private, settings, speed if demo else None)
    return 0


def _use(settings: "Settings", fresh: bool) -> None:
    """Make sure of someone's Kafka, where only topics of our own are touched."""
    from rheos.cli import broker
    from rheos.cli.port import require_free
    from rheos.cli.worker import ports

    require_free(*ports(settings))
    broker.require(settings)
    if fresh:
        broker.delete_topics(settings)


def _private(settings: "Settings", port: int) -> "LocalKafka":
    """A Kafka of our own, fetched and ready to be started."""
    from pathlib import Path

    from rheos.cli.port import Port, require_free
    from rheos.cli.worker import ports
    from rheos.local_kafka import LocalKafka, fetch_jars

    require_free(
        Port("private Kafka", LOCAL_HOST, port, "kafka.bootstrap"),
        Port(
            "private Kafka's controller, one above its own port",
            LOCAL_HOST,
            port + 1,
            "kafka.bootstrap",
        ),
        *ports(settings),
    )
    kafka = LocalKafka(
        Path(settings.data_dir) / "kafka", fetch_jars(), port=port, controller_port=port + 1
    )
    kafka.prepare()
    return kafka


def _children(
    kafka: "LocalKafka | None", settings: "Settings", speed: float | None
) -> list["Child"]:
    """What to supervise. All start at once, since half of a worker's start is imports: the workers
    wait for Kafka by themselves. The player stops first, Kafka last."""
    import sys

    from rheos.cli.broker import unreachable
    from rheos.cli.probe import reached_at
    from rheos.cli.worker import ENVIRONMENT, ports
    from rheos.supervisor import Child

    # -P: no stream.py of the folder that we were started in stands in for ours.
    rheos = [sys.executable, "-P", "-m", "rheos.cli"]
    children = []
    if kafka is not None:
        children.append(
            Child(
                "kafka",
                kafka.argv(),
                ready=kafka.is_ready,
                ready_timeout_s=READY_TIMEOUT_S,
                stop_order=2,
                grace_s=KAFKA_GRACE_S,
            )
        )
    of_demo = {"RHEOS_TRAINER_MIN_EVENTS": str(TRAINER_BEGINS_EVENTS)} if speed is not None else {}
    children += [
        Child(
            port.owner,
            [*rheos, port.owner],
            env={**ENVIRONMENT, **of_demo} if port.owner == "trainer" else ENVIRONMENT,
            ready=f"{reached_at(port)}/readyz" if port.number else None,
            ready_timeout_s=READY_TIMEOUT_S,
            stop_order=1,
            grace_s=WORKER_GRACE_S,
        )
        for port in ports(settings)
    ]
    if speed is not None:
        children.append(
            Child(
                "demo",
                [*rheos, "play-demo", "--speed", str(speed)],
                env=ENVIRONMENT,
                # Nobody waits for the end of its year.
                ready=lambda: unreachable(settings.kafka.bootstrap) is None,
                grace_s=DEMO_GRACE_S,
                one_shot=True,
            )
        )
    return children


def _run(kafka: "LocalKafka | None", settings: "Settings", speed: float | None) -> None:
    from pathlib import Path

    from rheos.cli.terminal import Terminal
    from rheos.supervisor import Supervisor

    def tell() -> None:
        for line in _where(settings):
            supervisor.say(line)

    supervisor = Supervisor(
        _children(kafka, settings, speed),
        Path(settings.data_dir) / "logs",
        out=cast(TextIO, Terminal()),
        on_ready=tell,
    )
    supervisor.run()


def _where(settings: "Settings") -> list[str]:
    from rheos.cli.answer import api_url
    from rheos.cli.probe import reached_at
    from rheos.cli.worker import ports

    url = api_url(settings)
    return [
        "everything is ready",
        f"  page     {url}/",
        f"  API      {url}/docs",
        f"  Kafka    {settings.kafka.bootstrap}, topics {settings.kafka.prefix}.*",
        *(f"  metrics  {reached_at(port)}/metrics ({port.owner})" for port in ports(settings)),
        f"  data     {settings.data_dir}",
        "Ctrl-C stops everything",
    ]


def _empty(folder: "Path") -> None:
    """Remove what is in the folder, except the lock that we hold."""
    import shutil

    from rheos.supervisor.folder_lock import LOCK_NAME

    for path in folder.iterdir():
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        elif path.name != LOCK_NAME:
            path.unlink()
