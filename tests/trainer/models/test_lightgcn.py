"""LightGCN where the answer is known: communities of users and items."""

import numpy as np
import pytest

from rheos.encoder import EncoderContext
from rheos.history_map import HistoryMap
from rheos.state import Float32s, History
from trainer.data_set import DataSet, of_interactions
from trainer.early_stopping import DivergedError
from trainer.models.lightgcn import LightGCN
from trainer.models.model import Fitted, Run, Start

USERS, ITEMS, GROUPS, HELD_BACK = 480, 120, 6, 3

MODEL = LightGCN(
    factors=16, steps=150, batch=512, negatives=1, learning_rate=0.05, half_steps=1e6, last=100
)


def tastes() -> tuple[np.ndarray, np.ndarray]:
    """Who takes what: (USERS, 15) items, most from the user's group, the popular ones more often;
    the last HELD_BACK of each are for the test.
    """
    random = np.random.default_rng(11)
    share = 1 / (1 + np.arange(ITEMS) // GROUPS)
    taken = []
    for user in range(USERS):
        chance = share * np.where(np.arange(ITEMS) % GROUPS == user % GROUPS, 8.0, 0.5)
        taken.append(random.choice(ITEMS, 15, replace=False, p=chance / chance.sum()))
    items = np.array(taken)
    return items[:, :-HELD_BACK], items[:, -HELD_BACK:]


def data_of(taken: np.ndarray, users: np.ndarray) -> DataSet:
    """These users' interactions, and one of a user apart with every item, so that all have rows."""
    width = taken.shape[1]
    return of_interactions(
        [f"u{user:03d}" for user in np.repeat(users, width)] + ["all"] * ITEMS,
        [f"i{item:03d}" for item in taken[users].ravel()] + [f"i{i:03d}" for i in range(ITEMS)],
        np.zeros(len(users) * width + ITEMS, np.int64),
    )


def recall(vectors: Float32s, items: Float32s, had: np.ndarray, wanted: np.ndarray) -> float:
    scores = vectors @ items.T
    np.put_along_axis(scores, had, -np.inf, axis=1)
    top = np.argsort(-scores, axis=1)[:, :10]
    return float(np.mean([np.isin(w, t).mean() for w, t in zip(wanted, top, strict=True)]))


def folded(fitted: Fitted, taken: np.ndarray) -> Float32s:
    row_of = {item: row for row, item in enumerate(fitted.item_ids)}
    context = EncoderContext(row_of, fitted.item_vectors)
    encoder = HistoryMap.load(fitted.encoder, fitted.tensors, context)
    histories = [
        History([f"i{item:03d}" for item in items], np.ones(len(items), np.float32), items)
        for items in taken
    ]
    return encoder.encode(histories)


def test_a_folded_in_user_has_95_percent_of_a_fitted_user_s_recall() -> None:
    taken, wanted = tastes()
    everybody = np.arange(USERS)
    held = np.sort(np.random.default_rng(0).choice(USERS, USERS // 4, replace=False))
    whole = MODEL.fit(data_of(taken, everybody), Run(seed=1))
    rest = MODEL.fit(data_of(taken, np.setdiff1d(everybody, held)), Run(seed=1))
    fitted = whole.user_vectors[1:][held]  # "all" sorts first
    had, left = taken[held], wanted[held]
    with_them = recall(fitted, whole.item_vectors, had, left)
    without = recall(folded(rest, had), rest.item_vectors, had, left)
    random = recall(
        np.random.default_rng(0).normal(size=fitted.shape), rest.item_vectors, had, left
    )
    assert with_them > 2 * random
    assert without >= 0.95 * with_them


def test_threads_change_the_numbers_by_rounding_only() -> None:
    taken, _ = tastes()
    data = data_of(taken, np.arange(USERS))
    model = LightGCN(factors=8, steps=5, batch=256)
    one, three = (model.fit(data, Run(threads=threads)) for threads in (1, 3))
    np.testing.assert_allclose(one.item_vectors, three.item_vectors, atol=1e-3)


def test_a_warm_start_goes_on_from_what_was_kept() -> None:
    taken, _ = tastes()
    data = data_of(taken, np.arange(USERS))
    first = MODEL.fit(data, Run(seed=1))
    start = Start(data.user_ids, data.item_ids, first.keep)
    # One step too small to change anything but the last bits.
    still = LightGCN(factors=16, steps=1, batch=64, learning_rate=1e-9)
    again = still.fit(data, Run(seed=2, start=start))
    np.testing.assert_allclose(again.item_vectors, first.item_vectors, atol=1e-6)
    other = still.fit(data, Run(seed=2))
    assert np.abs(other.item_vectors - first.item_vectors).max() > 0.1


def test_a_fit_that_goes_astray_is_stopped() -> None:
    taken, _ = tastes()
    data = data_of(taken, np.arange(USERS))
    with pytest.raises(DivergedError):
        LightGCN(factors=8, steps=300, batch=64, learning_rate=1e30).fit(data, Run())


def test_it_can_be_watched() -> None:
    taken, _ = tastes()
    told: list[tuple[int, tuple[int, ...]]] = []
    data = data_of(taken, np.arange(20))
    model = LightGCN(factors=4, steps=120, batch=32)
    model.watched(data, Run(), lambda done, e: told.append((done, tuple(e.shape))))
    shape = (21, ITEMS)
    assert told == [(done, (sum(shape), 4)) for done in (50, 100, 120)]


@pytest.mark.parametrize(("users", "batch"), [(USERS, 1024), (6000, 6000 * 4 // 16)])
def test_by_default_a_step_draws_as_the_edges_are_many(users: int, batch: int) -> None:
    random = np.random.default_rng(0)
    taken = np.array([random.choice(ITEMS, 4, replace=False) for _ in range(users)])
    data = of_interactions(
        [f"u{user:04d}" for user in np.repeat(np.arange(users), 4)],
        [f"i{item:03d}" for item in taken.ravel()],
        np.zeros(taken.size, np.int64),
    )
    by_default, told = (
        LightGCN(factors=4, steps=3, **size).fit(data, Run(seed=3))
        for size in ({}, {"batch": batch})
    )
    np.testing.assert_array_equal(by_default.item_vectors, told.item_vectors)


def test_early_stopping_keeps_the_best_and_ends_at_the_total() -> None:
    taken, _ = tastes()
    data = data_of(taken, np.arange(USERS))
    model = LightGCN(factors=16, steps=5000, batch=256, negatives=1, learning_rate=0.05, patience=2)
    told: list[int] = []
    seen: dict[int, np.ndarray] = {}
    fitted = model.watched(
        data,
        Run(progress=lambda stage, done, total: told.append(done)),
        lambda done, embeddings: seen.update({done: embeddings.numpy().copy()}),
    )
    assert told[-1] == 5000
    last = max(seen)
    assert last < 2500
    kept = np.concatenate([fitted.keep["user.embeddings"], fitted.keep["item.embeddings"]])
    np.testing.assert_array_equal(kept, seen[last - 2 * 50])
