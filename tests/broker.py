"""The real Kafka that a whole test run shares."""

import random
import socket
import sys
from pathlib import Path

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


def new_broker(data_dir: Path) -> KafkaProcess:
    """Return a broker on free ports that is not started yet; fetches the jars the first time."""
    port, controller_port = free_ports(2)
    jars_dir = fetch_jars(progress=sys.stderr.isatty())
    return KafkaProcess(LocalKafka(data_dir, jars_dir, port, controller_port))
