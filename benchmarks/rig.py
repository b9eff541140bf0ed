"""A broker and workers of their own for one benchmark, in a temporary folder, gone at its end."""

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self

import httpx

from benchmarks.report import note
from rheos import topics
from rheos.local_kafka import KafkaProcess, LocalKafka, fetch_jars
from rheos.settings import Settings, from_tree

LOW_PORT = 21_000


class Rig:
    """Use as a context manager. ``tree`` is the settings as TOML would give them."""

    def __init__(self, name: str, tree: Mapping[str, Any], broker_cpus: str = "") -> None:
        self.folder = Path(tempfile.mkdtemp(prefix=f"rheos-{name}-"))
        base = LOW_PORT + os.getpid() % 5_000
        self.kafka = KafkaProcess(
            LocalKafka(self.folder / "kafka", fetch_jars(progress=False), base, base + 1)
        )
        kafka = {"bootstrap": self.kafka.bootstrap, "prefix": "bench", **tree.get("kafka", {})}
        self.tree: dict[str, Any] = {**tree, "data_dir": str(self.folder / "data"), "kafka": kafka}
        for place, worker in enumerate(("stream", "indexer", "trainer")):
            section = {"port": base + 2 + place, **self.tree.get(worker, {})}
            self.tree[worker] = section
        self.settings: Settings = from_tree(self.tree)
        self.base_url = f"http://127.0.0.1:{self.settings.indexer.port}"
        self._broker_cpus = broker_cpus
        self._children: list[subprocess.Popen[bytes]] = []

    def __enter__(self) -> Self:
        self.kafka.start()
        if self._broker_cpus:
            self.pin(self.kafka.pid, self._broker_cpus)
        problems = topics.ensure(self.settings)
        if problems:
            raise RuntimeError("; ".join(problems))
        return self

    def __exit__(self, kind: object, *rest: object) -> None:
        for child in self._children:
            if child.poll() is None:
                child.send_signal(signal.SIGCONT)
                child.kill()
            child.wait()
        self.kafka.stop()
        if kind is None:
            shutil.rmtree(self.folder, ignore_errors=True)
        else:
            note(f"the logs are in {self.folder}")

    @staticmethod
    def pin(pid: int, cpus: str) -> None:
        """All threads of a process onto some processors (those that it has; new ones inherit)."""
        chosen = {int(cpu) for cpu in cpus.split(",")}
        for thread in Path(f"/proc/{pid}/task").iterdir():
            os.sched_setaffinity(int(thread.name), chosen)

    @staticmethod
    def cpu_s(pid: int) -> float:
        """Processor seconds that a process has used, in user and kernel mode."""
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def start(
        self,
        *command: str,
        label: str = "",
        cpus: str = "",
        extra: Mapping[str, Any] | None = None,
        module: str = "rheos.cli",
    ) -> subprocess.Popen[bytes]:
        """A ``rheos`` command as a process; ``extra`` overrides sections of the settings.

        ``module`` is run instead of the command line's when it is another's.
        """
        tree = {**self.tree, **(extra or {})}
        label = label or f"{command[0]}-{len(self._children)}"
        config = self.folder / f"{label}.toml"
        config.write_text(_toml(tree), "utf-8")
        prefix = ["taskset", "-c", cpus] if cpus else []
        with (self.folder / f"{label}.log").open("ab") as log:
            child = subprocess.Popen(
                [*prefix, sys.executable, "-m", module, *command],
                env={**os.environ, "RHEOS_CONFIG": str(config), "OMP_NUM_THREADS": "1"},
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        self._children.append(child)
        return child

    def await_ready(self, port: int, timeout_s: float = 90) -> None:
        """Until a worker's /readyz on this port says so."""
        deadline = time.monotonic() + timeout_s
        while True:
            try:
                if httpx.get(f"http://127.0.0.1:{port}/readyz", timeout=2).status_code == 200:
                    return
            except httpx.HTTPError:
                pass
            if time.monotonic() > deadline:
                raise TimeoutError(f"nothing was ready on port {port}; logs in {self.folder}")
            time.sleep(0.1)


def _toml(tree: Mapping[str, Any]) -> str:
    """Plain values and tables of one level: JSON's forms of these are TOML's."""
    flat = {key: value for key, value in tree.items() if not isinstance(value, Mapping)}
    lines = [f"{key} = {json.dumps(value)}" for key, value in flat.items()]
    for key, table in tree.items():
        if isinstance(table, Mapping):
            lines.append(f"[{key}]")
            for inner, value in table.items():
                if isinstance(value, Mapping):
                    pairs = ", ".join(
                        f"{json.dumps(k)} = {json.dumps(v)}" for k, v in value.items()
                    )
                    lines.append(f"{inner} = {{ {pairs} }}")
                else:
                    lines.append(f"{inner} = {json.dumps(value)}")
    return "\n".join(lines) + "\n"
