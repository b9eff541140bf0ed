"""The three workers, each alone in its process: what production runs.

A worker's package is imported by name and only here, so that no other command, and no other
worker, needs its libraries.
"""

import importlib
import logging
import os
from typing import TYPE_CHECKING

from rheos.cli.port import Port, require_free

if TYPE_CHECKING:
    from rheos.settings import Settings

BROKER_TIMEOUT_S = 120

INDEXER_BROKER_TIMEOUT_S = 15
"""After that it listens all the same, and answers why it is not ready."""

ENVIRONMENT = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
"""Unless set otherwise; read once by NumPy and FAISS when they are imported. Each search and each
small product would start a thread for every core (half of the requests per second). Fits take
their threads from trainer.threads."""

QUIET = {
    "kafka": logging.ERROR,
    "aiokafka": logging.WARNING,
    # It asks again by itself while the broker or its groups' topic is starting.
    "aiokafka.consumer.group_coordinator": logging.CRITICAL,
    "faust": logging.WARNING,
    "mode": logging.WARNING,
    # mode names a service's logger after the module that its class stands in.
    "abc": logging.WARNING,
    "stream.app": logging.WARNING,
    "stream.micro_batch": logging.WARNING,
    "faiss.loader": logging.WARNING,
    "uvicorn": logging.WARNING,
    "httpx": logging.WARNING,
}
"""From which level a logger's lines are news to a person who runs a worker."""


def stream() -> int:
    """Run a stream worker: it folds events into user and item state.

    Start as many as there are partitions at most; they share the partitions among them. It stops
    in good order on SIGTERM or Ctrl-C, and loses nothing when it is killed.

    Example: `RHEOS_KAFKA_BOOTSTRAP=kafka:9092 rheos stream`
    """
    return _run("stream")


def indexer() -> int:
    """Run an indexer: the FAISS index, the HTTP API and the page.

    Each reads every user's and item's state, so put as many behind a balancer as the queries need.

    Example: `RHEOS_INDEXER_HOST=0.0.0.0 rheos indexer`
    """
    return _run("indexer")


def trainer() -> int:
    """Run the trainer: it archives events, refits the model in turn, and publishes what passes.

    One is enough; a second would do the same work.

    Example: `RHEOS_TRAINER_EVERY_MINUTES=15 rheos trainer`
    """
    return _run("trainer")


def ports(settings: "Settings") -> list[Port]:
    """Where the workers of these settings listen."""
    indexer, stream, trainer = settings.indexer, settings.stream, settings.trainer
    return [
        Port("indexer", indexer.host, indexer.port, "indexer.port"),
        Port("stream", stream.host, stream.port, "stream.port"),
        Port("trainer", trainer.host, trainer.port, "trainer.port"),
    ]


def _run(name: str) -> int:
    from rheos import settings as settings_file
    from rheos.cli.broker import addresses, wait_for_topics, wait_until_reachable

    os.environ.update({**ENVIRONMENT, **os.environ})
    logging.basicConfig(
        level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s"
    )
    for logger, level in QUIET.items():
        logging.getLogger(logger).setLevel(level)
    settings = settings_file.load()
    addresses(settings.kafka.bootstrap)
    (port,) = (port for port in ports(settings) if port.owner == name)
    require_free(port)
    # Seconds, in which the broker may be starting too.
    worker = importlib.import_module(f"{name}.worker")
    if name == "indexer":
        wait_until_reachable(settings, INDEXER_BROKER_TIMEOUT_S)
    else:
        wait_for_topics(settings, BROKER_TIMEOUT_S)
    status: int = worker.run(settings)
    return status
