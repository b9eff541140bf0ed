"""Gradients by user, against finite differences of the loss written out pair by pair."""

import numpy as np
import pytest

from trainer.data_set import DataSet, of_interactions
from trainer.models.user_gradients import UserGradients

ALPHA, LAMBDA = 3.0, 0.7


def some_data() -> DataSet:
    random = np.random.default_rng(2)
    weights = np.where(random.random(60) < 0.2, -1.0, random.random(60) + 0.1)
    return of_interactions(
        [f"u{n}" for n in random.integers(7, size=60)],
        [f"i{n}" for n in random.integers(9, size=60)],
        np.arange(60),
        weights,
    )


def loss(data: DataSet, user: int, x: np.ndarray, Y: np.ndarray) -> float:
    total = 0.0
    for item in range(len(data.item_ids)):
        mine = data.weights[(data.users == user) & (data.items == item)]
        weight = float(mine.astype(np.float64).mean()) if len(mine) else 0.0
        confidence = 1 + ALPHA * abs(weight)
        total += confidence * (float(weight > 0) - float(x @ Y[item])) ** 2
    return total


def test_a_users_vector_minimises_her_own_regularised_loss() -> None:
    data = some_data()
    Y = np.random.default_rng(0).normal(size=(len(data.item_ids), 3))
    users = np.arange(len(data.user_ids))
    X = UserGradients(data, alpha=ALPHA, regularisation=LAMBDA).vectors(users, Y)
    for user, x in zip(users, X.astype(np.float64), strict=True):
        least = loss(data, user, x, Y) + LAMBDA * x @ x
        for direction in np.vstack([np.eye(3), -np.eye(3)]):
            moved = x + 0.05 * direction
            assert loss(data, user, moved, Y) + LAMBDA * moved @ moved > least


def test_the_gradient_is_the_loss_s_slope_and_its_length_is_told_exactly() -> None:
    data = some_data()
    Y = np.random.default_rng(1).normal(size=(len(data.item_ids), 3))
    found = UserGradients(data, alpha=ALPHA, regularisation=LAMBDA).of(np.array([2, 5]), Y)
    for place, user in enumerate([2, 5]):
        gradient = np.outer(found.r[place], found.x[place])
        assert found.lengths()[place] == pytest.approx(np.linalg.norm(gradient), rel=1e-5)
        x = found.x[place].astype(np.float64)
        for item in range(len(data.item_ids)):
            for column in range(3):
                step = np.zeros_like(Y)
                step[item, column] = 1e-4
                slope = (loss(data, user, x, Y + step) - loss(data, user, x, Y - step)) / 2e-4
                assert gradient[item, column] == pytest.approx(slope, abs=2e-3)
    np.testing.assert_allclose(
        found.total(np.array([0.5, 0.0], np.float32)),
        0.5 * np.outer(found.r[0], found.x[0]),
        rtol=1e-5,
    )
