"""SASRec: what goes into the network, its loss, and that what serves is what was trained."""

import numpy as np
import pytest
import torch
from torch.nn import functional

from rheos.encoder import EncoderContext
from rheos.sequence_encoder import SequenceEncoder, gaps_of
from rheos.state import Float32s, History, Int64s
from trainer.data_set import DataSet, of_interactions
from trainer.models import sasrec
from trainer.models.model import Fitted, Run, Start
from trainer.models.sasrec import NextItemLoss, SasRec
from trainer.models.sasrec_network import Network, Sizes
from trainer.models.sasrec_windows import Batch, Windows

SMALL = {"factors": 16, "blocks": 1, "heads": 2, "last": 8, "batch": 100, "learning_rate": 0.01}


def in_a_circle(users: int = 30, items: int = 12, length: int = 10) -> DataSet:
    """After item n always comes item n + 1."""
    rows = [
        (f"u{user:03d}", f"i{(user + step) % items:02d}", 1000 * step)
        for user in range(users)
        for step in range(length)
    ]
    user_ids, item_ids, times = zip(*rows, strict=True)
    return of_interactions(user_ids, item_ids, times)


def of_lengths(lengths: list[int], times_equal: bool = False) -> DataSet:
    """Users with so many interactions each, all of different items."""
    rows = [
        (f"u{user:03d}", f"{user:03d}-{step:03d}", 0 if times_equal else step)
        for user, length in enumerate(lengths)
        for step in range(length)
    ]
    user_ids, item_ids, times = zip(*rows, strict=True)
    return of_interactions(user_ids, item_ids, times)


def test_each_interaction_but_a_users_first_is_the_next_one_exactly_once() -> None:
    data = of_lengths([1, 2, 3, 9, 10, 11, 40, 1])
    for last in (1, 3, 10, 100):
        random = np.random.default_rng(last)
        nexts: list[int] = []
        for rows, times_ms, lengths in Windows(data).batches(last, 25, random):
            assert times_ms.shape == rows.shape
            assert rows.shape[1] - 1 == lengths.max() <= last
            assert len(rows) == 1 or len(rows) * lengths.max() <= 25
            for row, length in zip(rows, lengths, strict=True):
                assert length >= 1
                # Without equal times, a window is a run of the data set itself.
                np.testing.assert_array_equal(np.diff(row[: length + 1]), 1)
                np.testing.assert_array_equal(row[length + 1 :], row[length])
                nexts.extend(row[1 : length + 1].tolist())
        firsts = set(data.items[data.begins()[:-1]].tolist())
        assert sorted(nexts) == [row for row in range(len(data)) if row not in firsts]


def test_equal_times_come_in_another_order_each_epoch() -> None:
    windows, random = Windows(of_lengths([20], times_equal=True)), np.random.default_rng(0)
    epochs = [next(windows.batches(50, 100, random)).rows[0] for _ in range(50)]
    assert {tuple(sorted(rows.tolist())) for rows in epochs} == {tuple(range(20))}
    # Nothing is left of the data set's order: each item stands at each place in its turn.
    assert len({int(rows[0]) for rows in epochs}) > 12


def test_a_basket_stays_between_what_came_before_and_after() -> None:
    data = of_interactions(["u"] * 6, ["a", "b", "c", "d", "e", "f"], [1, 2, 2, 2, 2, 3])
    random = np.random.default_rng(0)
    for _ in range(20):
        batch = next(Windows(data).batches(50, 100, random))
        assert [batch.rows[0, 0], batch.rows[0, -1]] == [0, 5]
        assert batch.times_ms.tolist() == [[1, 2, 2, 2, 2, 3]]


def test_what_was_turned_down_is_in_no_window() -> None:
    data = of_interactions(["u"] * 4, ["a", "b", "c", "d"], [1, 2, 3, 4], [1.0, -1.0, 0.0, 0.4])
    batch, *more = Windows(data).batches(50, 100, np.random.default_rng(0))
    assert batch.rows.tolist() == [[0, 3]]
    assert not more


def test_padding_moves_nothing() -> None:
    network = Network(Sizes(20, 16, 2, 2, 8), 0.0, torch.Generator().manual_seed(0)).eval()
    rows = torch.randint(20, (1, 8), generator=torch.Generator().manual_seed(1))
    times_ms = np.array([[0, 5000, 5000, 9000, 99_000, 0, 7, 10**9]])
    whole = network(rows, torch.from_numpy(gaps_of(times_ms, times_ms)))
    times_ms = times_ms[:, :5]
    part = network(rows[:, :5], torch.from_numpy(gaps_of(times_ms, times_ms)))
    torch.testing.assert_close(whole[:, :5], part)


def some_batch(items: int, lengths: list[int]) -> Batch:
    random = np.random.default_rng(4)
    shape = (len(lengths), max(lengths) + 1)
    times_ms = np.sort(random.integers(0, 100_000, shape), axis=1)
    return Batch(random.integers(0, items, shape), times_ms, np.array(lengths))


def small_network(items: int) -> Network:
    return Network(Sizes(items, 16, 1, 1, 8), 0.0, torch.Generator().manual_seed(0)).eval()


@pytest.mark.parametrize("repeats", [True, False])
def test_the_drawn_softmax_comes_to_the_whole_one(repeats: bool) -> None:
    network = small_network(200)
    batch = some_batch(200, [8, 8, 3, 1, 5, 8])
    popularity = np.random.default_rng(0).integers(0, 50, 200).astype(np.float32)
    torch.manual_seed(0)
    whole = NextItemLoss(popularity, 200, repeats=repeats)(network, batch)
    drawn = NextItemLoss(popularity, 199, repeats=repeats)
    mean = torch.stack([drawn(network, batch) for _ in range(200)]).mean()
    torch.testing.assert_close(mean, whole, atol=0.02, rtol=0)


@pytest.mark.parametrize("repeats", [True, False])
def test_the_softmax_is_over_the_items_that_may_come_next(repeats: bool) -> None:
    network = small_network(7)  # windows hold items twice, and some next items again
    batch = some_batch(7, [6, 5, 1])
    rows, times_ms = torch.from_numpy(batch.rows), batch.times_ms[:, :-1]
    logits = network(rows[:, :-1], torch.from_numpy(gaps_of(times_ms, times_ms))) @ network.table.T
    each = []
    for user, length in enumerate(batch.lengths.tolist()):
        for place in range(length):
            own = rows[user].tolist()
            had = set() if repeats else set(own[: place + 1])
            if own[place + 1] in had:
                continue
            allowed = [item for item in range(7) if item not in had]
            target = torch.tensor(allowed.index(own[place + 1]))
            each.append(functional.cross_entropy(logits[user, place, allowed], target))
    assert len(each) == 12 if repeats else 2 < len(each) < 12
    loss = NextItemLoss(np.ones(7, np.float32), 7, repeats=repeats)(network, batch)
    torch.testing.assert_close(loss, torch.stack(each).mean())


def test_windows_of_one_item_alone_teach_nothing() -> None:
    network = small_network(5)
    batch = Batch(np.full((2, 4), 3), np.zeros((2, 4), np.int64), np.array([3, 2]))
    for negatives in (2, 5):
        loss = NextItemLoss(np.ones(5, np.float32), negatives, repeats=False)(network, batch)
        torch.autograd.backward(loss)
        assert float(loss.detach()) == 0.0
        assert network.table.grad is not None
        assert not network.table.grad.any()


def test_with_repeats_it_learns_what_comes_again() -> None:
    rows = [
        (f"u{user:02d}", f"i{user % 5}", 1000 * step) for user in range(20) for step in range(6)
    ]
    data = of_interactions(*zip(*rows, strict=True))
    fitted = SasRec(**SMALL, epochs=20, dropout=0.0, repeats=True).fit(data, Run())
    highest = (fitted.user_vectors @ fitted.item_vectors.T).argmax(axis=1)
    assert highest.tolist() == [user % 5 for user in range(20)]


def test_it_learns_what_comes_next() -> None:
    data = in_a_circle()
    fitted = SasRec(**SMALL, epochs=40, dropout=0.0).fit(data, Run())
    assert best(fitted, data).tolist() == [(user + 10) % 12 for user in range(30)]


def best(fitted: Fitted, data: DataSet) -> Int64s:
    """Each user's highest item (U,) among those that she has not had."""
    scores = fitted.user_vectors @ fitted.item_vectors.T
    scores[data.users, data.items] = -np.inf
    return scores.argmax(axis=1)


def test_it_learns_no_order_from_equal_times() -> None:
    # Each basket is {a_n, b_n} in this order in the file, at one time.
    rows = [(f"u{user:03d}", f"{kind}{user % 5}", 7) for user in range(200) for kind in "ab"]
    user_ids, item_ids, times = zip(*rows, strict=True)
    fitted = SasRec(**SMALL, epochs=20, dropout=0.0).fit(
        of_interactions(user_ids, item_ids, times), Run()
    )
    encoder = served(fitted)
    for item, other in (("a1", "b1"), ("b1", "a1")):
        [logits] = encoder.encode([liked(item)]) @ fitted.item_vectors.T
        logits[fitted.item_ids.index(item)] = -np.inf
        assert fitted.item_ids[int(logits.argmax())] == other


def served(fitted: Fitted) -> SequenceEncoder:
    row_of = {item: row for row, item in enumerate(fitted.item_ids)}
    context = EncoderContext(row_of, fitted.item_vectors)
    return SequenceEncoder.load(fitted.encoder, fitted.tensors, context)


def liked(*items: str) -> History:
    return History(list(items), np.ones(len(items), np.float32), np.arange(len(items)))


def test_what_serves_gives_the_networks_vectors() -> None:
    random = np.random.default_rng(2)
    data = of_interactions(
        [f"u{user:02d}" for user in random.integers(0, 40, 600)],
        [f"i{item:02d}" for item in random.integers(0, 30, 600)],
        random.integers(0, 10_000, 600),
        random.choice([1.0, 0.4, -1.0], 600),
    )
    for blocks, heads in ((1, 1), (3, 4)):
        parameters = SMALL | {"blocks": blocks, "heads": heads, "epochs": 3}
        fitted = SasRec(**parameters).fit(data, Run())
        begins = data.begins()
        histories = [
            History(
                [data.item_ids[row] for row in data.items[begins[user] : begins[user + 1]]],
                data.weights[begins[user] : begins[user + 1]],
                data.times_ms[begins[user] : begins[user + 1]],
            )
            for user in range(len(data.user_ids))
        ]
        vectors = served(fitted).encode(histories)
        np.testing.assert_allclose(vectors, fitted.user_vectors, atol=1e-4)


def start_of(data: DataSet, tensors: dict[str, Float32s]) -> Start:
    return Start(data.user_ids, data.item_ids, tensors)


def test_a_warm_start_goes_on_where_the_last_fit_ended() -> None:
    data = in_a_circle()
    first = SasRec(**SMALL, epochs=40, dropout=0.0).fit(data, Run())
    model = SasRec(**(SMALL | {"learning_rate": 1e-6}), epochs=1, dropout=0.0)
    more = in_a_circle(items=13)  # an item that the last fit did not know
    warm = model.fit(more, Run(start=start_of(data, dict(first.keep))))
    cold = model.fit(more, Run())
    np.testing.assert_allclose(warm.item_vectors[:12], first.item_vectors, atol=1e-4)
    assert np.abs(cold.item_vectors[:12] - first.item_vectors).max() > 0.1
    for name, tensor in first.tensors.items():
        np.testing.assert_allclose(warm.tensors[name], tensor, atol=1e-4)


def test_a_start_of_other_sizes_is_passed_over() -> None:
    data = in_a_circle()
    first = SasRec(**SMALL, epochs=1).fit(data, Run())
    other = SasRec(**(SMALL | {"factors": 8, "last": 4}), epochs=1)
    warm = other.fit(data, Run(start=start_of(data, dict(first.keep))))
    assert warm.item_vectors.shape == (12, 8)
    assert np.isfinite(warm.item_vectors).all()


@pytest.mark.parametrize(("examples", "epochs"), [(600_000, 30), (1350, 5), (270, 1), (20, 1)])
def test_how_often_the_data_are_gone_over_follows_their_number(
    examples: int, epochs: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sasrec, "EXAMPLES", examples)
    fitted = SasRec(**SMALL).fit(in_a_circle(), Run())  # 270 next items
    assert len(fitted.curve["loss"]) == epochs


def test_items_begin_where_a_factorisation_in_few_factors_puts_them(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # Two kinds of items, each visitor taking one kind; a step of no length leaves what began.
    monkeypatch.setattr(sasrec, "PRETRAIN_FACTORS", 2)
    rows = [
        (f"u{user:02d}", f"{user % 2}{(user + step) % 8}", step)
        for user in range(40)
        for step in range(6)
    ]
    data = of_interactions(*zip(*rows, strict=True))
    same_kind = np.equal.outer(*[[item[0] for item in data.item_ids]] * 2)
    still = SMALL | {"learning_rate": 1e-9, "epochs": 1}
    for pretrain, parts_them in ((10, True), (0, False)):
        table = SasRec(**still, pretrain=pretrain).fit(data, Run()).item_vectors
        assert float(table.std()) == pytest.approx(16**-0.5, rel=0.2)
        products = table @ table.T
        assert (products[same_kind].min() > products[~same_kind].max()) == parts_them
        assert (np.linalg.matrix_rank(table, tol=1e-3) <= 2) == parts_them


def test_it_stops_early_and_keeps_the_best_epoch() -> None:
    told: list[tuple[int, int]] = []
    run = Run(progress=lambda stage, done, total: told.append((done, total)))
    data = in_a_circle(users=400, items=20, length=8)
    parameters = SMALL | {"batch": 400, "epochs": 200, "patience": 5, "dropout": 0.0}
    fitted = SasRec(**parameters).fit(data, run)
    assert len(told) < 150
    assert told[-1] == (200, 200)
    assert (best(fitted, data) == (np.arange(400) + 8) % 20).mean() > 0.9


def test_it_leaves_torchs_own_generator_as_it_was() -> None:
    torch.manual_seed(11)
    expected = torch.rand(3)
    torch.manual_seed(11)
    SasRec(**SMALL, epochs=1).fit(in_a_circle(), Run(seed=5))
    torch.testing.assert_close(torch.rand(3), expected)
