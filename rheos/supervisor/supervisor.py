"""Several child processes as one: started in order, kept alive, stopped in order."""

import asyncio
import signal
import sys
from collections.abc import Callable, Sequence
from itertools import groupby
from pathlib import Path
from typing import TextIO

from rheos.supervisor.backoff import Backoff
from rheos.supervisor.child import Child, ChildStatus
from rheos.supervisor.keeper import Keeper
from rheos.supervisor.merged_log import MergedLog

STOP_WITHIN_S = 10.0
SPARE_S = 1.0  # for the waits beside the graces
STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Supervisor:
    """Runs `children` and merges their output on `out` (default: stdout) and into `log_dir`.

    `name` leads the supervisor's own lines. `on_ready` is called once, in the event loop, when
    every child has been ready. The graces of the stop orders must fit into `STOP_WITHIN_S`, else
    ValueError.
    """

    def __init__(
        self,
        children: Sequence[Child],
        log_dir: Path,
        *,
        name: str = "rheos",
        out: TextIO | None = None,
        on_ready: Callable[[], None] | None = None,
        backoff: Backoff = Backoff(),
    ) -> None:
        names = [name, *(child.name for child in children)]
        if len(set(names)) != len(names):
            raise ValueError(f"two children have the same name: {names}")
        graces: dict[int, float] = {}
        for child in children:
            graces[child.stop_order] = max(graces.get(child.stop_order, 0.0), child.grace_s)
        if sum(graces.values()) > STOP_WITHIN_S - SPARE_S:
            raise ValueError(
                f"the graces of the stop orders, {graces}, exceed {STOP_WITHIN_S - SPARE_S:g} s"
            )
        self._name = name
        self._on_ready = on_ready
        self._log = MergedLog(log_dir, out or sys.stdout, names)
        self._keepers = [Keeper(child, self._log, self.say, backoff) for child in children]
        self._stop = asyncio.Event()

    def run(self) -> None:
        """Run until SIGINT, SIGTERM or SIGHUP, or until all children were one-shot and finished.

        Blocks, in the main thread. Every child's process group is gone when it returns or raises,
        within `STOP_WITHIN_S` of the signal; a SIGINT after the first signal kills at once. If this
        process itself is killed, the kernel kills the children (`rheos.supervisor.tether`).
        """
        try:
            asyncio.run(self._run())
        finally:
            self._log.close()

    def status(self) -> list[ChildStatus]:
        """Return what is known of each child now, in the order given."""
        return [keeper.status() for keeper in self._keepers]

    def say(self, text: str) -> None:
        """Write a line of the supervisor's own into the log. In the event loop's thread only."""
        self._log.write(self._name, text.encode())

    async def _run(self) -> None:
        loop = asyncio.get_running_loop()
        for which in STOP_SIGNALS:
            loop.add_signal_handler(which, self._on_signal, which)
        work = asyncio.create_task(self._start_and_keep())
        stop = asyncio.create_task(self._stop.wait())
        try:
            await asyncio.wait({work, stop}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            # Nothing is started again from here on.
            for task in (work, stop):
                task.cancel()
            await asyncio.wait({work, stop})
            await self._stop_in_order()
            for which in STOP_SIGNALS:
                loop.remove_signal_handler(which)
        if not work.cancelled():
            work.result()

    def _on_signal(self, which: signal.Signals) -> None:
        if self._stop.is_set():
            # A closing terminal sends several signals by itself; only a person presses twice.
            if which is signal.SIGINT:
                for keeper in self._keepers:
                    keeper.kill()
            return
        self.say(f"{which.name}: stopping (Ctrl-C now: kill at once)")
        self._stop.set()

    async def _start_and_keep(self) -> None:
        in_order = sorted(self._keepers, key=lambda keeper: keeper.child.start_order)
        async with asyncio.TaskGroup() as tasks:
            for _, together in groupby(in_order, key=lambda keeper: keeper.child.start_order):
                batch = list(together)
                for keeper in batch:
                    tasks.create_task(keeper.keep())
                for keeper in batch:
                    await keeper.ready_once.wait()
            if self._on_ready is not None:
                self._on_ready()

    async def _stop_in_order(self) -> None:
        in_order = sorted(self._keepers, key=lambda keeper: keeper.child.stop_order)
        for _, together in groupby(in_order, key=lambda keeper: keeper.child.stop_order):
            await asyncio.gather(*(keeper.end() for keeper in together))
