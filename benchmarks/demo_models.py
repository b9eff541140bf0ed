"""How soon does `rheos up --demo` serve a generation of each model?

For each model a demo from nothing, with RHEOS_TRAINER_MODEL set to it and all else as it comes: a
folder and ports of its own, Kafka included. Seconds from the start until the API answers a customer
personally, that is with a generation and a place of the customer's last event; when its fit began
(``/v1/status``), which before that is the same for all: Kafka's start, the workers', the catalogue
and a backfill of 270,954 rows; NDCG@20 at its gate, with the item weights that the demo puts beside
each model; the processor seconds of all processes together until then, and how busy the machine was
(load average): what a core shared by n processes takes, it takes n times as long.

Biased by a warm disk cache: the jars of Kafka are there already, and Python's files were read.
``--model NAME`` (again and again) takes some only; ``--limit`` is how long each may take.
"""

import os
import resource
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import httpx

if __package__ in (None, ""):
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks import report
from rheos.cli.play_demo import CUSTOMER
from trainer.models import MODELS

ROOT = Path(__file__).resolve().parents[1]
LIMIT_S = 120.0
STOP_S = 20.0
LOOK_EVERY_S = 0.25
LOW_PORT = 26_000
K = 3


def main() -> int:
    options = report.arguments(
        __doc__,
        ("--model", {"action": "append", "choices": list(MODELS), "help": "one of the models"}),
        ("--limit", {"type": float, "default": LIMIT_S, "help": "seconds that each may take"}),
    )
    found = {}
    for model in options.model or MODELS:
        found[model] = demo(model, options.limit)
        report.note(f"{model}: {found[model]}")
    claims = {
        f"{model} serves within {options.limit:g} s": "served_s" in row
        for model, row in found.items()
    }
    return report.finish("demo_models", {"models": found}, claims, as_json=options.json)


def demo(model: str, limit_s: float) -> dict[str, Any]:
    """Runs the demo until a generation of the model serves, or ``limit_s`` are over."""
    base = LOW_PORT + os.getpid() % 5_000
    with tempfile.TemporaryDirectory(prefix="rheos-demo-") as folder:
        own = {
            "XDG_DATA_HOME": folder,
            "RHEOS_KAFKA_BOOTSTRAP": f"127.0.0.1:{base}",
            "RHEOS_STREAM_PORT": str(base + 2),
            "RHEOS_TRAINER_PORT": str(base + 3),
            "RHEOS_TRAINER_MODEL": model,
        }
        others = {name: text for name, text in os.environ.items() if not name.startswith("RHEOS_")}
        used_s, began_s = _processor_s(), time.monotonic()
        log = Path(folder) / "log"
        with log.open("w") as out:
            running = subprocess.Popen(
                [sys.executable, "-m", "rheos.cli", "up", "--demo", "--port", str(base + 4)],
                env=others | own,
                cwd=ROOT,
                stdout=out,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        try:
            row = _watch(f"http://127.0.0.1:{base + 4}", began_s + limit_s, began_s, running)
        finally:
            _stop(running)
        row["processor_s"] = round(_processor_s() - used_s, 1)
        row["load"] = round(os.getloadavg()[0], 1)
        if "served_s" not in row:
            report.note(log.read_text(errors="replace")[-2_000:])
        return row


def _watch(
    url: str, until_s: float, began_s: float, running: subprocess.Popen[bytes]
) -> dict[str, Any]:
    """What the API tells from its start to the first personal answer."""
    row: dict[str, Any] = {}
    with httpx.Client(base_url=url, timeout=5) as client:
        while time.monotonic() < until_s and running.poll() is None:
            time.sleep(LOOK_EVERY_S)
            try:
                status = client.get("/v1/status").json()
                if status["fit"] is not None and "fit_begins_s" not in row:
                    row["fit_begins_s"] = round(time.monotonic() - began_s, 1)
                if status["generation"] is None:
                    continue
                path = f"/v1/users/{CUSTOMER}/recommendations"
                answer = client.get(path, params={"k": K}).raise_for_status().json()
            except (httpx.HTTPError, ValueError):
                continue
            if answer["generation"] and answer["as_of"] and len(answer["items"]) == K:
                row["served_s"] = round(time.monotonic() - began_s, 1)
                row["generation"] = answer["generation"]
                row["model"] = status["generation"]["model"]
                row["gate_ndcg@20"] = round(status["generation"]["metrics"]["gate_ndcg@20"], 4)
                return row
    return row


def _stop(running: subprocess.Popen[bytes]) -> None:
    if running.poll() is None:
        running.send_signal(signal.SIGINT)
        try:
            running.wait(STOP_S)
        except subprocess.TimeoutExpired:
            os.killpg(running.pid, signal.SIGKILL)
            running.wait()


def _processor_s() -> float:
    """Of all processes that have ended below this one."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


if __name__ == "__main__":
    sys.exit(main())
