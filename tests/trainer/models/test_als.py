"""Implicit ALS against the slow, obvious solution of the paper's equations."""

import numpy as np
import pytest

from trainer.data_set import DataSet, of_interactions, pairs
from trainer.models import als as als_module
from trainer.models.als import Als
from trainer.models.model import Fitted, Run, Start


def some_data(seed: int = 0, users: int = 30, items: int = 20, count: int = 250) -> DataSet:
    random = np.random.default_rng(seed)
    weights = random.choice([0.01, 0.4, 1.0, -1.0], count)
    return of_interactions(
        [f"u{row}" for row in random.integers(users, size=count)],
        [f"i{row}" for row in random.integers(items, size=count)],
        np.arange(count),
        weights,
    )


def fit(model: Als, data: DataSet, threads: int = 1) -> Fitted:
    return model.fit(data, Run(seed=1, threads=threads))


def confidences(model: Als, data: DataSet) -> tuple[np.ndarray, np.ndarray]:
    """C and P of the paper as dense matrices, from the interactions one by one."""
    total = np.zeros((len(data.user_ids), len(data.item_ids)))
    count = np.zeros_like(total)
    for user, item, weight in zip(data.users, data.items, data.weights, strict=True):
        total[user, item] += weight
        count[user, item] += 1
    mean = np.divide(total, count, out=np.zeros_like(total), where=count > 0)
    confidence = model.alpha * np.abs(mean) * (1 + np.log1p(count))
    return np.where(count > 0, np.maximum(confidence, 1.0), 1.0), (mean > 0).astype(float)


def loss(model: Als, data: DataSet, X: np.ndarray, Y: np.ndarray) -> float:
    C, P = confidences(model, data)
    squares = float((X**2).sum() + (Y**2).sum())
    return float((C * (P - X @ Y.T) ** 2).sum()) + model.regularisation * squares


def test_a_row_is_the_solution_of_equation_4_when_enough_steps_are_taken() -> None:
    model = Als(factors=6, iterations=3, cg_steps=60)
    data = some_data()
    fitted = fit(model, data)
    C, P = confidences(model, data)
    X = fitted.user_vectors.astype(np.float64)
    # Items are solved last, with the users fixed: theirs are the exact solutions.
    for item in range(len(data.item_ids)):
        D = np.diag(C[:, item])
        system = X.T @ D @ X + model.regularisation * np.eye(model.factors)
        expected = np.linalg.solve(system, X.T @ D @ P[:, item])
        np.testing.assert_allclose(fitted.item_vectors[item], expected, rtol=2e-3, atol=2e-4)


def test_three_steps_come_to_about_the_same_loss_as_exact_solutions() -> None:
    data = some_data()
    quick = fit(Als(factors=6, iterations=15), data)
    exact = fit(Als(factors=6, iterations=15, cg_steps=60), data)
    model = Als(factors=6)
    found = loss(model, data, quick.user_vectors, quick.item_vectors)
    assert found < 1.1 * loss(model, data, exact.user_vectors, exact.item_vectors)


def test_each_sweep_lowers_the_loss() -> None:
    data, losses = some_data(), []
    for iterations in range(1, 8):
        model = Als(factors=6, iterations=iterations)
        fitted = fit(model, data)
        losses.append(loss(model, data, fitted.user_vectors, fitted.item_vectors))
    assert losses == sorted(losses, reverse=True)


def test_a_warm_start_goes_on_where_the_last_fit_ended() -> None:
    data, model = some_data(), Als(factors=6, iterations=1)
    last = fit(Als(factors=6, iterations=8), data)
    warm = model.fit(data, Run(seed=2, start=Start(data.user_ids, data.item_ids, last.keep)))
    before = loss(model, data, last.user_vectors, last.item_vectors)
    assert loss(model, data, warm.user_vectors, warm.item_vectors) <= before
    cold = fit(model, data)
    assert loss(model, data, cold.user_vectors, cold.item_vectors) > 1.2 * before


@pytest.mark.parametrize("block", [1, 7, 64, 100_000])
def test_the_size_of_the_blocks_does_not_matter(
    monkeypatch: pytest.MonkeyPatch, block: int
) -> None:
    data = some_data()
    expected = fit(Als(factors=5, iterations=4), data)
    monkeypatch.setattr(als_module, "BLOCK_PAIRS", block)
    found = fit(Als(factors=5, iterations=4), data)
    np.testing.assert_allclose(found.item_vectors, expected.item_vectors, rtol=1e-3, atol=1e-4)


def test_the_number_of_threads_does_not_matter_to_the_last_bit() -> None:
    data = some_data()
    one, three = (fit(Als(factors=5, iterations=4), data, threads) for threads in (1, 3))
    np.testing.assert_array_equal(one.item_vectors, three.item_vectors)


def test_blocks_hold_each_pair_once() -> None:
    data = some_data()
    found = pairs(data)
    extra = np.arange(1, len(found.users) + 1, dtype=np.float32)
    blocks = als_module._blocks(found.users, found.items, extra, extra, len(data.user_ids))
    told = [
        (int(block.rows[place]), int(block.others[place, n]), float(value))
        for block in blocks
        for (place, n), value in np.ndenumerate(block.extra)
        if value
    ]
    expected = zip(found.users.tolist(), found.items.tolist(), extra.tolist(), strict=True)
    assert sorted(told) == sorted(expected)
    rows = np.concatenate([block.rows for block in blocks])
    assert sorted(rows.tolist()) == list(range(len(data.user_ids)))


def test_a_disliked_item_scores_below_one_that_was_never_seen() -> None:
    users = [f"u{n}" for n in range(20)]
    data = of_interactions(
        [*users, *users, "u0", "judge", "judge"],
        [*(["liked"] * 20), *(["other"] * 20), "third", "liked", "other"],
        np.arange(43),
        [1.0] * 42 + [-1.0],
    )
    fitted = fit(Als(factors=4), data)
    scores = fitted.user_vectors[data.user_ids.index("judge")] @ fitted.item_vectors.T
    by_name = dict(zip(data.item_ids, scores, strict=True))
    assert by_name["liked"] > 0.5 > by_name["other"]
