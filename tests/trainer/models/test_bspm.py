"""BSPM against the differential equations of the paper, solved step by step."""

from collections.abc import Callable

import numpy as np
from scipy import sparse

from rheos.state import Float32s, Float64s, History
from trainer.data_set import DataSet, of_interactions
from trainer.models.bspm import Bspm
from trainer.models.low_rank import low_rank
from trainer.models.model import Fitted, Run

USERS, ITEMS = 40, 25


def some_data() -> DataSet:
    random = np.random.default_rng(5)
    users, items = random.integers(USERS, size=300), random.integers(ITEMS, size=300)
    return of_interactions(
        [f"u{user:02d}" for user in users], [f"i{item:02d}" for item in items], np.arange(300)
    )


def matrix(data: DataSet) -> Float64s:
    R = np.zeros((len(data.user_ids), len(data.item_ids)))
    R[data.users, data.items] = 1
    return R


def runge_kutta(change: Callable[[Float64s], Float64s], start: Float64s, step: float) -> Float64s:
    """One step of the classical fourth-order method."""
    a = change(start)
    b = change(start + step / 2 * a)
    c = change(start + step / 2 * b)
    d = change(start + step * c)
    return start + step / 6 * (a + 2 * b + 2 * c + d)


def expected(R: Float64s, rank: int, low_pass: float, sharpening: float) -> Float64s:
    """The scores of all users, from the paper's equations on dense matrices."""
    user, item = R.sum(1, keepdims=True), R.sum(0, keepdims=True)
    normalised = R / np.sqrt(user * item)
    V = np.linalg.svd(normalised)[2][:rank].T
    P = normalised.T @ normalised
    root, inverse = np.diag(item[0] ** 0.5), np.diag(item[0] ** -0.5)
    ideal = R + (R @ inverse @ V @ V.T @ root - R)  # one Euler step of length 1
    blurred = R + (R @ P - R)  # likewise
    return runge_kutta(lambda r: -r @ P, low_pass * ideal + blurred, sharpening)


def test_the_operator_solves_the_paper_s_equations() -> None:
    data = some_data()
    model = Bspm(rank=6, low_pass=0.3, sharpening=1.7)
    R = matrix(data)
    found = model.operator(data, seed=0).scores(sparse.csr_array(R))
    np.testing.assert_allclose(found, expected(R, 6, 0.3, 1.7), atol=2e-4)


def test_the_two_products_are_each_other_s_transpose() -> None:
    operator = Bspm(rank=6).operator(some_data(), seed=0)
    one = np.eye(ITEMS, dtype=np.float32)
    np.testing.assert_allclose(operator.times(one), operator.times_transposed(one).T, atol=1e-5)


def fit(**parameters: float) -> Fitted:
    return Bspm(rank=6, half_steps=1e9, last=100, **parameters).fit(some_data(), Run())


def weights_of(fitted: Fitted) -> Float32s:
    found = fitted.item_weights
    assert found is not None
    shape = (ITEMS, ITEMS)
    return sparse.csr_array((found.weights, found.targets, found.starts), shape).toarray()


def test_item_weights_are_the_operator_s_largest_without_its_diagonal() -> None:
    data = some_data()
    whole = Bspm(rank=6).operator(data, seed=0).times(np.eye(ITEMS, dtype=np.float32))
    np.fill_diagonal(whole, 0)
    np.testing.assert_allclose(weights_of(fit(weights=ITEMS)), whole, atol=1e-5)
    few = weights_of(fit(weights=5))
    for row, kept in zip(whole, few, strict=True):
        places = np.flatnonzero(kept)
        assert len(places) <= 5
        np.testing.assert_allclose(kept[places], row[places], atol=1e-5)
        assert np.abs(kept[places]).min() >= np.sort(np.abs(row))[-5] - 1e-5


def test_all_weights_rank_a_history_as_the_operator_does() -> None:
    data = some_data()
    found = fit(weights=ITEMS).item_weights
    assert found is not None
    past = History(["i03", "i07", "i11"], np.ones(3, np.float32), np.arange(3))
    rows = {name: row for row, name in enumerate(data.item_ids)}
    scores = found.scores(found.read(past, rows)).of(np.arange(ITEMS))
    history = np.zeros((1, ITEMS))
    history[0, [3, 7, 11]] = 1
    exact = Bspm(rank=6).operator(data, seed=0).scores(sparse.csr_array(history))[0]
    others = np.setdiff1d(np.arange(ITEMS), [3, 7, 11])
    np.testing.assert_allclose(scores[others], exact[others], atol=1e-5)


def test_vectors_of_full_rank_are_the_operator() -> None:
    fitted = fit(factors=ITEMS, weights=3)
    product = fitted.tensors["encoder.features"] @ fitted.item_vectors.T
    whole = Bspm(rank=6).operator(some_data(), seed=0).times(np.eye(ITEMS, dtype=np.float32))
    np.testing.assert_allclose(product, whole, atol=1e-4)


def test_the_largest_singular_values_and_vectors_are_found() -> None:
    random = np.random.default_rng(0)
    left, _ = np.linalg.qr(random.normal(size=(90, 60)))
    right, _ = np.linalg.qr(random.normal(size=(60, 60)))
    sizes = 0.9 ** np.arange(60)
    a = ((left * sizes) @ right.T).astype(np.float32)
    found = low_rank(lambda x: a @ x, lambda x: a.T @ x, 60, 8, seed=0)
    np.testing.assert_allclose(found.sizes, sizes[:8], rtol=1e-4)
    best = (left[:, :8] * sizes[:8]) @ right[:, :8].T
    np.testing.assert_allclose((found.left * found.sizes) @ found.right.T, best, atol=1e-3)
    np.testing.assert_allclose(found.right.T @ found.right, np.eye(8), atol=1e-5)


def test_a_rank_above_the_map_s_is_cut_to_it() -> None:
    a = np.ones((3, 5), np.float32)
    found = low_rank(lambda x: a @ x, lambda x: a.T @ x, 5, 50, seed=0)
    assert found.left.shape == (3, 3)
    assert found.right.shape == (5, 3)
    np.testing.assert_allclose((found.left * found.sizes) @ found.right.T, a, atol=1e-5)
