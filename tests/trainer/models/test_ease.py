"""EASE against the paper's formulas on small data, its approximations, and what a session is."""

import itertools

import numpy as np
import pytest

from rheos.settings import Settings
from rheos.state import History
from trainer.data_set import DataSet, of_interactions
from trainer.models import ease
from trainer.models.ease import Ease
from trainer.models.model import Run

MINUTE_MS = 60_000
NOW_MS = 1_300_000_000_000


def drawn(seed: int = 0, users: int = 30, items: int = 15) -> DataSet:
    """Users with sessions of a few items; times within a session are often equal."""
    random = np.random.default_rng(seed)
    rows: list[tuple[str, str, int, float]] = []
    for user in range(users):
        for day in range(int(random.integers(1, 4))):
            for _ in range(int(random.integers(1, 7))):
                item = int(random.zipf(1.5)) % items
                minute = 1440 * day + int(random.integers(20))
                weight = float(random.choice([1.0, 0.4, -1.0], p=[0.6, 0.3, 0.1]))
                rows.append((f"u{user}", f"i{item:02d}", NOW_MS + minute * MINUTE_MS, weight))
    users_, items_, times, weights = zip(*rows, strict=True)
    return of_interactions(users_, items_, times, np.array(weights, np.float32))


def slow_weights(data: DataSet, model: Ease) -> np.ndarray:
    """Eq. 8 in double precision, from the data set's rows one by one; (N, N)."""
    sessions: dict[tuple[int, int], dict[int, float]] = {}
    ends: dict[tuple[int, int], int] = {}
    number = 0
    last: dict[int, int] = {}
    for user, item, time, weight in zip(
        data.users, data.items, data.times_ms, data.weights, strict=True
    ):
        if weight <= 0:
            continue
        if user not in last or time - last[user] > 1000 * model.session_gap_s:
            number += 1
        last[user] = time
        own = sessions.setdefault((user, number), {})
        own[item] = max(own.get(item, 0.0), float(weight))
        ends[user, number] = time
    items = len(data.item_ids)
    gram = model.regularisation * np.eye(items)
    counts = np.zeros(items)
    newest = max(ends.values())
    for key, own in sessions.items():
        joins = [1 / np.sqrt(size + 1) for size in range(1, len(own)) for _ in range(size)]
        weight = float(np.mean(joins)) if joins else 1.0
        if model.half_life_days:
            weight *= 0.5 ** ((newest - ends[key]) / (86_400_000 * model.half_life_days))
        for one, other in itertools.product(own, own):
            kept = 1 / (1 - model.dropout) if one == other else 1.0
            gram[one, other] += kept * weight * own[one] * own[other]
        for item in own:
            counts[item] += 1
    inverse = np.linalg.inv(gram)
    weights = -inverse / np.diag(inverse)
    np.fill_diagonal(weights, 0.0)
    return weights / (counts + 1) ** model.damping


def dense(model: Ease, data: DataSet) -> np.ndarray:
    found = model.item_weights(data, Run())
    out = np.zeros((len(found), len(found)))
    for row in range(len(found)):
        places = slice(found.starts[row], found.starts[row + 1])
        out[row, found.targets[places]] = found.weights[places]
    return out


@pytest.mark.parametrize(
    "model",
    [Ease(), Ease(half_life_days=2.0, damping=0.5, dropout=0.0), Ease(regularisation=0.1)],
)
@pytest.mark.parametrize("seed", range(3))
def test_the_weights_are_the_papers(model: Ease, seed: int) -> None:
    data = drawn(seed)
    np.testing.assert_allclose(dense(model, data), slow_weights(data, model), atol=2e-6)


def test_regression_on_all_others_is_the_inverse() -> None:
    data = drawn(4, users=100, items=8)  # each item meets each other one
    blocks = Ease(exact_items=0, neighbours=2000)
    np.testing.assert_allclose(dense(blocks, data), slow_weights(data, blocks), atol=2e-6)


def test_regression_on_few_neighbours_comes_close_and_keeps_to_them() -> None:
    data = drawn(5, users=200, items=40)
    exact = dense(Ease(), data)
    cosines = []
    for neighbours in (5, 15, 30):
        near = dense(Ease(exact_items=0, neighbours=neighbours), data)
        assert ((near != 0).sum(axis=0) <= neighbours).all()
        lengths = np.linalg.norm(exact) * np.linalg.norm(near)
        cosines.append(exact.ravel() @ near.ravel() / lengths)
    assert cosines == sorted(cosines)
    assert cosines[-1] > 0.97


@pytest.mark.parametrize("exact_items", [0, 1000])
def test_the_largest_weights_by_size_are_kept(exact_items: int) -> None:
    data = drawn(6)
    whole = dense(Ease(exact_items=exact_items), data)
    few = dense(Ease(exact_items=exact_items, weights=4), data)
    assert ((few != 0).sum(axis=1) <= 4).all()
    kept = few != 0
    np.testing.assert_allclose(few[kept], whole[kept])


def test_many_rows_are_cut_and_regressed_in_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    data = drawn(7)
    models = [Ease(weights=5), Ease(weights=5, exact_items=0, neighbours=8)]
    whole = [dense(model, data) for model in models]
    monkeypatch.setattr(ease, "BLOCK_CELLS", 60)  # four items at once
    for model, expected in zip(models, whole, strict=True):
        np.testing.assert_allclose(dense(model, data), expected, rtol=1e-5)
        threads = model.item_weights(data, Run(threads=3))
        np.testing.assert_array_equal(
            threads.weights, model.item_weights(data, Run(threads=1)).weights
        )


def test_the_size_of_a_session_counts_as_its_lines_would_one_by_one() -> None:
    weights = ease._of_size(np.array([0, 1, 2, 3, 50]))
    assert weights[:3] == pytest.approx([1.0, 1.0, 1 / np.sqrt(2)])
    assert weights[3] == pytest.approx((1 / np.sqrt(2) + 2 / np.sqrt(3)) / 3)
    slow = [1 / np.sqrt(size + 1) for size in range(1, 50) for _ in range(size)]
    assert weights[4] == pytest.approx(np.mean(slow))


def test_equal_times_are_one_session_and_a_gap_parts_two() -> None:
    apart = of_interactions(["u"] * 3, ["a", "b", "c"], [0, 0, 1_800_001])
    sessions = ease._sessions(apart, 1_800_000, 0.0)
    assert sessions.matrix.toarray().tolist() == [[1, 1, 0], [0, 0, 1]]
    two_users = of_interactions(["u", "v"], ["a", "b"], [0, 0])
    assert ease._sessions(two_users, 1_800_000, 0.0).matrix.toarray().tolist() == [[1, 0], [0, 1]]


def test_of_a_session_without_end_the_newest_items_count(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ease, "MOST_ITEMS", 3)
    data = of_interactions(["u"] * 6, ["a", "b", "c", "a", "d", "b"], list(range(6)))
    assert ease._sessions(data, 1000, 0.0).matrix.toarray().tolist() == [[1, 1, 0, 1]]


def test_an_item_taken_more_than_once_has_its_largest_weight() -> None:
    data = of_interactions(["u"] * 3, ["a", "a", "b"], [0, 1, 2], np.array([0.4, 1, 0.6], "f4"))
    matrix = ease._sessions(data, 1000, 0.0).matrix.toarray()
    np.testing.assert_allclose(matrix, [[1.0, 0.6]], rtol=1e-6)


def test_vectors_of_full_length_give_the_weights_back() -> None:
    model = Ease(factors=64)
    fitted = model.fit(drawn(8), Run())
    assert fitted.item_weights is not None
    product = fitted.tensors["encoder.features"] @ fitted.item_vectors.T
    np.testing.assert_allclose(product, dense(model, drawn(8)), atol=1e-5)


def test_short_vectors_are_the_best_of_their_length() -> None:
    data = drawn(9, users=300, items=60)
    weights = dense(Ease(), data)
    fitted = Ease(factors=10).fit(data, Run(seed=2))
    product = fitted.tensors["encoder.features"] @ fitted.item_vectors.T
    sizes = np.linalg.svd(weights, compute_uv=False)
    assert np.linalg.norm(weights - product) <= 1.05 * np.sqrt((sizes[10:] ** 2).sum())


def test_weights_that_cannot_be_inverted_say_which_parameter_helps() -> None:
    items = [f"i{item}" for item in range(30)]
    wild = of_interactions(["u"] * 30, items, [0] * 30, np.full(30, 1e4, np.float32))
    for model in (
        Ease(regularisation=1e-9, dropout=0.0),
        Ease(regularisation=1e-9, dropout=0.0, exact_items=0, neighbours=2000),
    ):
        with pytest.raises(ValueError, match="regularisation"):
            model.item_weights(wild, Run())


def test_the_weights_recommend_what_a_basket_lacks() -> None:
    """Two kinds of basket that share an item: what is in it tells which kind it is."""
    baskets = [["bread", "butter", "jam"], ["bread", "cheese", "wine"]] * 20
    rows = [(f"u{user}", item, NOW_MS) for user, basket in enumerate(baskets) for item in basket]
    users, items, times = zip(*rows, strict=True)
    data = of_interactions(users, items, times)
    weights = Ease().item_weights(data, Run())
    row_of = {item: row for row, item in enumerate(data.item_ids)}
    for basket, missing in ((["bread", "butter"], "jam"), (["wine", "bread"], "cheese")):
        history = History(basket, np.ones(2, np.float32), np.full(2, NOW_MS))
        scores = weights.scores(weights.read(history, row_of)).of(np.arange(5))
        scores[[row_of[item] for item in basket]] = -np.inf
        assert data.item_ids[int(np.argmax(scores))] == missing


def test_the_default_gap_is_that_of_the_settings() -> None:
    assert Ease().session_gap_s == Settings().history.session_gap_s
