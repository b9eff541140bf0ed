"""Whether a broker listens."""

import socket

from rheos.bootstrap import is_reachable
from tests.broker import free_ports


def test_one_address_that_listens_is_enough() -> None:
    nobody = free_ports(1)[0]
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        assert is_reachable(f"127.0.0.1:{nobody}, localhost:{port}")
        assert is_reachable(f"127.0.0.1:{port}")
    assert not is_reachable(f"127.0.0.1:{nobody}")
    assert not is_reachable("nonsense")
    assert not is_reachable("")
