"""``rheos up`` as a person starts it: a process, its lines, its children."""

import os
import signal
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.broker import free_ports

ROOT = Path(__file__).resolve().parents[2]
CHILDREN = ("kafka", "indexer", "stream", "trainer", "demo")
PATIENCE_S = 600.0


class Place:
    """Ports and folders of one installation, over any number of runs."""

    def __init__(self, folder: Path) -> None:
        kafka = free_ports(2)
        while kafka[1] != kafka[0] + 1:  # the private Kafka's controller sits one port above
            kafka = sorted(free_ports(1) * 2)
            kafka[1] += 1
        indexer, stream, trainer = free_ports(3)
        self.bootstrap = f"127.0.0.1:{kafka[0]}"
        self.url = f"http://127.0.0.1:{indexer}"
        self.ports = (indexer, stream, trainer)
        self.folder = folder
        self.environment = {
            **{name: text for name, text in os.environ.items() if not name.startswith("RHEOS_")},
            "XDG_DATA_HOME": str(folder),
            "RHEOS_DATA_DIR": str(folder / "rheos" / "default"),
            "RHEOS_KAFKA_BOOTSTRAP": self.bootstrap,
            "RHEOS_INDEXER_PORT": str(indexer),
            "RHEOS_STREAM_PORT": str(stream),
            "RHEOS_TRAINER_PORT": str(trainer),
        }

    def rheos(self, *words: str) -> subprocess.CompletedProcess[str]:
        """Another command at the same place."""
        return subprocess.run(
            [sys.executable, "-m", "rheos.cli", *words],
            env=self.environment,
            cwd=ROOT,
            capture_output=True,
            text=True,
            timeout=PATIENCE_S,
            check=False,
        )

    def are_ready(self) -> bool:
        """Whether all workers say so."""
        return all(is_ok(f"http://127.0.0.1:{port}/readyz") for port in self.ports)


class Up:
    """A running ``rheos up``."""

    def __init__(self, place: Place, *words: str, **variables: str) -> None:
        self.began_s = time.monotonic()
        self.lines: list[str] = []
        self._process = subprocess.Popen(
            [sys.executable, "-m", "rheos.cli", "up", *words],
            env={**place.environment, **variables},
            cwd=ROOT,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        self._reading = threading.Thread(target=self._read, daemon=True)
        self._reading.start()

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            self.lines.append(line.rstrip("\n"))

    @property
    def log(self) -> str:
        return "\n".join(self.lines)

    def says(self, text: str, timeout_s: float = PATIENCE_S) -> float:
        """Waits until a line has the text; seconds since the start."""
        until(
            lambda: text in self.log or self._process.poll() is not None,
            timeout_s,
            lambda: f"it never said {text!r}:\n{self.log}",
        )
        assert text in self.log, f"it ended before it said {text!r}:\n{self.log}"
        return time.monotonic() - self.began_s

    def children(self) -> dict[str, int]:
        """The process id of each child that runs now."""
        found = {}
        for pid in children_of(self._process.pid):
            words = command_line(pid)
            for name in CHILDREN:
                if {"kafka": "kafka.Kafka", "demo": "play-demo"}.get(name, name) in words:
                    found[name] = pid
        return found

    def crash(self, name: str) -> None:
        """``kill -9`` of a child; returns when it has been started again."""
        pid = self.children()[name]
        os.kill(pid, signal.SIGKILL)
        until(
            lambda: self.children().get(name, pid) != pid,
            PATIENCE_S,
            lambda: f"{name} was not started again:\n{self.log}",
        )

    def stop(self) -> float:
        """Ctrl-C; seconds until it has ended, with status 0 and without its children."""
        pids = set(self.children().values())
        began_s = time.monotonic()
        self._process.send_signal(signal.SIGINT)
        status = self._process.wait(PATIENCE_S)
        seconds = time.monotonic() - began_s
        self._reading.join(PATIENCE_S)
        assert status == 0, self.log
        assert {pid for pid in pids if is_alive(pid)} == set()
        return seconds

    def crash_supervisor(self) -> None:
        """``kill -9`` of the supervisor; returns when its children are gone too."""
        pids = set(self.children().values())
        self._process.kill()
        self._process.wait()
        until(lambda: not any(map(is_alive, pids)), 60, lambda: "its children live on")

    def end(self) -> None:
        if self._process.poll() is None:
            self._process.kill()
            self._process.wait()
        self._reading.join(PATIENCE_S)
        assert self._process.stdout is not None
        self._process.stdout.close()


@contextmanager
def up(place: Place, *words: str, **variables: str) -> Iterator[Up]:
    running = Up(place, *words, **variables)
    try:
        yield running
    finally:
        running.end()


def until(
    condition: Callable[[], bool], timeout_s: float = PATIENCE_S, tell: Callable[[], str] = str
) -> None:
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, tell() or "it did not become true in time"
        time.sleep(0.25)


def is_ok(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=10):
            return True
    except OSError:
        return False


def children_of(pid: int) -> list[int]:
    tasks = Path(f"/proc/{pid}/task")
    try:
        return [
            int(child)
            for task in tasks.iterdir()
            for child in (task / "children").read_text().split()
        ]
    except OSError:
        return []


def command_line(pid: int) -> list[str]:
    try:
        return Path(f"/proc/{pid}/cmdline").read_text().split("\0")
    except OSError:
        return []


def is_alive(pid: int) -> bool:
    """Zombies are dead: whoever adopted them has not reaped them yet."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state != "Z"
