"""What does ranking 200 candidates with boosted trees cost, without LightGBM?

    python benchmarks/ranker_latency.py [--queries N] [--json]

Trees of the trainer's own size are fitted on random queries. Timed, in one thread: their evaluation
in NumPy, as the indexer does it; LightGBM's own ``predict`` on the same rows; and the whole of what
a query pays: features of all gathered candidates, the shortlist, the trees, the order. The limit is
2 ms for 200 candidates. Random splits make deep, even trees: learned ones cost less, if anything.
"""

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")

import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import lightgbm
import numpy as np

if __package__ in (None, ""):
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks import report
from indexer.ranking import NEXT, Facts, Layer, blended, feature_names, features
from rheos.blend import SHORTLIST
from rheos.tree_blend import TreeBlend
from trainer.blending import lambdamart

LAYERS = ("vector", "ranker", "item_weights", "near", "far", "trend")
GATHERED = 500
LIMIT_MS = 2.0


def fitted(random: np.random.Generator) -> tuple[lightgbm.Booster, TreeBlend]:
    names = feature_names(LAYERS)
    queries, each = 200, SHORTLIST
    told = random.normal(size=(queries * each, len(names)))
    told[random.random(told.shape) < 0.05] = np.nan
    relevant = np.nan_to_num(told).sum(axis=1) + random.normal(size=len(told)) > 6
    data = lightgbm.Dataset(told, relevant.astype(int), group=[each] * queries)
    parameters = {**lambdamart.PARAMETERS, "num_threads": 1}
    booster = lightgbm.train(parameters, data, num_boost_round=lambdamart.TREES)
    return booster, lambdamart.blend_of(booster, dict.fromkeys(LAYERS, 1.0), names)


def query(random: np.random.Generator) -> tuple[list[Layer], Facts]:
    layers = [Layer(name, NEXT, 1.0, random.normal(size=GATHERED)) for name in LAYERS]
    facts = Facts(
        counts=random.integers(1, 500, GATHERED).astype(np.float64),
        trend=random.random(GATHERED),
        prices=random.random(GATHERED),
        usual_price=0.5,
        session=5,
        history=50,
        idle_s=60.0,
    )
    return layers, facts


def timed(work: Sequence[Callable[[], Any]]) -> dict[str, float]:
    """Milliseconds of each call, the first tenth for warming up."""
    wall, cpu = [], []
    for call in work:
        begun, begun_cpu = time.perf_counter(), time.process_time()
        call()
        wall.append(1e3 * (time.perf_counter() - begun))
        cpu.append(1e3 * (time.process_time() - begun_cpu))
    warm = len(work) // 10
    p50, p99 = np.percentile(wall[warm:], [50, 99])
    return {
        "p50_ms": round(float(p50), 3),
        "p99_ms": round(float(p99), 3),
        "cpu_ms": round(float(np.mean(cpu[warm:])), 3),
    }


def main() -> int:
    asked = report.arguments(__doc__, ("--queries", {"type": int, "default": 500}))
    random = np.random.default_rng(0)
    booster, blend = fitted(random)
    names = list(blend.features)
    rows = [random.normal(size=(SHORTLIST, len(names))) for _ in range(asked.queries)]
    told = [dict(zip(names, np.ascontiguousarray(row.T), strict=True)) for row in rows]
    apart = max(
        float(np.abs(blend.score(one) - booster.predict(row)).max())
        for one, row in zip(told[:50], rows[:50], strict=True)
    )
    queries = [query(random) for _ in range(asked.queries)]
    trees = timed([lambda one=one: blend.score(one) for one in told])
    outcome = {
        "candidates": SHORTLIST,
        "gathered": GATHERED,
        "features": len(names),
        "trees": len(booster.dump_model()["tree_info"]),
        "nodes": len(blend.tensors()["blend.values"]),
        "trees_in_numpy": trees,
        "trees_in_lightgbm": timed(
            [lambda row=row: booster.predict(row, num_threads=1) for row in rows]
        ),
        "features_of_all": timed([lambda q=q: features(*q, blend.features) for q in queries]),
        "whole_ranking": timed([lambda q=q: blended(*q, blend, 20, str) for q in queries]),
        "largest_difference": apart,
    }
    claims = {
        f"{SHORTLIST} candidates in at most {LIMIT_MS:g} ms": trees["p50_ms"] <= LIMIT_MS,
        "the scores are LightGBM's, within 1e-6": apart <= 1e-6,
    }
    return report.finish("ranker_latency", outcome, claims, as_json=asked.json)


if __name__ == "__main__":
    sys.exit(main())
