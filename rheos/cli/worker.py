"""The three workers, each alone in its process: what production runs.

A worker's package is imported by name and only here, so that no other command, and no other
worker, needs its libraries.
"""

import importlib
import os

from rheos.cli.port import Port, require_free

BROKER_TIMEOUT_S = 120


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
    # The workers of the API's pool would start a thread for each core in every search.
    return _run("indexer", {"OMP_NUM_THREADS": "1"})


def trainer() -> int:
    """Run the trainer: it archives events, refits the model in turn, and publishes what passes.

    One is enough; a second would do the same work.

    Example: `RHEOS_TRAINER_EVERY_MINUTES=15 rheos trainer`
    """
    return _run("trainer")


def _run(name: str, environment: dict[str, str] | None = None) -> int:
    from rheos import settings as settings_file
    from rheos.cli.broker import addresses, wait_for_topics

    # Before NumPy or FAISS is imported: they read it once.
    for variable, value in (environment or {}).items():
        os.environ.setdefault(variable, value)
    settings = settings_file.load()
    addresses(settings.kafka.bootstrap)
    section = getattr(settings, name)
    require_free(Port(name, section.host, section.port, f"{name}.port"))
    # Seconds, in which the broker may be starting too.
    worker = importlib.import_module(f"{name}.worker")
    wait_for_topics(settings, BROKER_TIMEOUT_S)
    status: int = worker.run(settings)
    return status
