"""EASE on Online Retail, played event by event: the layer of its item weights alone.

Every 7th event of the second half is scored if its item is new to the user; the generation is
fitted on all events before, every week. Training fits and stores these generations; evaluating
plays the log with them, through the workers' own code.
"""

from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.paper_rows.retail_blends import EVERY, NEVER, WEEK, K, fit_weekly, read, stored
from benchmarks.paper_rows.row import PaperRow, at_least
from rheos.live_system import FAR, FOLD_IN, ITEM_WEIGHTS, LIVE, LiveSystem
from rheos.settings import Settings
from trainer.evaluation import prequential
from trainer.evaluation.metrics import Accuracy
from trainer.evaluation.prequential import POPULARITY, Fitted, Plan
from trainer.models.ease import Ease
from trainer.models.model import Run

BESIDE = {POPULARITY: POPULARITY, FAR: FAR, FOLD_IN: "vectors of the same generations", LIVE: LIVE}
"""Rows that stand beside the layer, and what they are called here."""


def train(folder: Path, *, seed: int, threads: int) -> dict[str, Any]:
    log = read(Settings())
    return fit_weekly(log, folder, 0.5, 1.0, Run(seed=seed, threads=threads), Ease())


def evaluate(folder: Path) -> dict[str, Any]:
    settings = Settings()
    log = read(settings)

    def fit(events: int) -> Fitted:
        generation = stored(folder, events)
        return Fitted(generation, np.zeros((len(log.user_ids), generation.dimensions), np.float32))

    plan = Plan(k=K, every=EVERY, nightly_days=NEVER, live_days=WEEK)
    live = LiveSystem(settings, log.item_ids, K)
    found = prequential.run(log, live, fit, plan, lambda done, total: None)
    own = found.rows[ITEM_WEIGHTS]
    return {
        **_rounded(own["all"]),
        "at a session's start": _rounded(own["session start"]),
        **{told: _rounded(found.rows[name]["all"]) for name, told in BESIDE.items()},
        "scored": found.scored,
    }


def _rounded(found: Accuracy) -> dict[str, float]:
    named = {"hr@20": found.hit_rate, "mrr@20": found.mrr, "ndcg@20": found.ndcg}
    return {name: round(value, 4) for name, value in named.items()}


ROW = PaperRow(
    name="ease-online-retail",
    data="online-retail",
    split="Online Retail, prequential: second half, every 7th event, weekly refits",
    model="ease, its item weights alone",
    train=train,
    evaluate=evaluate,
    shortfalls=at_least(hr_20=0.235, ndcg_20=0.105),
)
