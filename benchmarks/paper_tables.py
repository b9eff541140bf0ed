"""Are the models as good as the papers', on the papers' own splits?

    python benchmarks/paper_tables.py [ROW ...] [--snapshot DIR] [--json]

Trains and evaluates each ROW (all without names) and exits with 1 where one falls short of what it
owes. --snapshot keeps what was trained in DIR/ROW; a row that is already there is evaluated again
and not trained, so that the same command does both. Data: ../shared/data. Training is timed in wall
and CPU seconds of this process; other work on the machine stretches the former.
"""

import importlib
import json
import os
import pkgutil
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

if __package__ in (None, ""):
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks import paper_rows, report
from benchmarks.paper_rows.row import DATA, PaperRow

TRAINED = "trained.json"


def rows() -> dict[str, PaperRow]:
    """All rows by name."""
    found = {}
    for module in pkgutil.iter_modules(paper_rows.__path__):
        row = getattr(importlib.import_module(f"{paper_rows.__name__}.{module.name}"), "ROW", None)
        if row is not None:
            found[row.name] = row
    return found


def trained(row: PaperRow, folder: Path, seed: int, threads: int) -> dict[str, Any]:
    """How the row was trained; trains it unless ``folder`` has it already."""
    told = folder / TRAINED
    if told.is_file():
        report.note(f"{row.name}: already trained in {folder}")
        return dict(json.loads(told.read_text("utf-8")))
    folder.mkdir(parents=True, exist_ok=True)
    report.note(f"{row.name}: training {row.model} on {row.split}")
    wall, cpu = time.perf_counter(), time.process_time()
    settings = row.train(folder, seed=seed, threads=threads)
    training = {
        "seed": seed,
        "threads": threads,
        "wall_seconds": round(time.perf_counter() - wall, 1),
        "cpu_seconds": round(time.process_time() - cpu, 1),
        **settings,
    }
    told.write_text(json.dumps(training, indent=1), "utf-8")
    return training


def judged(row: PaperRow, folder: Path, seed: int, threads: int) -> dict[str, Any]:
    """The row's figures and what falls short of what it owes, trained if need be."""
    was_trained = (folder / TRAINED).is_file()
    training = trained(row, folder, seed, threads)
    began = time.perf_counter()
    figures = row.evaluate(folder)
    short = row.shortfalls(figures)
    report.note(f"{row.name}: {json.dumps(figures)} {'; '.join(short) or 'met'}")
    return {
        "split": row.split,
        "model": row.model,
        "command": f"python benchmarks/paper_tables.py {row.name} --seed {training['seed']} "
        "--snapshot DIR --json",
        "figures": figures,
        "falls_short": short,
        "training": training,
        "evaluated_from_a_snapshot": was_trained,
        "evaluation_seconds": round(time.perf_counter() - began, 1),
    }


def main() -> int:
    known = rows()
    options = report.arguments(
        __doc__,
        ("rows", {"nargs": "*", "metavar": "ROW", "help": ", ".join(known)}),
        ("--snapshot", {"type": Path, "help": "folder that keeps what was trained"}),
        ("--seed", {"type": int, "default": 0}),
        ("--threads", {"type": int, "default": os.cpu_count() or 1}),
    )
    unknown = [name for name in options.rows if name not in known]
    if unknown:
        report.note(f"no row is named {unknown[0]!r}; there are {', '.join(known)}")
        return 2
    outcome: dict[str, Any] = {}
    claims: dict[str, bool] = {}
    with tempfile.TemporaryDirectory() as scratch:
        for name in options.rows or list(known):
            row = known[name]
            if not (DATA / row.data).is_dir():
                report.note(f"{name}: its data is not here ({DATA / row.data})")
                return 2
            folder = (options.snapshot or Path(scratch)) / name
            outcome[name] = told = judged(row, folder, options.seed, options.threads)
            claims[f"{name}: as good as its row"] = not told["falls_short"]
            if row.most_seconds is not None:
                claim = f"{name}: trained within {row.most_seconds:.0f} CPU seconds"
                claims[claim] = told["training"]["cpu_seconds"] <= row.most_seconds
    return report.finish("paper_tables", outcome, claims, as_json=options.json)


if __name__ == "__main__":
    sys.exit(main())
