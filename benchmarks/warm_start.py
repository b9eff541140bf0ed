"""What a fit that starts from the last one costs and brings, beside one from the beginning.

    python benchmarks/warm_start.py [MODEL ...] [--data NAME] [--choice] [--set NAME=VALUE] [--json]

Online Retail and MovieLens-100k (every rating as an interaction), cut by time. A model is fitted on
what lies before the first cut; at each later cut it is refitted on all before it, once from the
beginning (cold) and once from where the last warm fit ended, each warm fit following the other as
in the trainer. Both answer the next events, up to the following cut, as the gate asks them: each
interaction with an item new to a user who has a history, 5,000 drawn of each part. Recall@20 and
NDCG@20 over all parts; the difference of NDCG with its 95 % interval by paired bootstrap over the
users; the same recall for items that came up since the last fit; CPU seconds of a fit.

How much work a warm start does was chosen on the parts of --choice, which end before those
reported begin; there the data grow by a third and a quarter, here by 6 % each time. Data:
../shared/data.
"""

import itertools
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import numpy as np

if __package__ in (None, ""):
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks import report
from benchmarks.fold_in_fidelity import ml_100k
from benchmarks.paper_rows import retail_blends
from rheos.demo import online_retail
from rheos.settings import FeatureDeclaration, FeatureSettings, Settings
from rheos.state import Float64s, Int64s
from trainer import bootstrap, fitting, gate
from trainer.data_set import DataSet, of_interactions
from trainer.evaluation.metrics import MEASURES
from trainer.evaluation.refit import in_memory
from trainer.evaluation.time_split import time_of
from trainer.models import model_of
from trainer.models.model import Fitted, Model, Run, Start

MODELS = ("als", "lightgcn", "two_tower", "sasrec")
CUTS = (0.85, 0.9, 0.95, 1.0)
CHOICE = (0.3, 0.4, 0.5, 0.6)
"""Shares of the interactions, by time; the last one ends what is asked."""
FEATURES = FeatureSettings(
    items=(
        FeatureDeclaration(name="category", kind="categorical"),
        FeatureDeclaration(name="price", kind="numeric"),
        FeatureDeclaration(name="title", kind="text", buckets=4096),
    )
)
NDCG, RECALL = MEASURES.index("ndcg"), MEASURES.index("recall")


class Asked(NamedTuple):
    """What the refits of all parts answered: values (n, measures), whose question each is, and
    whether its item is younger than the fit before.
    """

    cold: Float64s
    warm: Float64s
    users: Int64s
    new: np.ndarray


def online_retail_year() -> DataSet:
    """The invoice lines with what the demo's catalogue says of the items."""
    log = retail_blends.read(Settings())
    data = of_interactions(
        [log.user_ids[user] for user in log.users],
        [log.item_ids[item] for item in log.items],
        log.times_ms,
    )
    known = {item.item_id: item for item in online_retail.items()}
    return replace(data, items_known=known, features=FEATURES)


DATA = {"online-retail": online_retail_year, "ml-100k": ml_100k}


def start_of(data: DataSet, fitted: Fitted) -> Start:
    return Start(data.user_ids, fitted.item_ids, fitted.keep)


def timed(model: Model, data: DataSet, run: Run) -> tuple[Fitted, float]:
    began = time.process_time()
    return fitting.fit(model, data, run), time.process_time() - began


def questions(data: DataSet, begin_ms: int, end_ms: int, seed: int) -> Int64s:
    """Rows of the interactions that the fits at ``begin_ms`` are asked for."""
    eligible = data.first_of_pairs() & (data.weights > 0)
    eligible[data.begins()[:-1]] = False
    found = np.flatnonzero(eligible & (data.times_ms >= begin_ms) & (data.times_ms < end_ms))
    if len(found) <= gate.MOST_QUERIES:
        return found
    random = np.random.default_rng(seed)
    return np.sort(random.choice(found, gate.MOST_QUERIES, replace=False))


def refits(model: Model, data: DataSet, cuts: tuple[float, ...], run: Run) -> dict[str, Any]:
    settings = Settings()
    ends = [time_of(data, cut) for cut in cuts if cut < 1.0]
    ends += [int(data.times_ms.max()) + 1] * (cuts[-1] == 1.0)
    before = data.where(data.times_ms < ends[0])
    last, _ = timed(model, before, run)
    seconds: dict[str, list[float]] = {"cold": [], "warm": []}
    parts = []
    for begin, end in itertools.pairwise(ends[1:]):
        train = data.where(data.times_ms < begin)
        asked = questions(data, begin, end, run.seed)
        start = start_of(before, last)
        values = []
        for name, how in (("cold", run), ("warm", run._replace(start=start))):
            fitted, spent = timed(model, train, how)
            seconds[name].append(spent)
            generation = in_memory(fitting.make(1, model, fitted, train, {}))
            values.append(gate.values(generation, data, asked, settings))
        came = set(train.item_ids) - set(before.item_ids)
        new = np.array([item in came for item in data.item_ids], bool)[data.items[asked]]
        parts.append(Asked(values[0], values[1], data.users[asked].astype(np.int64), new))
        before, last = train, fitted
    whole = Asked(*(np.concatenate(column) for column in zip(*parts, strict=True)))
    return told(whole, seconds)


def told(whole: Asked, seconds: dict[str, list[float]]) -> dict[str, Any]:
    ahead = bootstrap.paired(
        whole.warm[:, NDCG],
        whole.cold[:, NDCG],
        whole.users,
        margin=0.0,
        confidence=0.975,
        random=np.random.default_rng(0),
    )
    outcome: dict[str, Any] = {"questions": len(whole.new), "about new items": int(whole.new.sum())}
    for name, values in (("cold", whole.cold), ("warm", whole.warm)):
        outcome[name] = {
            "cpu_seconds": round(float(np.mean(seconds[name])), 2),
            "recall@20": round(float(values[:, RECALL].mean()), 4),
            "ndcg@20": round(float(values[:, NDCG].mean()), 4),
        }
        if whole.new.any():
            found = float(values[whole.new, RECALL].mean())
            outcome[name]["recall@20 of new items"] = round(found, 4)
    return outcome | {
        "work": round(sum(seconds["warm"]) / sum(seconds["cold"]), 3),
        "warm ahead by ndcg@20": [round(ahead.low, 4), round(ahead.high, 4)],
        "p_value": round(ahead.p_value, 4),
    }


def main() -> int:
    options = report.arguments(
        __doc__,
        ("models", {"nargs": "*", "metavar": "MODEL", "help": ", ".join(MODELS)}),
        ("--data", {"choices": list(DATA), "help": "one data set alone"}),
        ("--choice", {"action": "store_true", "help": "the parts that the defaults came from"}),
        ("--set", {"action": "append", "default": [], "metavar": "NAME=VALUE"}),
        ("--seed", {"type": int, "default": 0}),
    )
    pairs = (pair.partition("=") for pair in options.set)
    chosen = {name: msgspec.json.decode(value) for name, _, value in pairs}
    outcome: dict[str, Any] = {"cuts": CHOICE if options.choice else CUTS, "seed": options.seed}
    claims: dict[str, bool] = {}
    for name in [options.data] if options.data else DATA:
        data = DATA[name]()
        outcome[name] = {}
        for model in options.models or MODELS:
            found = refits(model_of(model, chosen), data, outcome["cuts"], Run(options.seed))
            outcome[name][model] = found
            claim = f"{model}, {name}: a warm refit is not significantly worse than a cold one"
            claims[claim] = found["p_value"] >= 0.05
            report.note(f"{name}, {model}: {found}")
    return report.finish("warm_start", outcome, claims, as_json=options.json)


if __name__ == "__main__":
    sys.exit(main())
