"""A stream worker as a process of its own, to be killed, paused and asked."""

import json
import logging
import re
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

import msgspec

from rheos.settings import Settings, from_tree
from tests.broker import free_ports

ROOT = Path(__file__).resolve().parents[2]
STOPS_WITHIN_S = 12.0
"""Four seconds by `stream.worker`, and what a busy machine adds."""


def worker_settings(bootstrap: str, prefix: str, data_dir: Path, **sections: Any) -> Settings:
    """Small and quick: two partitions, the shortest session."""
    tree: dict[str, Any] = {
        "data_dir": str(data_dir),
        "kafka": {
            "bootstrap": bootstrap,
            "prefix": prefix,
            "events_partitions": 2,
            "items_partitions": 2,
        },
        "stream": {"session_timeout_s": 6, "items_interval_ms": 50},
    }
    for name, section in sections.items():
        if isinstance(section, dict):
            tree.setdefault(name, {}).update(section)
        else:
            tree[name] = section
    return from_tree(tree)


class WorkerProcess:
    """Starts at once. ``log`` is what it wrote so far."""

    def __init__(
        self, settings: Settings, log: Path, fault: str = "", port: int | None = None
    ) -> None:
        self.port = port or free_ports(1)[0]
        tree = msgspec.to_builtins(settings)
        tree["stream"]["port"] = self.port
        self._log = log
        with log.open("ab") as output:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "tests.stream.worker_process", json.dumps(tree), fault],
                cwd=ROOT,
                stdout=output,
                stderr=output,
            )

    @property
    def log(self) -> str:
        return self._log.read_text("utf-8", errors="replace")

    def ask(self, path: str) -> tuple[int, str]:
        """Status and body of a route; (0, "") while nobody listens."""
        try:
            with urllib.request.urlopen(
                f"http://127.0.0.1:{self.port}/{path}", timeout=30
            ) as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as error:
            with error:
                return error.code, error.read().decode()
        except OSError:
            return 0, ""

    def metric(self, name: str) -> float:
        """The sum of a metric over its labels."""
        _, text = self.ask("metrics")
        found = re.findall(rf"^{name}(?:{{[^}}]*}})? (\S+)$", text, re.MULTILINE)
        return sum(map(float, found))

    def wait_ready(self, timeout_s: float = 120) -> None:
        deadline = time.monotonic() + timeout_s
        while self.ask("readyz")[0] != 200:
            assert self.process.poll() is None, self.log
            assert time.monotonic() < deadline, (self.ask("readyz"), self.log)
            time.sleep(0.1)

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()

    def pause(self) -> None:
        self.process.send_signal(signal.SIGSTOP)

    def wake(self) -> None:
        self.process.send_signal(signal.SIGCONT)

    def terminate(self) -> tuple[int, float]:
        """SIGTERM; exit code and the seconds that it took."""
        started = time.monotonic()
        self.process.terminate()
        code = self.process.wait(60)
        return code, time.monotonic() - started

    def wait_dead(self, timeout_s: float = 120) -> int:
        return self.process.wait(timeout_s)


def main(tree: str, fault: str) -> int:
    from stream import assigned, worker
    from tests.stream.worker_fault import faulty

    logging.basicConfig(level="INFO", format="%(asctime)s %(levelname)s %(name)s %(message)s")
    for name in ("kafka", "mode", "faust", "aiokafka"):
        logging.getLogger(name).setLevel("WARNING")
    if fault:
        assigned.Partition = faulty(fault)  # type: ignore[misc]
    return worker.run(from_tree(json.loads(tree)))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], sys.argv[2]))
