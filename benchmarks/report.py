"""How every benchmark speaks: JSON alone on stdout if asked, else lines; 1 if a claim fails."""

import argparse
import importlib.metadata
import json
import os
import platform
import sys
from pathlib import Path
from typing import Any

LOAD_BEFORE = os.getloadavg()[0]
"""How busy the machine was before: above 0.5 a core, figures say little."""

PACKAGES = (
    "rheos",
    "numpy",
    "faust-streaming",
    "confluent-kafka",
    "kafka-python",
    "faiss-cpu",
    "torch",
    "lightgbm",
)


def machine() -> dict[str, Any]:
    """What the figures depend on."""
    versions = {}
    for package in PACKAGES:
        try:
            versions[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return {
        "cores": os.cpu_count(),
        "load_before": round(LOAD_BEFORE, 2),
        "processor": _processor(),
        "python": platform.python_version(),
        "system": platform.platform(),
        "versions": versions,
    }


def _processor() -> str:
    try:
        with Path("/proc/cpuinfo").open(encoding="utf-8") as file:
            names = [line.partition(":")[2].strip() for line in file if "model name" in line]
        return names[0] if names else platform.processor()
    except OSError:
        return platform.processor()


def arguments(doc: str | None, *more: tuple[str, dict[str, Any]]) -> argparse.Namespace:
    """The options of a benchmark: --json and what ``more`` adds."""
    parser = argparse.ArgumentParser(description=doc)
    parser.add_argument("--json", action="store_true", help="print JSON alone")
    for name, options in more:
        parser.add_argument(name, **options)
    return parser.parse_args()


def note(text: str) -> None:
    """Progress, on stderr: stdout carries the outcome alone."""
    print(text, file=sys.stderr, flush=True)


def finish(name: str, outcome: dict[str, Any], claims: dict[str, bool], *, as_json: bool) -> int:
    """Prints the outcome; 0 when every claim holds, else 1."""
    whole = {"benchmark": name, **outcome, "claims": claims, "machine": machine()}
    if as_json:
        print(json.dumps(whole, indent=1))
    else:
        for key, value in outcome.items():
            print(f"{key}: {json.dumps(value) if isinstance(value, dict | list) else value}")
        for claim, holds in claims.items():
            print(f"{'holds ' if holds else 'FAILS '} {claim}")
    return 0 if all(claims.values()) else 1
