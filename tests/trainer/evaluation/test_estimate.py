"""A mean's standard error, with cases that agree within a user."""

import math

import numpy as np
import pytest

from trainer.evaluation import estimate


def test_one_case_a_user_is_the_textbooks_standard_error():
    values = np.random.default_rng(0).random(50)
    found = estimate.of(values, np.arange(50))
    assert found.mean == pytest.approx(values.mean())
    assert found.standard_error == pytest.approx(values.std(ddof=1) / math.sqrt(50))


def test_repeating_each_users_case_makes_nothing_surer():
    values = np.random.default_rng(0).random(50)
    once = estimate.of(values, np.arange(50))
    thrice = estimate.of(np.repeat(values, 3), np.repeat(np.arange(50), 3))
    assert thrice.standard_error == pytest.approx(once.standard_error)


def test_the_error_covers_what_it_should_where_users_have_a_taste():
    random = np.random.default_rng(1)
    covered = 0
    for _ in range(300):
        users = np.sort(random.integers(0, 60, 400))
        values = random.normal(size=60)[users] + random.normal(size=400)
        found = estimate.of(values, users)
        covered += abs(found.mean) < 1.96 * found.standard_error
    assert 0.88 < covered / 300 < 0.99


def test_too_little_has_no_error():
    nothing = estimate.of(np.zeros(0), np.zeros(0, np.int64))
    assert math.isnan(nothing.mean)
    assert math.isnan(nothing.standard_error)
    alone = estimate.of(np.ones(3), np.zeros(3, np.int64))
    assert alone.mean == 1.0
    assert math.isnan(alone.standard_error)
