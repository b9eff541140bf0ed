"""The logistic fold-in against its loss, minimised slowly."""

import numpy as np
import pytest

from rheos.encoder import EncoderContext
from rheos.logistic_fold_in import LogisticFoldIn
from rheos.state import Float32s, History

N, D, M, F = 40, 6, 3, 5
RANDOM = np.random.default_rng(3)
VECTORS = RANDOM.normal(0, 0.7, (N, D + 2 + M)).astype(np.float32)
VECTORS[:, D + 1] = 1.0
CONTEXT = EncoderContext({f"i{row}": row for row in range(N)}, VECTORS)
TENSORS = {
    "encoder.curvature": np.full(N, 0.15, np.float32),
    "encoder.start": np.zeros(D + 1, np.float32),
    "encoder.features": RANDOM.normal(0, 1, (N, F)).astype(np.float32),
    "encoder.matrix": RANDOM.normal(0, 0.5, (F, M)).astype(np.float32),
}
K, RIDGE = 4.0, 0.02


def encoder(**changed: float) -> LogisticFoldIn:
    given = {"negatives": K, "regularisation": RIDGE, "steps": 60, "anchors": N, "last": 8}
    return LogisticFoldIn(
        CONTEXT,
        TENSORS,
        **({"factors": D, "half_steps": 4.0} | given | changed),  # type: ignore[arg-type]
    )


def history(*pairs: tuple[int, float]) -> History:
    return History(
        [f"i{row}" for row, _ in pairs],
        np.array([weight for _, weight in pairs], np.float32),
        np.arange(len(pairs)),
    )


def by_the_book(rows: list[int], weights: list[float]) -> Float32s:
    """``rows`` newest first: gradient descent on the loss of the docstring, in float64."""
    recency = 0.5 ** (np.arange(len(rows)) / 4.0)
    w = np.array(weights) * recency
    s, t = np.abs(w) / np.abs(w).sum(), (w > 0).astype(float)
    a = (w / np.abs(w).sum()) @ TENSORS["encoder.features"][rows] @ TENSORS["encoder.matrix"]
    items = VECTORS.astype(np.float64)
    q = np.hstack([items[:, :D], np.ones((N, 1))])
    offset = items[:, D] + items[:, D + 2 :] @ a
    x = np.zeros(D + 1)
    for _ in range(20_000):
        chance = 1 / (1 + np.exp(-(q @ x + offset)))
        gradient = (s * (chance[rows] - t)) @ q[rows] + K * (chance @ q) / N
        x -= 0.1 * (gradient + RIDGE * (1 + K) * x)
    return np.concatenate([x[:D], [1.0], x[D:], a]).astype(np.float32)


def test_a_vector_is_the_minimum_of_the_loss() -> None:
    found = encoder().encode([history((3, 1.0), (9, 0.4), (20, -1.0)), history((5, 2.0))])
    np.testing.assert_allclose(found[0], by_the_book([20, 9, 3], [-1.0, 0.4, 1.0]), atol=1e-3)
    np.testing.assert_allclose(found[1], by_the_book([5], [2.0]), atol=1e-3)


def test_four_steps_come_near_the_minimum() -> None:
    histories = [history((3, 1.0), (9, 0.4), (20, -1.0)), history((5, 2.0), (6, 1.0))]
    end, begun = encoder().encode(histories), encoder(steps=1).encode(histories)
    soon = encoder(steps=4).encode(histories)
    assert np.abs(soon - end).max() < 0.25 * np.abs(begun - end).max()


def test_what_is_turned_down_scores_less_than_what_is_taken() -> None:
    liked, disliked = encoder().encode([history((1, 1.0), (2, 1.0)), history((1, 1.0), (2, -1.0))])
    assert VECTORS[2] @ liked > VECTORS[2] @ disliked


def test_anchors_stand_for_all_items() -> None:
    histories = [history((3, 1.0), (9, 0.4)), history((30, 1.0))]
    few, every = encoder(anchors=30).encode(histories), encoder().encode(histories)
    alike = (few * every).sum(1) / np.linalg.norm(few, axis=1) / np.linalg.norm(every, axis=1)
    assert (alike > 0.95).all()


def test_nobody_known_is_a_row_of_zeros() -> None:
    nothing = [history(), history((N + 1, 1.0)), history((1, 0.0))]
    assert not encoder().encode(nothing).any()
    assert encoder().encode([]).shape == (0, D + 2 + M)
    assert encoder().terms(history((1, 1.0)), ["i2", "i3"]) == [[], []]


def test_without_factors_the_bias_alone_is_solved_for() -> None:
    vectors = np.ascontiguousarray(VECTORS[:, D:])
    tensors = TENSORS | {"encoder.start": np.zeros(1, np.float32)}
    parameters = {"kind": "logistic_fold_in", "factors": 0, "negatives": K, "anchors": N}
    parameters |= {"regularisation": RIDGE, "steps": 4, "half_steps": 4.0, "last": 8}
    context = CONTEXT._replace(item_vectors=vectors)
    vector = LogisticFoldIn.load(parameters, tensors, context).encode([history((1, 1.0))])[0]
    assert len(vector) == 2 + M
    assert vector[0] == 1.0


@pytest.mark.parametrize(
    "bad", [{"negatives": 0.0}, {"last": 0}, {"factors": D + 1}, {"steps": 10**9}]
)
def test_parameters_without_sense_are_refused(bad: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="logistic fold-in"):
        encoder(**bad)
