"""The indexer as a process: ``rheos indexer``."""

import contextlib
import logging
import signal
import sys
import threading
from collections.abc import Iterator
from types import FrameType

import uvicorn

from indexer.api.app import create_app
from rheos.settings import Settings

log = logging.getLogger(__name__)

SWITCH_S = 0.0005
GRACE_S = 2  # for requests in work when the stop comes


def run(settings: Settings) -> int:
    """Serves until SIGTERM or SIGINT, then stops cleanly within 5 s. Returns the exit status."""
    logging.basicConfig(level=logging.INFO, format="%(levelname)s %(name)s: %(message)s")
    # Queries share the interpreter with the thread that reads the topics, which under load always
    # has work: with Python's 5 ms a query waits that long for its turn, several times.
    sys.setswitchinterval(SWITCH_S)
    server = Server(settings)
    try:
        server.run()
    except SystemExit:  # uvicorn's way to say that the port is busy; it logs which
        return 1
    return 0 if server.started else 1


class Server(uvicorn.Server):
    """The API on uvicorn. A signal ends ``run`` and is not raised again afterwards."""

    def __init__(self, settings: Settings) -> None:
        self.app = create_app(settings)
        super().__init__(
            uvicorn.Config(
                self.app,
                host=settings.indexer.host,
                port=settings.indexer.port,
                loop="uvloop",
                http="httptools",
                ws="none",
                lifespan="on",
                access_log=False,
                log_config=None,
                server_header=False,
                timeout_keep_alive=30,
                timeout_graceful_shutdown=GRACE_S,
            )
        )

    @property
    def port(self) -> int:
        """The port in use, once ``started``."""
        return int(self.servers[0].sockets[0].getsockname()[1])

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        if threading.current_thread() is not threading.main_thread():
            yield  # only the main thread may take signals; whoever runs us there sets should_exit
            return

        def stop(number: int, frame: FrameType | None) -> None:
            log.info("stopping on %s", signal.Signals(number).name)
            self.should_exit = True

        before = {number: signal.signal(number, stop) for number in (signal.SIGTERM, signal.SIGINT)}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)
