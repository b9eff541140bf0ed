"""What an old interaction still counts in a fit, against the words of its docstring."""

from collections.abc import Sequence
from itertools import permutations

import numpy as np
import pytest

from rheos.history_map import damped
from rheos.latest_items import latest_items
from trainer.data_set import DataSet, of_interactions, pairs
from trainer.models.recency import recency


def data_of(rows: Sequence[tuple[str, str, int]]) -> DataSet:
    users, items, times = zip(*rows, strict=True)
    return of_interactions(users, items, times)


def by_pair(data: DataSet, half_steps: float) -> dict[tuple[str, str], float]:
    found = pairs(data)
    names = zip(
        [data.user_ids[user] for user in found.users],
        [data.item_ids[item] for item in found.items],
        strict=True,
    )
    return dict(zip(names, recency(data, found, half_steps).tolist(), strict=True))


def test_an_item_counts_by_those_met_since_its_latest_time() -> None:
    rows = [("u", "a", 1), ("u", "b", 2), ("u", "c", 3), ("u", "a", 4), ("v", "b", 1)]
    expected = np.array([1.0, 2**-0.5, 2**-1])  # a, met again, is the latest; then c, then b
    expected /= expected.mean()
    found = by_pair(data_of(rows), 2.0)
    assert [found["u", item] for item in "acb"] == pytest.approx(expected)
    assert found["v", "b"] == pytest.approx(1.0)


def test_of_equal_times_each_gets_the_mean_of_all_orders() -> None:
    rows = [("u", "a", 1), ("u", "b", 2), ("u", "c", 2), ("u", "d", 2), ("u", "e", 3)]
    found = by_pair(data_of(rows), 1.5)
    sums = dict.fromkeys("abcde", 0.0)
    for basket in permutations("bcd"):
        for rank, item in enumerate(["e", *basket, "a"]):
            sums[item] += 2 ** (-rank / 1.5)
    mean = sum(sums.values()) / 5
    assert {item: found["u", item] for item in "abcde"} == pytest.approx(
        {item: value / mean for item, value in sums.items()}
    )


def test_it_shares_a_history_out_as_the_fold_in_does() -> None:
    random = np.random.default_rng(3)
    rows = [(f"u{random.integers(4)}", f"i{random.integers(9)}", time) for time in range(80)]
    data = data_of(rows)
    found = by_pair(data, 3.0)
    row_of = {item: row for row, item in enumerate(data.item_ids)}
    ((_, histories),) = data.histories(10)
    latest = latest_items(histories, row_of, 100)
    shares = damped(latest, (3.0,))[:, :, 0]
    for user, name in enumerate(data.user_ids):
        count = int(latest.known[user].sum())
        for row, share in zip(latest.rows[user, :count], shares[user], strict=False):
            assert found[name, data.item_ids[row]] == pytest.approx(share * count, rel=1e-5)


def test_without_end_all_count_alike_and_long_histories_stay_finite() -> None:
    rows = [("u", f"i{number}", number) for number in range(5000)]
    assert set(by_pair(data_of(rows), float("inf")).values()) == {1.0}
    found = np.array(list(by_pair(data_of(rows), 0.5).values()))
    assert np.isfinite(found).all()
    assert found.mean() == pytest.approx(1.0, rel=1e-4)
