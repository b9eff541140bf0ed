"""A stream worker and an indexer as processes of their own, on the run's Kafka."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import httpx
import numpy as np

from rheos import announcements, settings, snapshot
from rheos.encoder import EncoderContext
from rheos.fold_in import FoldIn
from tests.broker import free_ports


class LiveStack:
    """Starts and stops the workers as production does; `api` is a client of the indexer."""

    def __init__(self, bootstrap: str, prefix: str, data_dir: Path) -> None:
        port, stream_port = free_ports(2)
        self.url = f"http://127.0.0.1:{port}/"
        self.data_dir = data_dir
        self.variables = {
            "RHEOS_KAFKA_BOOTSTRAP": bootstrap,
            "RHEOS_KAFKA_PREFIX": prefix,
            "RHEOS_KAFKA_EVENTS_PARTITIONS": "2",
            "RHEOS_KAFKA_ITEMS_PARTITIONS": "2",
            "RHEOS_DATA_DIR": str(data_dir),
            "RHEOS_INDEXER_PORT": str(port),
            "RHEOS_STREAM_PORT": str(stream_port),
        }
        self.settings = settings.load(environment=self.variables)
        self.api = httpx.Client(base_url=self.url, trust_env=False, timeout=60)
        self._workers: dict[str, subprocess.Popen[bytes]] = {}
        self._decisions = 0

    def start(self, worker: str) -> None:
        # Without a config file of the machine's: the variables alone say what runs.
        environment = {
            name: value for name, value in os.environ.items() if not name.startswith("RHEOS_")
        }
        with self.log(worker).open("ab") as log:
            self._workers[worker] = subprocess.Popen(
                [sys.executable, "-m", "rheos.cli", worker],
                cwd=self.data_dir,
                env={
                    **environment,
                    **self.variables,
                    "OMP_NUM_THREADS": "1",
                    "PYTHONPATH": str(Path(__file__).resolve().parents[2]),
                },
                stdout=log,
                stderr=subprocess.STDOUT,
            )

    def stop(self, worker: str) -> None:
        process = self._workers.pop(worker)
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(30)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()

    def close(self) -> None:
        self.api.close()
        for worker in list(self._workers):
            self.stop(worker)

    def log(self, worker: str) -> Path:
        return self.data_dir / f"{worker}.log"

    def wait_ready(self, timeout_s: float = 120) -> None:
        self.until(lambda: self.api.get("readyz").status_code == 200, timeout_s)

    def post(self, path: str, content: Any) -> Any:
        response = self.api.post(path, json=content)
        assert response.is_success, response.text
        return response.json()

    def until(self, holds: Any, timeout_s: float = 60) -> None:
        """Waits until ``holds()`` is true; a refused connection is not yet."""
        deadline = time.monotonic() + timeout_s
        while time.monotonic() < deadline:
            for worker, process in self._workers.items():
                if process.poll() is not None:
                    raise AssertionError(f"the {worker} ended: {self._tail(worker)}")
            try:
                if holds():
                    return
            except httpx.TransportError:
                pass
            time.sleep(0.05)
        tails = "\n".join(self._tail(worker) for worker in self._workers)
        raise AssertionError(f"not within {timeout_s} s; the workers said:\n{tails}")

    def _tail(self, worker: str) -> str:
        lines = self.log(worker).read_text(errors="replace").splitlines()[-15:]
        return "\n".join(f"{worker}: {line}" for line in lines)

    def publish(self, item_ids: list[str], seed: int) -> str:
        """Announces a generation of random vectors for these items; returns its name."""
        self._decisions += 1
        vectors = np.random.default_rng(seed).normal(size=(len(item_ids), 8)).astype(np.float32)
        context = EncoderContext({item: row for row, item in enumerate(item_ids)}, vectors)
        now_ms = int(time.time() * 1000)
        written = snapshot.write(
            self.settings.store_dir,
            snapshot.Manifest(
                number=self._decisions,
                model="als",
                dimensions=8,
                items=len(item_ids),
                interactions=1,
                created_ms=now_ms,
                window={},
                parameters={},
                metrics={},
                encoder=FoldIn(context, alpha=10, regularisation=0.1).parameters,
                software={},
            ),
            item_ids,
            {"item_vectors": vectors, "popularity": np.ones(len(item_ids), np.float32)},
        )
        announcements.announce(
            self.settings,
            announcements.Announcement(
                number=self._decisions,
                slot=announcements.SERVING,
                generation=written.name,
                reason="test",
                time_ms=now_ms,
            ),
        )
        return written.name
