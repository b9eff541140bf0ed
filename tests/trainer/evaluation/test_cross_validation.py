"""Folds: everything is held out once, and what is held out is not fitted on."""

import numpy as np
import pytest

from trainer.data_set import of_interactions
from trainer.evaluation import cross_validation


def data_of(count=400, times=50):
    random = np.random.default_rng(0)
    users = [f"u{n}" for n in random.integers(0, 20, count)]
    items = [f"i{n:03}" for n in range(count)]  # each once: all of them are new
    return of_interactions(users, items, random.integers(0, times, count))


def events_of(data):
    return {
        (data.user_ids[user], data.item_ids[item], int(time_ms))
        for user, item, time_ms in zip(data.users, data.items, data.times_ms, strict=True)
    }


def test_each_interaction_is_to_be_found_once_and_never_fitted_on_then():
    data = data_of()
    found: list[str] = []
    for fold in cross_validation.folds(data, 5, "interactions", seed=1):
        wanted = {item for items in fold.wanted.values() for item in items}
        assert not wanted & set(fold.train.item_ids)
        assert events_of(fold.known) == events_of(fold.train)
        found += wanted
    assert sorted(found) == data.item_ids


def test_a_basket_stays_together():
    data = data_of(times=4)
    basket_of = {item: (user, time_ms) for user, item, time_ms in events_of(data)}
    for fold in cross_validation.folds(data, 3, "interactions", seed=1):
        held_out = {basket_of[item] for items in fold.wanted.values() for item in items}
        assert not held_out & {basket_of[item] for item in fold.train.item_ids}


def test_without_times_the_pairs_are_divided():
    fold = next(cross_validation.folds(data_of(times=1), 4, "interactions", seed=1))
    assert 0.2 < sum(map(len, fold.wanted.values())) / 400 < 0.3
    assert len(fold.train.user_ids) == 20


def test_the_users_of_a_fold_are_strangers_to_the_fit_and_found_is_what_came_later():
    data = data_of()
    judged: list[str] = []
    for fold in cross_validation.folds(data, 4, "users", seed=1):
        assert not set(fold.wanted) & set(fold.train.user_ids)
        time_of = {item: time_ms for _, item, time_ms in events_of(data)}
        for user, history in zip(fold.wanted, fold.histories(1000), strict=True):
            assert history.times_ms.max() < min(time_of[item] for item in fold.wanted[user])
            assert len(history.item_ids) / (data.users == data.user_ids.index(user)).sum() > 0.6
        judged += fold.wanted
    assert sorted(judged) == data.user_ids


@pytest.mark.parametrize(
    ("count", "unit", "told"),
    [(1, "users", "at least 2"), (21, "users", "20 users"), (999, "interactions", "interactions")],
)
def test_folds_that_make_no_sense_are_refused(count, unit, told):
    with pytest.raises(ValueError, match=told):
        next(cross_validation.folds(data_of(), count, unit, seed=0))


def test_users_without_a_past_cannot_be_judged():
    with pytest.raises(ValueError, match="nothing to find"):
        next(cross_validation.folds(data_of(times=1), 4, "users", seed=0))
