"""Ports that we are about to listen on."""

import errno
import socket
import time
from typing import NamedTuple

from rheos.cli.error import CommandError

PATIENCE_S = 1.0  # a process that was just killed holds its port until its memory is freed


class Port(NamedTuple):
    """An address to listen on, who wants it, and the setting that moves it."""

    owner: str
    host: str
    number: int
    setting: str

    @property
    def variable(self) -> str:
        return "RHEOS_" + self.setting.upper().replace(".", "_")

    def problem(self) -> str | None:
        """Why nobody can listen there now, with the fix; None when it is free. Port 0 is free.

        Binds and lets go at once, so another process may still be quicker.
        """
        try:
            found = socket.getaddrinfo(self.host, self.number, type=socket.SOCK_STREAM)
            family, kind, protocol, _, address = found[0]
            with socket.socket(family, kind, protocol) as probe:
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # closed ones linger
                probe.bind(address)
                probe.listen(1)
        except OSError as error:
            what = "is busy" if error.errno == errno.EADDRINUSE else f"is no good: {error}"
            return (
                f"port {self.number} on {self.host} for the {self.owner} {what}; stop what listens"
                f" there, or set {self.setting} ({self.variable}) to another"
            )
        return None


def require_free(*ports: Port) -> None:
    """Raises CommandError naming every port that is still busy after a second."""
    deadline = time.monotonic() + PATIENCE_S
    while problems := [problem for port in ports if (problem := port.problem())]:
        if time.monotonic() > deadline:
            raise CommandError("\n".join(problems))
        time.sleep(0.1)
