"""The paired bootstrap: its interval, its p-value, and users as the unit."""

import numpy as np
import pytest

from rheos.state import Float64s, Int64s
from trainer.bootstrap import Difference, paired


def compared(
    first: Float64s,
    second: Float64s,
    groups: Int64s | None = None,
    margin: float = 0.0,
    confidence: float = 0.95,
    seed: int = 0,
) -> Difference:
    return paired(
        first,
        second,
        np.arange(len(first)) if groups is None else groups,
        margin=margin,
        confidence=confidence,
        random=np.random.default_rng(seed),
    )


def test_it_agrees_with_one_resample_after_the_other() -> None:
    random = np.random.default_rng(1)
    groups = np.sort(random.integers(0, 30, 120))
    first, second = random.random(120), random.random(120)
    means = []
    for _ in range(4000):
        drawn = random.integers(0, 30, 30)
        rows = np.concatenate([np.flatnonzero(groups == group) for group in drawn])
        if len(rows):
            means.append(float((first[rows] - second[rows]).mean()))
    found = compared(first, second, groups)
    assert found.mean == pytest.approx((first - second).mean())
    assert found.low == pytest.approx(np.quantile(means, 0.05), abs=0.01)
    assert found.high == pytest.approx(np.quantile(means, 0.95), abs=0.01)
    assert found.p_value == pytest.approx((np.array(means) >= 0).mean(), abs=0.03)


def test_equal_systems_are_wrongly_found_worse_as_often_as_the_confidence_allows() -> None:
    random = np.random.default_rng(2)
    refused = 0
    for trial in range(200):
        base = random.random(80)
        first, second = base + random.normal(0, 0.1, 80), base + random.normal(0, 0.1, 80)
        refused += compared(first, second, seed=trial).p_value < 0.05
    assert 2 <= refused <= 22


def test_what_is_worse_on_every_query_is_found_out_with_few_of_them() -> None:
    second = np.random.default_rng(3).random(20)
    found = compared(second - 0.05, second)
    assert found.high == pytest.approx(-0.05)
    assert found.p_value < 0.001
    assert compared(second - 0.05, second, margin=0.06).p_value > 0.99
    assert compared(second, second).p_value == 1.0


def test_the_pairing_sees_what_the_spread_of_queries_would_hide() -> None:
    random = np.random.default_rng(4)
    second = random.random(200)
    first = second - 0.02 + random.normal(0, 0.02, 200)
    assert compared(first, second).p_value < 0.01
    assert compared(random.permutation(first), second).p_value > 0.05


def test_a_user_with_many_queries_is_one_witness() -> None:
    second = np.zeros(300)
    first = np.where(np.arange(300) < 200, -1.0, 0.1)
    groups = np.where(np.arange(300) < 200, 0, np.arange(300))  # one user lost 200 times
    assert compared(first, second, groups).p_value > 0.05
    assert compared(first, second).p_value < 0.001


def test_the_same_generator_gives_the_same_figures() -> None:
    first, second = np.random.default_rng(5).random((2, 50))
    assert compared(first, second) == compared(first, second)


def test_one_user_proves_nothing_and_none_is_an_error() -> None:
    found = compared(np.zeros(5), np.ones(5), np.zeros(5, np.int64))
    assert found == Difference(-1.0, -1.0, -1.0, 1.0)
    with pytest.raises(ValueError, match="0 queries"):
        compared(np.zeros(0), np.zeros(0))
    with pytest.raises(ValueError, match="3 and 2 values"):
        compared(np.zeros(3), np.zeros(2))
