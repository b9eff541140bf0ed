"""What a fit holds out for itself, and how it measures itself on it."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trainer.data_set import DataSet, of_interactions
from trainer.early_stopping import DivergedError
from trainer.evaluation import metrics
from trainer.models.model import Start
from trainer.validation import HeldOut, Score, Validation, hold_out

Row = tuple[str, str, int, float]


def data_of(rows: list[Row]) -> DataSet:
    users, items, times, weights = (list(column) for column in zip(*rows, strict=True))
    return of_interactions(users, items, times, weights)


def held_out(rows: list[Row], most: int = 100) -> tuple[DataSet, HeldOut, dict[str, str]]:
    """The data set, what is held out, and the latter as {user: item}."""
    data = data_of(rows)
    found = hold_out(data, most, np.random.default_rng(0))
    told = {
        data.user_ids[user]: data.item_ids[item]
        for user, item in zip(found.users, found.items, strict=True)
    }
    return data, found, told


def test_the_last_item_of_each_user_is_held_out() -> None:
    rows = [("a", "x", 1, 1.0), ("a", "y", 2, 1.0), ("b", "y", 1, 1.0), ("b", "z", 3, 1.0)]
    data, found, told = held_out(rows)
    assert told == {"a": "y", "b": "z"}
    assert found.train.user_ids == data.user_ids
    assert found.train.item_ids == data.item_ids  # z too, though nothing is left of it
    assert found.train.items.tolist() == [0, 1]


def test_dislikes_and_items_had_before_are_no_targets_and_later_ones_leave() -> None:
    rows = [
        ("a", "w", 1, 1.0),
        ("a", "x", 2, 1.0),
        ("a", "w", 3, 1.0),
        ("a", "y", 4, -1.0),
    ]
    _, found, told = held_out(rows)
    assert told == {"a": "x"}
    assert found.train.times_ms.tolist() == [1]


def test_users_who_would_keep_nothing_positive_stay_whole() -> None:
    rows = [("a", "x", 1, -1.0), ("a", "y", 2, 1.0), ("b", "x", 1, 1.0), ("c", "x", 1, -1.0)]
    data, found, told = held_out(rows)
    assert told == {}
    assert len(found.train) == len(data)
    assert np.isnan(found.ndcg(lambda users: np.zeros((len(users), 2), np.float32)))


def test_a_basket_leaves_as_a_whole_and_its_target_is_one_of_chance() -> None:
    basket = [("a", f"item {number:02d}", 5, 1.0) for number in range(20)]
    _, found, told = held_out([("a", "first", 1, 1.0), *basket])
    assert found.train.times_ms.tolist() == [1]
    assert told["a"] != "item 19"  # of the rows' order nothing shows
    _, _, shuffled = held_out([*reversed(basket), ("a", "first", 1, 1.0)])
    assert shuffled["a"] not in ("item 00", "first")


def test_without_times_one_item_of_a_user_is_held_out_wherever_it_stands() -> None:
    rows = [("a", item, 0, 1.0) for item in ("x", "y", "z", "x", "y", "z")]
    data, found, told = held_out(rows)
    assert len(found.train) == 4
    assert data.item_ids.index(told["a"]) not in found.train.items


def test_so_many_users_are_drawn_by_the_generator_alone() -> None:
    rows = [(f"u{user}", f"i{time}", time, 1.0) for user in range(50) for time in range(3)]
    data = data_of(rows)
    first, second = (hold_out(data, 10, np.random.default_rng(7)) for _ in range(2))
    assert len(first.users) == 10
    np.testing.assert_array_equal(first.users, second.users)
    assert len(first.train) == len(data) - 10
    other = hold_out(data, 10, np.random.default_rng(8))
    assert first.users.tolist() != other.users.tolist()


@settings(deadline=None)
@given(
    rows=st.lists(
        st.tuples(
            st.sampled_from("abc"),
            st.sampled_from("vwxyz"),
            st.integers(0, 4),
            st.sampled_from([1.0, 1.0, -1.0]),
        ),
        min_size=1,
    )
)
def test_no_target_is_left_in_training_and_nothing_in_training_is_later(rows: list[Row]) -> None:
    data, found, _ = held_out(rows)
    for user, item in zip(found.users, found.items, strict=True):
        mine = found.train.users == user
        assert item not in found.train.items[mine]
        assert (found.train.weights[mine] > 0).any()
        taken = data.times_ms[(data.users == user) & (data.items == item)]
        if data.times_ms[data.users == user].min() < taken.min():
            assert found.train.times_ms[mine].max() < taken.max()
    others = ~np.isin(data.users, found.users)
    assert len(found.train.users[~np.isin(found.train.users, found.users)]) == others.sum()


def test_ndcg_is_that_of_each_users_ranking_without_what_she_has() -> None:
    random = np.random.default_rng(1)
    rows = [
        (f"u{user}", f"i{item}", int(time), 1.0)
        for user in range(30)
        for time, item in enumerate(random.permutation(40)[:6])
    ]
    data, found, _ = held_out(rows)
    scores = random.integers(0, 9, (30, len(data.item_ids))).astype(np.float32)
    better, tied = [], []
    for user, item in zip(found.users, found.items, strict=True):
        own = scores[user].copy()
        own[found.train.items[found.train.users == user]] = -np.inf
        above, beside = metrics.compare(own, int(item))
        better.append(above)
        tied.append(beside)
    slow = metrics.of_targets(better, tied, 5).ndcg
    assert found.ndcg(lambda users: scores[users], 5) == pytest.approx(slow)


def test_scores_that_are_not_finite_are_divergence() -> None:
    _, found, _ = held_out([("a", "x", 1, 1.0), ("a", "y", 2, 1.0)])
    with pytest.raises(DivergedError, match="not finite"):
        found.ndcg(lambda users: np.full((len(users), 2), np.nan, np.float32))


SHOP = data_of(
    [
        (f"u{user:02d}", f"i{(user + time) % 9}", time, 1.0)
        for user in range(40)
        for time in range(5)
    ]
)


class Fit:
    """Its state is how many steps it made; at one alone it ranks the held-out items highest, at
    all others it ranks nothing.
    """

    def __init__(self, data: DataSet, best: int) -> None:
        self.data, self.best, self.step = data, best, 0

    def scores(self) -> Score:
        def score(users: np.ndarray) -> np.ndarray:
            found = np.zeros((len(users), len(self.data.item_ids)), np.float32)
            if self.step == self.best:
                found[np.arange(len(users)), (users + 4) % 9] = 1.0
            return found

        return score


def test_a_fit_ends_after_so_many_looks_without_a_gain_and_the_best_is_kept() -> None:
    validation = Validation[int](SHOP, 3, None, np.random.default_rng(0))
    assert len(validation.train) == len(SHOP) - 2  # one user in twenty
    fit = Fit(SHOP, best=2)
    for step in range(100):
        fit.step = step
        validation.check(1.0)
        if validation.ends(step, fit.scores, lambda: fit.step):
            break
    assert (fit.step, validation.best) == (5, 2)
    curve = validation.curve()
    assert curve["loss"] == [1.0] * 6
    assert curve["ndcg@20"][2] == max(curve["ndcg@20"]) == 1.0


@pytest.mark.parametrize(("patience", "start"), [(0, None), (3, Start([], [], {}))])
def test_without_patience_and_from_a_start_all_is_learned_and_nothing_ends(
    patience: int, start: Start | None
) -> None:
    validation = Validation[int](SHOP, patience, start, np.random.default_rng(0))
    assert validation.train is SHOP

    def never() -> Score:
        raise AssertionError("nothing is held out")

    assert not any(validation.ends(step, never, lambda: 0) for step in range(9))
    assert validation.best is None
    with pytest.raises(DivergedError):
        validation.check(float("nan"))


def test_of_too_few_users_nobody_is_held_out_and_nothing_ends() -> None:
    few = SHOP.where(SHOP.users < 19)
    validation = Validation[int](few, 1, None, np.random.default_rng(0))
    assert len(validation.train) == len(few)
    fit = Fit(few, best=-1)
    assert not any(validation.ends(step, fit.scores, lambda: 0) for step in range(9))
