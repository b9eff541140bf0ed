"""One child kept alive."""

import asyncio
import os
import signal
import time
import urllib.request
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from rheos.supervisor.backoff import Backoff
from rheos.supervisor.child import Child, ChildState, ChildStatus
from rheos.supervisor.merged_log import MergedLog
from rheos.supervisor.tether import tethered

READY_INTERVAL_S = 0.1
URL_TIMEOUT_S = 2.0
LAST_LINES_S = 1.0  # how long to read on when a stranger still holds the child's output open
LONGEST_LINE_BYTES = 1 << 16


class Keeper:
    """Starts a child, reads its lines, learns when it is ready, and starts it again when it ends.

    Everything happens in the event loop's thread, which must be the main one: the kernel kills a
    child when the thread that started it ends (`rheos.supervisor.tether`).
    """

    def __init__(
        self, child: Child, log: MergedLog, say: Callable[[str], None], backoff: Backoff
    ) -> None:
        self.child = child
        self.ready_once = asyncio.Event()
        self._log = log
        self._say = say
        self._backoff = backoff
        self._state = ChildState.WAITING
        self._since = time.monotonic()
        self._process: asyncio.subprocess.Process | None = None
        self._lines: asyncio.Task[None] | None = None
        self._pipe: asyncio.ReadTransport
        self._restarts = 0
        self._exit_status: int | None = None

    def status(self) -> ChildStatus:
        """Return what is known of the child now."""
        return ChildStatus(
            name=self.child.name,
            state=self._state,
            in_state_s=time.monotonic() - self._since,
            pid=self._process.pid if self._process else None,
            restarts=self._restarts,
            exit_status=self._exit_status,
        )

    async def keep(self) -> None:
        """Run the child until a one-shot finishes; else forever. Cancel, then call `end`."""
        failures = 0
        while True:
            await self._start()
            await self._until_it_ends()
            well = self._state in (ChildState.READY, ChildState.RUNNING)
            well_for_s = time.monotonic() - self._since if well else 0.0
            await self._clear_away()
            if self.child.one_shot and self._exit_status == 0:
                self._enter(ChildState.FINISHED)
                self.ready_once.set()
                self._say(f"{self.child.name} has finished")
                return
            failures = 1 if well_for_s >= self._backoff.healthy_after_s else failures + 1
            pause_s = self._backoff.pause_s(failures)
            self._enter(ChildState.BACKING_OFF)
            self._say(f"{self.child.name} {self._how_it_ended()}; starts again in {pause_s:g} s")
            await asyncio.sleep(pause_s)
            self._restarts += 1

    async def end(self) -> None:
        """Stop the child's process group: SIGTERM, after the grace SIGKILL. After `keep` ended."""
        if self._process is not None:
            self._enter(ChildState.STOPPING)
            self._signal(signal.SIGTERM)
            with suppress(TimeoutError):
                await asyncio.wait_for(self._process.wait(), self.child.grace_s)
            if self._process.returncode is None:
                self._say(f"{self.child.name} did not stop in {self.child.grace_s:g} s: killed")
            await self._clear_away()
        if self._state is not ChildState.FINISHED:
            self._enter(ChildState.STOPPED)

    def kill(self) -> None:
        """Send SIGKILL to the child's process group, if it runs. Does not wait."""
        self._signal(signal.SIGKILL)

    def _enter(self, state: ChildState) -> None:
        self._state = state
        self._since = time.monotonic()

    async def _start(self) -> None:
        # A pipe of our own: asyncio's would let wait() return only when the last holder of the
        # pipe is gone, which may be something that a crashed child has left running.
        read_end, write_end = os.pipe()
        stream = asyncio.StreamReader()
        self._pipe, _ = await asyncio.get_running_loop().connect_read_pipe(
            lambda: asyncio.StreamReaderProtocol(stream), os.fdopen(read_end, "rb", buffering=0)
        )
        try:
            self._process = await asyncio.create_subprocess_exec(
                *tethered(self.child.argv),
                stdin=asyncio.subprocess.DEVNULL,
                stdout=write_end,
                stderr=write_end,
                # Python holds back lines that go to a pipe, and a killed child's would be lost.
                env={**os.environ, "PYTHONUNBUFFERED": "1", **self.child.env},
                start_new_session=True,  # the terminal's Ctrl-C is ours to pass on, in order
            )
        except BaseException:
            self._pipe.close()
            raise
        finally:
            os.close(write_end)
        self._lines = asyncio.create_task(self._read_lines(stream))
        self._enter(ChildState.STARTING)

    async def _until_it_ends(self) -> None:
        assert self._process is not None
        assert self._lines is not None
        ended = asyncio.create_task(self._process.wait())
        ready = asyncio.create_task(self._await_ready())
        pending: set[asyncio.Task[Any]] = {ended, ready, self._lines}
        try:
            while not ended.done():
                done, pending = await asyncio.wait(pending, return_when=asyncio.FIRST_COMPLETED)
                for task in done:
                    task.result()  # raises what the check, or a full disk under the log, raised
        finally:
            ready.cancel()
            ended.cancel()

    async def _await_ready(self) -> None:
        if self.child.ready is None and self.child.one_shot:
            self._enter(ChildState.RUNNING)  # it is ready when it has finished
            return
        deadline = self._since + self.child.ready_timeout_s
        while not await asyncio.to_thread(self._asks_ready):
            if time.monotonic() > deadline:
                self._say(
                    f"{self.child.name} is not ready after {self.child.ready_timeout_s:g} s: killed"
                )
                self.kill()
                return
            await asyncio.sleep(READY_INTERVAL_S)
        if self.child.ready is not None:
            self._say(f"{self.child.name} is ready after {time.monotonic() - self._since:.1f} s")
        self._enter(ChildState.READY)
        self.ready_once.set()

    def _asks_ready(self) -> bool:
        check = self.child.ready
        try:
            if isinstance(check, str):
                with urllib.request.urlopen(check, timeout=URL_TIMEOUT_S):
                    return True
            return check is None or check()
        except OSError:  # refused, timed out, or an HTTP status that is an error
            return False

    async def _read_lines(self, stream: asyncio.StreamReader) -> None:
        rest = b""
        while chunk := await stream.read(LONGEST_LINE_BYTES):
            *lines, rest = (rest + chunk).split(b"\n")
            if len(rest) > LONGEST_LINE_BYTES:
                lines, rest = [*lines, rest], b""
            for line in lines:
                self._log.write(self.child.name, line)
        if rest:
            self._log.write(self.child.name, rest)

    async def _clear_away(self) -> None:
        """Leave nothing of the process group, take its last lines, reap it."""
        assert self._process is not None
        assert self._lines is not None
        self._signal(signal.SIGKILL)  # what the child started itself may outlive it
        self._exit_status = await self._process.wait()
        await asyncio.wait({self._lines}, timeout=LAST_LINES_S)
        self._lines.cancel()
        self._pipe.close()
        self._process = None

    def _signal(self, which: signal.Signals) -> None:
        if self._process is not None:
            with suppress(ProcessLookupError):  # the whole group is gone
                os.killpg(self._process.pid, which)  # it leads its session, hence its group

    def _how_it_ended(self) -> str:
        assert self._exit_status is not None
        if self._exit_status < 0:
            return f"was ended by {signal.Signals(-self._exit_status).name}"
        return f"ended with status {self._exit_status}"
