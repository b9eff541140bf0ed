"""What the fusion and the ranker row share: Online Retail played as ``data/README.md`` says.

A generation of ALS vectors and EASE item weights is fitted weekly. Blends are trained on what was
recorded in the second quarter of the log, and judged in the second half.
"""

import json
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from safetensors.numpy import load_file, save_file

from benchmarks import report
from benchmarks.paper_rows.row import DATA
from rheos.blend import Blend
from rheos.catalogue import Item
from rheos.events import Event
from rheos.generation import BLENDS, Generation
from rheos.live_system import FAR, FOLD_IN, ITEM_WEIGHTS, LIVE, NEAR, TREND, LiveSystem
from rheos.mapping import EventMapping, source_from_words
from rheos.row_file import RowFile
from rheos.settings import Settings, from_tree
from rheos.snapshot_store import LocalStore
from trainer import data_set, fitting
from trainer.blending.examples import Examples
from trainer.blending.learning import fit_blends
from trainer.blending.rehearsal import rehearse, spans
from trainer.evaluation import event_log, prequential
from trainer.evaluation.event_log import EventLog, LogFormat
from trainer.evaluation.metrics import Accuracy
from trainer.evaluation.prequential import NIGHTLY, POPULARITY, Fitted, Plan
from trainer.models.als import Als
from trainer.models.ease import Ease
from trainer.models.model import ItemWeigher, Model, Run

WEEK = 7.0  # days
EVERY = 7
K = 20
NEVER = 1e9  # days: the nightly batch is not asked about here

FITS = "fits.json"
"""By number of events, the name of the generation that was fitted on them."""

FUSION, RANKER = "fusion", "ranker"
PARTS = (POPULARITY, FOLD_IN, ITEM_WEIGHTS, NEAR, FAR, TREND, LIVE)
"""The layers alone, and what the live system answers without a blend."""


def settings_of(seed: int) -> Settings:
    """Next-lists that forget within weeks say what EASE, fitted on everything, does not."""
    return from_tree({"transitions": {"half_life_days": 21.0}, "trainer": {"seed": seed}})


def read(settings: Settings) -> EventLog:
    """The invoice lines, those of one invoice shuffled; an event's value is the price."""
    path = DATA / "online-retail" / "online_retail.csv.xz"
    rows = RowFile(path, [])
    words = ["user=CustomerID", "item=StockCode", "time=InvoiceDate", "value=UnitPrice"]
    source = source_from_words(
        words, fixed_type="purchase", types=[], time_unit="iso", columns=rows.columns()
    )
    shape = LogFormat(EventMapping(source), "InvoiceNo", {"InvoiceNo": "C*"}, "Quantity")
    return event_log.read(rows, shape, settings.event_rules(), shuffle_ties=1)


def prices(events: list[Event]) -> list[Item]:
    """Catalogue records with the price that each item had last."""
    found = {event.item_id: event.value for event in events if event.value}
    return [Item(item_id=item_id, price=price) for item_id, price in found.items()]


def weeks(log: EventLog, begin: float, end: float) -> list[tuple[int, int]]:
    """The part of the log between two shares of it, cut where a fit is due."""
    return spans(log, int(len(log.events) * begin), int(len(log.events) * end), WEEK)


def fit_weekly(
    log: EventLog,
    folder: Path,
    begin: float,
    end: float,
    run: Run,
    model: Model | None = None,
    weigher: ItemWeigher | None = None,
) -> dict[str, Any]:
    """Fits and stores a generation on the events before each week; tells how long a fit took.

    Without a ``model`` it is ALS with the item weights of EASE.
    """
    if model is None:
        model, weigher = Als(), Ease()
    weights = [Settings().event_rules().weight(event) for event in log.events]
    store = LocalStore(folder / "snapshots")
    names, seconds = _stored_names(folder), []
    for count, _ in weeks(log, begin, end):
        data = data_set.of_interactions(
            [log.user_ids[user] for user in log.users[:count]],
            [log.item_ids[item] for item in log.items[:count]],
            log.times_ms[:count],
            weights[:count],
        )
        began = time.process_time()
        fitted = fitting.with_item_weights(fitting.fit(model, data, run), weigher, data, run)
        seconds.append(time.process_time() - began)
        names[str(count)] = store.put(*fitting.make(count, model, fitted, data, {}))
        report.note(f"fitted on {count:,} events: {seconds[-1]:.1f} s of CPU")
    (folder / FITS).write_text(json.dumps(names), "utf-8")
    return {
        "parameters": {part.name: msgspec.to_builtins(part) for part in (model, weigher) if part},
        "fits": len(seconds),
        "cpu_seconds_a_fit": round(float(np.median(seconds)), 2),
    }


def stored(folder: Path, events: int) -> Generation:
    """The generation that was fitted on the first ``events``."""
    return Generation(LocalStore(folder / "snapshots").get(_stored_names(folder)[str(events)]))


def _stored_names(folder: Path) -> dict[str, str]:
    file = folder / FITS
    return dict(json.loads(file.read_text("utf-8"))) if file.is_file() else {}


def train(folder: Path, *, seed: int, threads: int) -> dict[str, Any]:
    """Fits the generations of the second quarter, records its questions, and fits both blends on
    them; then the generations of the second half.
    """
    settings = settings_of(seed)
    log = read(settings)
    run = Run(seed=seed, threads=threads)
    fit_weekly(log, folder, 0.25, 0.5, run)
    began = time.process_time()
    examples = record(log, settings, folder)
    recorded = time.process_time() - began
    began = time.process_time()
    blends = fit_blends(examples, "trees", settings, threads)
    for name, blend in blends.items():
        (folder / f"{name}.json").write_text(json.dumps(blend.parameters()), "utf-8")
        save_file(blend.tensors(), folder / f"{name}.safetensors")
    return {
        "questions": len(examples),
        "recording_cpu_seconds": round(recorded, 1),
        "blends_cpu_seconds": round(time.process_time() - began, 1),
        "weights": {name: round(w, 3) for name, w in blends["linear"].weights.items()},
        "half_life_days": settings.transitions.half_life_days,
        **fit_weekly(log, folder, 0.5, 1.0, run),
    }


def record(log: EventLog, settings: Settings, folder: Path) -> Examples:
    """The second quarter's questions: every EVERY-th event of the whole log."""
    live = LiveSystem(settings, log.item_ids, K)

    def generation_of(events: int) -> Generation:
        live.describe(prices(log.events[:events]))
        return stored(folder, events)

    quarter = len(log.events) // 4
    examples = rehearse(
        log,
        live,
        generation_of,
        settings,
        begin=quarter,
        end=2 * quarter,
        every=EVERY,
        days=WEEK,
    )
    assert examples is not None
    return examples


def evaluate(folder: Path) -> dict[str, Any]:
    """Each layer alone, the weights of the settings, the fusion and the ranker, in one run."""
    settings = settings_of(0)
    log = read(settings)
    blends = {FUSION: _blend(folder, "linear"), RANKER: _blend(folder, "trees")}
    live = LiveSystem(settings, log.item_ids, K, blends)

    def fit(events: int) -> Fitted:
        live.describe(prices(log.events[:events]))
        generation = stored(folder, events)
        return Fitted(generation, np.zeros((len(log.user_ids), generation.dimensions), np.float32))

    plan = Plan(k=K, every=EVERY, nightly_days=NEVER, live_days=WEEK)
    found = prequential.run(log, live, fit, plan, lambda done, total: None)
    told = {name: groups for name, groups in found.rows.items() if name != NIGHTLY}
    return {
        "scored": found.scored,
        **{name: _rounded(groups["all"]) for name, groups in told.items()},
        "at a session's start": {
            name: _rounded(groups["session start"]) for name, groups in told.items()
        },
    }


def _blend(folder: Path, name: str) -> Blend:
    parameters = json.loads((folder / f"{name}.json").read_text("utf-8"))
    return BLENDS[parameters["kind"]](parameters, load_file(folder / f"{name}.safetensors"))


def _rounded(found: Accuracy) -> dict[str, float]:
    named = {"hr@20": found.hit_rate, "mrr@20": found.mrr, "ndcg@20": found.ndcg}
    return {name: round(value, 4) for name, value in named.items()}


def ahead(figures: dict[str, Any], of: str, than: Iterable[str]) -> list[str]:
    """What of HR@20 and NDCG@20 a row owes to be ahead of others."""
    return [
        f"{of}: {measure} {figures[of][measure]:.4f} is not above {name}'s"
        f" {figures[name][measure]:.4f}"
        for name in than
        for measure in ("hr@20", "ndcg@20")
        if not figures[of][measure] > figures[name][measure]
    ]
