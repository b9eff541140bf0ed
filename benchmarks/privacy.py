"""What does differential privacy by user cost in quality?

    python benchmarks/privacy.py [--json]

On NCF's split of MovieLens-1M (../shared/data/ncf-ml-1m; HR@10 and NDCG@10 among 99 sampled items),
which holds 6,040 users: private_mf at several ε (δ = 1e-5), the same without noise that matters,
federated averaging, ALS and popularity. The unit of privacy is a user with all of her history; the
users' own vectors are solved for from their histories, as in serving. A few minutes on one core.
"""

import os
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

if __package__ in (None, ""):
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks import report
from benchmarks.paper_rows.row import DATA
from trainer.evaluation import metrics, split
from trainer.models import model_of
from trainer.models.model import Run

FOLDER = DATA / "ncf-ml-1m"
EPSILONS = (1.0, 2.0, 4.0, 8.0, 16.0)
NO_NOISE = 1e6


def popularity(data: split.SampledSplit) -> metrics.Accuracy:
    """Everybody gets the items with the most interactions."""
    counts = dict(zip(data.train.item_ids, data.train.popularity().tolist(), strict=True))
    compared = [
        metrics.compare(np.array([counts.get(item, 0.0) for item in items]), 0)
        for items in data.candidates.values()
    ]
    return metrics.of_targets(*zip(*compared, strict=True), 10)


def main() -> int:
    options = report.arguments(__doc__)
    if not FOLDER.is_dir():
        report.note(f"the data is not here ({FOLDER})")
        return 2
    data = split.read_ncf(FOLDER)
    cases: dict[str, tuple[str, dict[str, Any]]] = {
        "als": ("als", {}),
        "federated_mf": ("federated_mf", {}),
        "private_mf without noise": ("private_mf", {"epsilon": NO_NOISE}),
        **{f"private_mf ε {value:g}": ("private_mf", {"epsilon": value}) for value in EPSILONS},
    }
    found = popularity(data)
    rows: dict[str, Any] = {"popularity": {"hr@10": found.hit_rate, "ndcg@10": found.ndcg}}
    for title, (name, parameters) in cases.items():
        began = time.process_time()
        model = model_of(name, parameters)
        found = split.evaluate(data, model, 10, Run(threads=os.cpu_count() or 1))
        rows[title] = {
            "hr@10": round(found.hit_rate, 4),
            "ndcg@10": round(found.ndcg, 4),
            "cpu_seconds": round(time.process_time() - began, 1),
        }
        report.note(f"{title}: {rows[title]}")
    private = [rows[f"private_mf ε {value:g}"]["hr@10"] for value in EPSILONS]
    claims = {
        "at ε = 8 better than popularity": private[3] > rows["popularity"]["hr@10"],
        "more ε, more quality": private[0] < private[2] < private[4],
    }
    return report.finish(
        "privacy", {"users": len(data.candidates), "rows": rows}, claims, as_json=options.json
    )


if __name__ == "__main__":
    sys.exit(main())
