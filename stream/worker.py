"""The stream worker's process: start, stop by signal, exit code."""

import asyncio
import logging
import os
import signal

from rheos.settings import Settings
from stream.app import StreamApp, Unfit, create_app

_STOP_WITHIN_S = 4.0

_log = logging.getLogger(__name__)


def run(settings: Settings) -> int:
    """Runs until SIGTERM or SIGINT, then stops within five seconds. Returns the exit code:
    0 after a signal, 1 when topics are unfit or the worker crashed, which the log tells.
    """
    return asyncio.run(_run(settings))


async def _run(settings: Settings) -> int:
    told_to_stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, told_to_stop.set)
    app = create_app(settings)
    running = asyncio.create_task(_run_until_crash(app))
    signalled = asyncio.create_task(told_to_stop.wait())
    await asyncio.wait((running, signalled), return_when=asyncio.FIRST_COMPLETED)
    crash = running.exception() if running.done() else None
    if isinstance(crash, Unfit):
        for problem in crash.problems:
            _log.error("%s", problem)
    elif crash is not None:
        _log.error("the worker ends: %s: %s", type(crash).__name__, crash)
    for task in (running, signalled):
        task.cancel()
    code = 1 if crash is not None else 0
    _, late = await asyncio.wait((asyncio.create_task(app.stop()),), timeout=_STOP_WITHIN_S)
    if late:
        _log.warning("not all stopped within %.0f s; ending all the same", _STOP_WITHIN_S)
        logging.shutdown()
        # Faust's services may swallow a cancellation, and the event loop would wait for them.
        # Nothing depends on a clean stop: the next owner settles what is open.
        os._exit(code)
    return code


async def _run_until_crash(app: StreamApp) -> None:
    """Starts the app; raises what it crashes with."""
    await app.start()
    await app.wait_until_stopped()
    if app.crash_reason is not None:
        raise app.crash_reason
