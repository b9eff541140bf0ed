"""Folded-in users are served nearly as well as fitted ones: a guard on small data."""

from typing import Any

import numpy as np
import pytest

from rheos.generation import Generation
from trainer import fitting
from trainer.data_set import DataSet, of_interactions
from trainer.evaluation import refit, served
from trainer.evaluation.fidelity import Fidelity, Hidden, fold_in_fidelity, hide
from trainer.models import model_of
from trainer.models.model import Run

UNDAMPED: dict[str, dict[str, Any]] = {
    "als": {"factors": 8, "half_steps": 1e9, "floor": 0.0, "last": 100},
    "mf": {"factors": 8, "epochs": 300, "negatives": 4, "learning_rate": 0.01}
    | {"regularisation": 0.05},
    "gmf": {"factors": 8, "epochs": 25, "negatives": 4, "regularisation": 0.05},
}


def tastes() -> DataSet:
    """600 users of four tastes that overlap, over 80 items."""
    random = np.random.default_rng(0)
    chances = np.full((4, 80), 0.02)
    for taste in range(4):
        chances[taste, np.arange(20 * taste, 20 * taste + 30) % 80] = 0.5
    users, items = np.nonzero(random.random((600, 80)) < chances[np.arange(600) % 4])
    return of_interactions(
        [f"u{user:03d}" for user in users],
        [f"i{item:02d}" for item in items],
        np.arange(len(users)),
    )


def test_what_is_hidden_is_in_neither_fit_and_the_users_are_only_in_one() -> None:
    data = tastes()
    hidden = hide(data, 30, 0.2, np.random.default_rng(1))
    assert len(hidden.users) == 30
    pairs = set(zip(hidden.all_users.users.tolist(), hidden.all_users.items.tolist(), strict=True))
    for user, history, targets in zip(hidden.users, hidden.histories, hidden.targets, strict=True):
        mine = {data.item_ids[item] for row, item in pairs if row == user}
        assert mine == set(history.item_ids)
        assert targets
        assert not mine & set(targets)
        assert data.user_ids[user] not in hidden.without.user_ids


def test_nobody_with_three_items_is_said_so() -> None:
    with pytest.raises(ValueError, match="three items"):
        hide(of_interactions(["a"], ["b"], [1]), 5, 0.2, np.random.default_rng(0))


@pytest.mark.parametrize("name", UNDAMPED)
def test_a_folded_in_user_finds_nearly_as_much_as_a_fitted_one(name: str) -> None:
    hidden = hide(tastes(), 60, 0.3, np.random.default_rng(2))
    found = fold_in_fidelity(model_of(name, UNDAMPED[name]), hidden, 10, Run())
    assert found.fitted > 0.3
    assert found.kept >= 0.95


def test_neumf_served_finds_nearly_as_much_as_its_ranker_of_fitted_users() -> None:
    hidden = hide(tastes(), 60, 0.3, np.random.default_rng(2))
    model = model_of(
        "neumf",
        {"factors": 8, "mlp_factors": 8, "gmf_epochs": 150, "negatives": 4}
        | {"gmf_learning_rate": 0.03, "regularisation": 0.05},
    )
    fitted = fitting.fit(model, hidden.all_users, Run())
    generation = refit.in_memory(fitting.make(1, model, fitted, hidden.all_users, {}))
    assert generation.ranker is not None
    rows = np.arange(len(generation.item_ids))
    offline = [generation.ranker.score(fitted.user_vectors[user], rows) for user in hidden.users]
    found = served.scores(generation, hidden.histories, [None] * len(hidden.users), depth=40)
    assert recall(generation, list(found), hidden) >= 0.97 * recall(generation, offline, hidden)
    assert recall(generation, offline, hidden) > 0.3


def recall(generation: Generation, scores: list[Any], hidden: Hidden, k: int = 10) -> float:
    """Of the hidden items, among those that a user does not have."""
    hits = []
    for own, history, targets in zip(scores, hidden.histories, hidden.targets, strict=True):
        left = np.array(own, np.float64)
        left[[generation.row_of[item] for item in history.item_ids]] = -np.inf
        best = {generation.item_ids[row] for row in np.argsort(-left)[:k]}
        hits.append(len(best & set(targets)) / min(k, len(targets)))
    return float(np.mean(hits))


def test_kept_is_the_share_of_the_fitted_users_recall() -> None:
    assert Fidelity(0.5, 0.4, 3).kept == pytest.approx(0.8)
