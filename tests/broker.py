"""The real Kafka that a whole test run shares."""

import contextlib
import random
import socket
import sys
from pathlib import Path

from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient

from rheos.local_kafka import KafkaProcess, LocalKafka, fetch_jars


def free_ports(count: int) -> list[int]:
    """Return ports of 127.0.0.1 that nobody listens on now.

    Below the kernel's ephemeral range, so that no client's own end of a connection takes one while
    a broker that a test killed is down.
    """
    ports: list[int] = []
    while len(ports) < count:
        port = random.SystemRandom().randrange(20_000, 32_000)
        with socket.socket() as probe:
            if port not in ports and probe.connect_ex(("127.0.0.1", port)) != 0:
                ports.append(port)
    return ports


def delete_topics(bootstrap: str, prefix: str) -> None:
    """Has the topics of a prefix deleted, if the broker can be asked now."""
    admin = AdminClient({"bootstrap.servers": bootstrap, "log_level": 0})
    with contextlib.suppress(KafkaException):
        names = [name for name in admin.list_topics(timeout=30).topics if name.startswith(prefix)]
        for deleted in (admin.delete_topics(names) if names else {}).values():
            deleted.result(30)


def new_broker(data_dir: Path) -> KafkaProcess:
    """Return a broker on free ports that is not started yet; fetches the jars the first time."""
    port, controller_port = free_ports(2)
    jars_dir = fetch_jars(progress=sys.stderr.isatty())
    return KafkaProcess(LocalKafka(data_dir, jars_dir, port, controller_port))
