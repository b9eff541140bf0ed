"""A vector kept up event by event is that of the whole history, in any order of arrival."""

import json
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from rheos.encoder import Encoder, EncoderContext
from rheos.features import Features
from rheos.fold_in import FoldIn
from rheos.history_map import HistoryMap
from rheos.logistic_fold_in import LogisticFoldIn
from rheos.sequence_encoder import GAPS, Block, SequenceEncoder
from rheos.settings import FeatureDeclaration, from_tree
from rheos.state import Float32s, History, UserState, unpack_vector
from rheos.two_tower_encoder import TwoTowerEncoder
from stream.users import UserFold

N, D, SIZE = 30, 8, 12
RANDOM = np.random.default_rng(0)
NOW = 1_700_000_000_000
SETTINGS = from_tree({"kafka": {"events_partitions": 1}, "history": {"size": SIZE}})
WEIGHTS = SETTINGS.events.weights


def matrix(*shape: int) -> Float32s:
    return RANDOM.normal(0, D**-0.5, shape).astype(np.float32)


CONTEXT = EncoderContext({f"i{row}": row for row in range(N)}, matrix(N, D))


def transformer() -> SequenceEncoder:
    square = matrix(D, D)
    block = Block(
        *(
            np.ones(D, np.float32),
            matrix(D),
            matrix(D, 3 * D),
            matrix(2, 5),
            matrix(2, GAPS),
            square,
        ),
        *(np.ones(D, np.float32), matrix(D), matrix(D, D), matrix(D), matrix(D, D), matrix(D)),
    )
    return SequenceEncoder(CONTEXT, [block, block], np.ones(D, np.float32), matrix(D))


def logistic_fold_in() -> LogisticFoldIn:
    tensors = {
        "encoder.curvature": np.full(N, 0.1, np.float32),
        "encoder.start": matrix(D - 4),
        "encoder.features": matrix(N, 4),
        "encoder.matrix": matrix(4, 3),
    }
    vectors = CONTEXT.item_vectors.copy()
    vectors[:, D - 4] = 1.0
    parameters = {"factors": D - 5, "negatives": 4.0, "regularisation": 0.01, "steps": 4}
    parameters |= {"anchors": 20, "half_steps": 8.0, "last": 6}
    return LogisticFoldIn.load(parameters, tensors, CONTEXT._replace(item_vectors=vectors))


def two_tower() -> TwoTowerEncoder:
    features = Features.fit_users([FeatureDeclaration(name="age", kind="numeric")], [])
    tensors = {
        "history": matrix(N, 5),
        "table": matrix(features.size, 7),
        "nothing": matrix(1, 10),
        "first": matrix(10, 7),
        "bias": matrix(7),
        "skip": matrix(10, D),
        "out": matrix(7, D),
        "out_bias": matrix(D),
    }
    named = {f"encoder.{name}": tensor for name, tensor in tensors.items()}
    return TwoTowerEncoder(CONTEXT, features, named, half_steps=[1.5, 8.0], last=6)


ENCODERS: dict[str, Encoder] = {
    "fold_in": FoldIn(CONTEXT, alpha=20.0, regularisation=0.05, last=6),
    "history_map": HistoryMap(
        CONTEXT, matrix(N, 4), matrix(2, 4, D + 3), half_steps=[1.5, 8.0], last=6
    ),
    "logistic_fold_in": logistic_fold_in(),
    "transformer": transformer(),
    "two_tower": two_tower(),
}


def events(count: int, random: np.random.Generator) -> list[dict[str, Any]]:
    """In the order of their times, of which no two are equal; some items nothing knows."""
    times = NOW + np.sort(random.choice(10_000_000, count, replace=False))
    kinds = ["click", "purchase", "view", "dislike"]
    return [
        {
            "user_id": "u",
            "item_id": f"i{random.integers(0, N + 5)}",
            "type": kinds[random.integers(0, 4)],
            "time_ms": int(time_ms),
        }
        for time_ms in times
    ]


def whole(past: list[dict[str, Any]]) -> History:
    kept = past[-SIZE:]
    return History(
        [event["item_id"] for event in kept],
        np.array([WEIGHTS[event["type"]] for event in kept], np.float32),
        np.array([event["time_ms"] for event in kept], np.int64),
    )


@pytest.mark.parametrize("kind", ENCODERS)
def test_event_by_event_in_any_order_equals_the_whole_history(kind: str) -> None:
    encoder = ENCODERS[kind]
    generation: Any = SimpleNamespace(name="1-00000000", encoder=encoder)
    random = np.random.default_rng(7)
    for count in (1, 3, SIZE, 3 * SIZE):
        past = events(count, random)
        [expected] = encoder.encode([whole(past)])
        for arrival in ("as they happened", "backwards", "at random"):
            order = np.arange(count)
            if arrival == "backwards":
                order = order[::-1]
            elif arrival == "at random":
                order = random.permutation(count)
            fold, states = UserFold(SETTINGS, 0), dict[str, UserState]()
            for offset, place in enumerate(order):
                value = json.dumps(past[place]).encode()
                record: Any = SimpleNamespace(
                    offset=offset, timestamp=NOW + 20_000_000, key=b"u", value=value
                )
                changes = fold.fold([record], states.get, generation)
                assert not changes.dead_letters
                states |= changes.states
            found = unpack_vector(states["u"].vector)
            np.testing.assert_allclose(
                found if len(found) else np.zeros(encoder.dimensions), expected, atol=1e-4
            )
