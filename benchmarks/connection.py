"""One keep-alive connection to the API: a client that costs little beside what it measures."""

import json
import math
import socket
from typing import Any, NamedTuple
from urllib.parse import quote


class Response(NamedTuple):
    status: int
    body: bytes

    def json(self) -> Any:
        return json.loads(self.body)


class Connection:
    """HTTP/1.1 on a plain socket, for answers with a Content-Length. Blocks; raises OSError."""

    def __init__(self, port: int, timeout_s: float = 10.0) -> None:
        self._socket = socket.create_connection(("127.0.0.1", port), timeout_s)
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def ask(self, method: str, path: str, body: object = None) -> Response:
        sent = b"" if body is None else json.dumps(body).encode()
        head = f"{method} {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: {len(sent)}\r\n\r\n"
        self._socket.sendall(head.encode() + sent)
        received = b""
        while (end := received.find(b"\r\n\r\n")) < 0:
            received += self._receive()
        lines = received[:end].split(b"\r\n")
        headers = dict(line.lower().split(b":", 1) for line in lines[1:])
        length = end + 4 + int(headers[b"content-length"])
        while len(received) < length:
            received += self._receive()
        return Response(int(lines[0].split()[1]), received[end + 4 : length])

    def recommendations(self, user_id: str, query: str) -> Response:
        return self.ask("GET", f"/v1/users/{quote(user_id, safe='')}/recommendations?{query}")

    def close(self) -> None:
        self._socket.close()

    def _receive(self) -> bytes:
        received = self._socket.recv(1 << 16)
        if not received:
            raise ConnectionError("the API closed the connection")
        return received


def percentiles(seconds: list[float]) -> dict[str, float]:
    """Milliseconds: p50, p90, p99 and the largest, by nearest rank."""
    ordered = sorted(seconds)
    ranks = {"p50": 0.50, "p90": 0.90, "p99": 0.99, "max": 1.0}
    return {
        name: round(1000 * ordered[max(0, math.ceil(share * len(ordered)) - 1)], 2)
        for name, share in ranks.items()
    }
