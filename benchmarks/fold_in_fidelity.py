"""Is a user whom a model never saw served as well as one that it was fitted on?

    python benchmarks/fold_in_fidelity.py [MODEL ...] [--neumf DIR] [--json]

MovieLens-100k, 200 users; each MODEL is fitted with them and without, and Recall@20 of the
folded-in vectors is held against that of fitted ones. Twice:

as fitted   any fifth of a user's items is hidden, and the rest is folded in whole and undamped, as
            the fit has it: what the algebra of the fold-in loses;
as served   the fifth that a user came to last is hidden, and the fold-in is the model's own, by
            default damped by recency, on as many interactions as the stream keeps: what a customer
            gets of it, and gains.

--neumf: the DIR/neumf-ml-1m that paper_tables.py --snapshot DIR left; its users are encoded from
their histories, retrieved as deep as serving does and ranked by the network, and HR@10 of that is
held against the same users' fitted vectors. From whole histories, undamped, as they have no times;
from as many interactions as the stream keeps by default, drawn at random; and of the users whose
times are known from the latest so many, by the default fold-in. Data: ../shared/data.
"""

import lzma
import sys
import time
from pathlib import Path
from typing import Any

if __package__ in (None, ""):
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import numpy as np

from benchmarks import report
from benchmarks.paper_rows import ncf_split
from benchmarks.paper_rows.row import DATA
from rheos.settings import Settings
from trainer.data_set import DataSet, of_interactions
from trainer.evaluation import fidelity
from trainer.models import model_of
from trainer.models.model import Run

UNDAMPED: dict[str, dict[str, Any]] = {
    "als": {"half_steps": 1e9, "floor": 0.0, "last": 1000},
    "bpr": {"half_steps": 1e9, "last": 1000},
    "mf": {"half_steps": 1e9, "last": 1000},
    "gmf": {"half_steps": 1e9, "last": 1000},
    "lightgcn": {"half_steps": 1e9, "last": 1000},
}
USERS, HIDDEN, K = 200, 0.2, 20
LEAST, LEAST_SERVED = 0.95, 0.97


def ml_100k() -> DataSet:
    with lzma.open(DATA / "ml-100k" / "u.data.xz", "rt", encoding="ascii") as file:
        rows = [line.split("\t") for line in file]
    times = np.array([int(row[3]) * 1000 for row in rows], np.int64)
    return of_interactions([row[0] for row in rows], [row[1] for row in rows], times)


def main() -> int:
    options = report.arguments(
        __doc__,
        ("models", {"nargs": "*", "metavar": "MODEL", "help": ", ".join(UNDAMPED)}),
        ("--neumf", {"type": Path, "help": "folder that paper_tables.py --snapshot left"}),
        ("--seed", {"type": int, "default": 0}),
    )
    outcome: dict[str, Any] = {}
    claims: dict[str, bool] = {}
    data, size = ml_100k(), Settings().history.size
    for way in ("as fitted", "as served"):
        served = way == "as served"
        random = np.random.default_rng(options.seed)
        hidden = fidelity.hide(data, USERS, HIDDEN, random, latest=served)
        for name in options.models or UNDAMPED:
            began = time.process_time()
            model = model_of(name, {} if served else UNDAMPED[name])
            found = fidelity.fold_in_fidelity(
                model, hidden, K, Run(seed=options.seed), size if served else None
            )
            outcome.setdefault(name, {})[way] = {
                "recall@20_fitted": round(found.fitted, 4),
                "recall@20_folded_in": round(found.folded_in, 4),
                "kept": round(found.kept, 4),
                "cpu_seconds": round(time.process_time() - began, 1),
            }
            claim = f"{name}, {way}: at least {LEAST:.0%} of a fitted user's Recall@20"
            claims[claim] = found.kept >= LEAST
            report.note(f"{name}, {way}: {outcome[name][way]}")
    if options.neumf is not None:
        folder = options.neumf / "neumf-ml-1m"
        outcome["neumf"] = {
            "whole histories": ncf_split.served(folder),
            "cut short": ncf_split.served(folder, size),
            "in time": ncf_split.served(folder, size, in_time=True),
        }
        for way in ("whole histories", "in time"):
            claim = f"neumf, {way}: at least {LEAST_SERVED:.0%} of a fitted user's HR@10"
            claims[claim] = outcome["neumf"][way]["kept"] >= LEAST_SERVED
    return report.finish("fold_in_fidelity", outcome, claims, as_json=options.json)


if __name__ == "__main__":
    sys.exit(main())
