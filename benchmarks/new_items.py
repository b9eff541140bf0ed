"""What does a query pay for items that are newer than the model, and have content vectors?

A generation of 20,000 items (d = 64) and a catalogue with 50,000 and 200,000 more, of which only
their records tell. Processor milliseconds of the search for the best 100 of these, as a query does
it, while all are scanned and once they stand in an index of their own (``indexer/delta.py``), which
is asked beside the scanned rest; the seconds that building it takes, in the background; and which
share of the true best 100 is found. Then the same with a tenth of the items' records changed since:
their rows of the index are outdated, so that a query that wants 100 is asked for more.

The vectors are random, with a spectrum that falls as 1/√k: both ways are exact and cost the same
for any.
"""

import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

if __package__ in (None, ""):
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks import random_generation, report
from indexer.candidates import NextLists
from indexer.delta import Delta
from indexer.item_numbers import ItemNumbers
from indexer.live_catalogue import LiveCatalogue
from indexer.serving import Serving
from rheos.catalogue import Item, encode_record
from rheos.generation import Generation
from rheos.settings import Settings
from rheos.snapshot import Snapshot
from rheos.state import Float32s

KNOWN, DIMENSIONS, DEPTH = 20_000, 64, 100
NEW = (50_000, 200_000)
CHANGED = 0.1
QUERIES = 50


class PriceContent:
    """An item's vector is drawn anew for each price that its record has."""

    def encode(self, items: Sequence[Item]) -> Float32s:
        return np.stack([_drawn(1, seed=int(item.price or 0))[0] for item in items])


def _drawn(count: int, seed: int) -> Float32s:
    spectrum = np.arange(1, DIMENSIONS + 1, dtype=np.float32) ** -0.5
    drawn: Float32s = np.random.default_rng(seed).standard_normal((count, DIMENSIONS), np.float32)
    return drawn * spectrum


def main() -> int:
    options = report.arguments(__doc__)
    sizes = {f"{count} new items": measured(count) for count in NEW}
    claims = {
        f"{name}: a search finds the true best, settled or not": all(
            row[state]["found"] == 1.0 for state in ("scanned", "settled")
        )
        for name, row in sizes.items()
    }
    many = sizes[f"{NEW[-1]} new items"]
    claims["the index halves what the largest scan takes"] = (
        many["settled"]["cpu_ms_p50"] <= 0.5 * many["scanned"]["cpu_ms_p50"]
    )
    return report.finish("new_items", sizes, claims, as_json=options.json)


def measured(count: int) -> dict[str, Any]:
    """All figures of one number of new items."""
    numbers = ItemNumbers()
    catalogue = LiveCatalogue(numbers)
    lists = NextLists(Settings(), numbers)
    serving = Serving(_generation(), numbers, lists, catalogue, "auto")
    new = np.array([_write(catalogue, numbers, n, 1 + n) for n in range(count)])
    delta, queries = serving.delta, _drawn(QUERIES, seed=0)
    _, derived_s = _timed(lambda: delta.refresh(new.tolist()))
    found = {"deriving_s": derived_s, "scanned": _searches(delta, queries, new)}
    _, found["building_s"] = _timed(delta.settle)
    found["settled"] = _searches(delta, queries, new)
    changed = range(0, count, round(1 / CHANGED))
    for n in changed:
        _write(catalogue, numbers, n, count + 1 + n)
    delta.refresh(new.tolist())
    found[f"settled, {len(changed)} changed since"] = _searches(delta, queries, new)
    serving.close()
    return found


def _generation() -> Generation:
    item_ids = [f"known{row}" for row in range(KNOWN)]
    made = random_generation.parts(1, item_ids, _drawn(KNOWN, seed=1))
    generation = Generation(Snapshot("1-00000000", *made))
    generation.content = PriceContent()
    return generation


def _write(catalogue: LiveCatalogue, numbers: ItemNumbers, n: int, price: int) -> int:
    item = Item(item_id=f"new{n}", price=float(price))
    catalogue.put_item(item.item_id, encode_record(item))
    return numbers.add(item.item_id)


def _searches(delta: Delta, queries: Float32s, new: np.ndarray[Any, Any]) -> dict[str, float]:
    """Milliseconds of CPU a search, and which share of the true best is found."""
    took_ms, hits = [], 0
    delta.nearest(queries[0], DEPTH)  # warm
    for query in queries:
        began = time.process_time()
        nearest = delta.nearest(query, DEPTH)
        took_ms.append(1000 * (time.process_time() - began))
        best = new[np.argsort(-delta.products(query, new))[:DEPTH]]
        hits += len(np.intersect1d(nearest, best))
    return {
        "cpu_ms_p50": round(float(np.median(took_ms)), 3),
        "cpu_ms_p99": round(float(np.percentile(took_ms, 99)), 3),
        "found": round(hits / (DEPTH * len(queries)), 4),
    }


def _timed(work: Callable[[], object]) -> tuple[object, float]:
    began = time.process_time()
    return work(), round(time.process_time() - began, 2)


if __name__ == "__main__":
    sys.exit(main())
