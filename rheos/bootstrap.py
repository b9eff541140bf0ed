"""Whether a broker listens: asked before a client is made.

kafka-python's consumer and admin client leave a thread and four sockets behind each time that they
cannot reach a broker; a process that waits out an absent Kafka would run out of both.
"""

import socket

CONNECT_TIMEOUT_S = 1.0


def is_reachable(bootstrap: str) -> bool:
    """Whether any address of ``bootstrap`` (host:port, comma separated) accepts a connection."""
    for address in bootstrap.split(","):
        host, _, port = address.strip().rpartition(":")
        try:
            with socket.create_connection((host.strip("[]"), int(port)), CONNECT_TIMEOUT_S):
                return True
        except (OSError, ValueError):  # ValueError: no number; the client's own error says so
            continue
    return False
