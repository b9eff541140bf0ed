"""How long does the sequence encoder take a user, without torch?

    python benchmarks/sequence_encoder.py [--json]

A network of random numbers of sasrec's default size (d = 64, 1 block, 50 interactions) over 10,000
items encodes histories of 100 interactions, in the batches in which the stream and the indexer
encode. CPU time of this process, one thread; other work on the machine slows the caches, not more.
Claim: under 1 ms a user in batches.
"""

import sys
import time
from pathlib import Path

import numpy as np
from threadpoolctl import threadpool_limits

if __package__ in (None, ""):
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks import report
from rheos.encoder import EncoderContext
from rheos.sequence_encoder import GAPS, SequenceEncoder
from rheos.state import Float32s, History

ITEMS, D, HEADS, LAST, BLOCKS, LENGTH = 10_000, 64, 2, 50, 1, 100
BATCHES = (1, 16, 64, 512)
LIMIT_MS = 1.0
LEAST_S = 1.0  # of measuring each batch


def encoder() -> SequenceEncoder:
    random = np.random.default_rng(0)

    def matrix(*shape: int) -> Float32s:
        return random.normal(0, D**-0.5, shape).astype(np.float32)

    tensors = {"encoder.gain": np.ones(D, np.float32), "encoder.shift": np.zeros(D, np.float32)}
    for block in range(BLOCKS):
        shapes = {
            **{"gain": (D,), "shift": (D,), "attend": (D, 3 * D), "distance": (HEADS, LAST)},
            "gap": (HEADS, GAPS),
            **{"mix": (D, D), "second_gain": (D,), "second_shift": (D,), "widen": (D, D)},
            **{"widen_bias": (D,), "narrow": (D, D), "narrow_bias": (D,)},
        }
        tensors |= {f"encoder.{name}.{block}": matrix(*shape) for name, shape in shapes.items()}
    context = EncoderContext({f"i{row}": row for row in range(ITEMS)}, matrix(ITEMS, D))
    return SequenceEncoder.load({"blocks": BLOCKS}, tensors, context)


def histories(count: int) -> list[History]:
    random = np.random.default_rng(1)
    return [
        History(
            [f"i{row}" for row in random.integers(0, ITEMS, LENGTH)],
            np.ones(LENGTH, np.float32),
            1000 * np.arange(LENGTH, dtype=np.int64) ** 2,
        )
        for _ in range(count)
    ]


def main() -> int:
    options = report.arguments(__doc__)
    measured = encoder()
    outcome = {}
    for batch in BATCHES:
        users = histories(batch)
        times_ms: list[float] = []
        with threadpool_limits(1):
            measured.encode(users)  # warm
            while sum(times_ms) < LEAST_S * 1000 or len(times_ms) < 3:
                began = time.process_time()
                measured.encode(users)
                times_ms.append((time.process_time() - began) * 1000)
        outcome[f"batches of {batch}: ms of CPU a user (median)"] = round(
            float(np.median(times_ms)) / batch, 3
        )
    claims = {
        f"under {LIMIT_MS} ms a user in batches of {batch}": outcome[
            f"batches of {batch}: ms of CPU a user (median)"
        ]
        < LIMIT_MS
        for batch in BATCHES
        if batch > 1
    }
    return report.finish("sequence_encoder", outcome, claims, as_json=options.json)


if __name__ == "__main__":
    sys.exit(main())
