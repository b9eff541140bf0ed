"""The fold-in against the equation written down directly."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from rheos.encoder import EncoderContext
from rheos.fold_in import FoldIn
from rheos.state import Float32s, History

N, D = 40, 8
VECTORS = np.random.default_rng(3).normal(0, 0.5, (N, D)).astype(np.float32)
CONTEXT = EncoderContext({f"i{row}": row for row in range(N)}, VECTORS)
ENCODER = FoldIn(CONTEXT, alpha=20.0, regularisation=0.05, half_steps=1.5, floor=0.005, last=6)


def by_the_book(history: History) -> Float32s:
    """(YᵀY + Yᵀ D Y + λI)⁻¹ Yᵀ c, Hu et al. 2008, eq. 4, in float64."""
    latest: dict[str, float] = {}
    for item, weight in list(zip(history.item_ids, history.weights.tolist(), strict=True))[::-1]:
        if item not in CONTEXT.row_of:
            continue
        if item in latest:
            if abs(weight) > abs(latest[item]):
                latest[item] = weight
        elif len(latest) < 6:
            latest[item] = weight
        else:
            break
    vectors = VECTORS.astype(np.float64)
    matrix, right = vectors.T @ vectors + 0.05 * np.eye(D), np.zeros(D)
    for rank, (item, weight) in enumerate(latest.items()):
        y = vectors[CONTEXT.row_of[item]]
        confidence = 20.0 * abs(weight) * (0.5 ** (rank / 1.5) + 0.005)
        matrix += confidence * np.outer(y, y)
        if weight > 0:
            right += (1 + confidence) * y
    return np.linalg.solve(matrix, right).astype(np.float32)


def history(pairs: list[tuple[str, float]]) -> History:
    return History(
        [item for item, _ in pairs],
        np.array([weight for _, weight in pairs], np.float32),
        np.arange(len(pairs)),
    )


pairs = st.lists(
    st.tuples(st.integers(0, N + 5).map(lambda row: f"i{row}"), st.sampled_from([1.0, 0.4, -1.0])),
    max_size=15,
)


@given(st.lists(pairs, max_size=6))
@hypothesis_settings(deadline=None)
def test_every_vector_equals_equation_4(drawn: list[list[tuple[str, float]]]) -> None:
    histories = [history(one) for one in drawn]
    vectors = ENCODER.encode(histories)
    assert vectors.shape == (len(drawn), D)
    for vector, one in zip(vectors, histories, strict=True):
        np.testing.assert_allclose(vector, by_the_book(one), atol=1e-4)


@given(pairs)
@hypothesis_settings(deadline=None)
def test_the_terms_of_an_item_add_up_to_its_score(drawn: list[tuple[str, float]]) -> None:
    one = history(drawn)
    [vector] = ENCODER.encode([one])
    for item, terms in zip(("i0", "i7"), ENCODER.terms(one, ["i0", "i7"]), strict=True):
        score = float(VECTORS[CONTEXT.row_of[item]] @ vector)
        assert sum(part for _, part in terms) == pytest.approx(score, abs=1e-4)
        assert {source for source, _ in terms} <= set(one.item_ids)


def test_an_item_turned_down_is_scored_lower_than_before() -> None:
    liked = history([("i1", 1.0), ("i2", 1.0)])
    disliked = history([("i1", 1.0), ("i2", 1.0), ("i3", -1.0)])
    before, after = ENCODER.encode([liked, disliked]) @ VECTORS[3]
    assert after < before or abs(after) < abs(before)


def test_nobody_known_is_a_row_of_zeros() -> None:
    assert not ENCODER.encode([history([]), history([("unknown", 1.0)])]).any()
    assert ENCODER.encode([]).shape == (0, D)
    assert ENCODER.terms(history([("i1", 1.0)]), ["unknown"]) == [[]]


def test_an_empty_batch_mate_changes_nothing() -> None:
    one = history([("i1", 1.0), ("i5", 0.4)])
    alone = ENCODER.encode([one])[0]
    np.testing.assert_allclose(ENCODER.encode([history([]), one])[1], alone, atol=1e-6)


@pytest.mark.parametrize("bad", [{"alpha": 0.0}, {"regularisation": 0.0}, {"last": 0}])
def test_parameters_without_sense_are_refused(bad: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="above 0"):
        FoldIn(CONTEXT, **{"alpha": 1.0, "regularisation": 1.0, **bad})  # type: ignore[arg-type]
