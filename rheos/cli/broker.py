"""Whether Kafka can be reached, told quickly and in one line."""

import socket
import time

from rheos.cli.error import CommandError
from rheos.settings import Settings

CONNECT_TIMEOUT_S = 2.0
ASK_AGAIN_S = 0.2


def addresses(bootstrap: str) -> list[tuple[str, int]]:
    """Host and port of each broker of ``kafka.bootstrap``. Raises CommandError."""
    found = []
    for address in bootstrap.split(","):
        host, _, port = address.strip().rpartition(":")
        if not host or not port.isdigit() or int(port) > 65535:
            raise CommandError(
                f"setting kafka.bootstrap = {bootstrap!r}: host:port, comma separated", status=2
            )
        found.append((host.strip("[]"), int(port)))
    return found


def unreachable(bootstrap: str) -> str | None:
    """Why none of the brokers accepts a connection; None when one does.

    kafka-python asks for half a minute before it says so.
    """
    reasons = {}
    for host, port in addresses(bootstrap):
        try:
            with socket.create_connection((host, port), CONNECT_TIMEOUT_S):
                return None
        except OSError as error:
            reasons[f"{host}:{port}"] = str(error.strerror or error)
    if len(reasons) == 1:
        return next(iter(reasons.values()))
    return "; ".join(f"{address}: {reason}" for address, reason in reasons.items())


def require(settings: Settings) -> None:
    """Raises CommandError unless a broker accepts connections."""
    problem = unreachable(settings.kafka.bootstrap)
    if problem:
        raise CommandError(
            f"no Kafka at {settings.kafka.bootstrap} ({problem}); start one (rheos up brings its"
            " own), or set kafka.bootstrap (RHEOS_KAFKA_BOOTSTRAP)"
        )


def delete_topics(settings: Settings) -> None:
    """Deletes the topics of the prefix that are there, and waits until they are gone.

    Raises KafkaError.
    """
    from kafka import KafkaAdminClient

    from rheos.topics import Topics

    names = {
        topic.name for topic in Topics(settings).all(dict.fromkeys(Topics(settings).intake, 1))
    }
    admin = KafkaAdminClient(bootstrap_servers=settings.kafka.bootstrap.split(","))
    try:
        doomed = sorted(names & set(admin.list_topics()))
        if doomed:
            admin.delete_topics(doomed)
        while names & set(admin.list_topics()):
            time.sleep(ASK_AGAIN_S)
    finally:
        admin.close()


def wait_until_reachable(settings: Settings, timeout_s: float) -> bool:
    """Block until a broker accepts connections; whether one does now.

    A Kafka client that begins before its broker asks less and less often, and notices it late.
    """
    deadline = time.monotonic() + timeout_s
    while unreachable(settings.kafka.bootstrap) is not None:
        if time.monotonic() > deadline:
            return False
        time.sleep(ASK_AGAIN_S)
    return True


def wait_for_topics(settings: Settings, timeout_s: float) -> None:
    """Block until Kafka serves and our topics are there, created if need be.

    Raises CommandError when it does not serve within ``timeout_s``, and at once when existing
    topics are not as the settings say.
    """
    from kafka.errors import KafkaError

    from rheos import topics

    deadline = time.monotonic() + timeout_s
    while True:
        problem = unreachable(settings.kafka.bootstrap)
        if problem is None:
            try:
                wrong = topics.ensure(settings)
            except KafkaError as error:  # it listens before it leads partitions
                problem = str(error)
            else:
                if wrong:
                    raise CommandError("\n".join(wrong))
                return
        if time.monotonic() > deadline:
            raise CommandError(
                f"no Kafka at {settings.kafka.bootstrap} after {timeout_s:.0f} s ({problem}); set"
                " kafka.bootstrap (RHEOS_KAFKA_BOOTSTRAP)"
            )
        time.sleep(ASK_AGAIN_S)
