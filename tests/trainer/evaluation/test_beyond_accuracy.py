"""Coverage, novelty and popularity bias, against loops over the lists."""

import math

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from trainer.evaluation import beyond_accuracy


@given(st.lists(st.integers(0, 9), min_size=1, max_size=12).filter(any))
def test_gini_is_half_of_the_relative_mean_difference(counts):
    count, mean = len(counts), np.mean(counts)
    differences = sum(abs(a - b) for a in counts for b in counts)
    expected = differences / (2 * count**2 * mean)
    assert beyond_accuracy.gini(np.array(counts, float)) == pytest.approx(expected)


def test_gini_of_one_item_always_and_of_all_alike():
    assert beyond_accuracy.gini(np.array([0, 0, 0, 8.0])) == pytest.approx(3 / 4)
    assert beyond_accuracy.gini(np.array([2.0, 2.0])) == 0.0
    assert math.isnan(beyond_accuracy.gini(np.zeros(3)))


def test_lists_agree_with_plain_loops():
    random = np.random.default_rng(0)
    users, items, k = 30, 50, 5
    had = random.integers(0, users, items).astype(float)
    lists = np.array([random.permutation(items)[:k] for _ in range(20)])
    lists[3, 2:] = -1
    lists[4] = -1
    history = random.random(20) * 10
    history[6] = np.nan
    found = beyond_accuracy.of_lists(lists, had, users, history)
    plain = [[item for item in row if item >= 0] for row in lists.tolist()]
    listed = [item for row in plain for item in row]
    assert found.coverage == pytest.approx(len(set(listed)) / items)
    information = [-math.log2(max(1, had[item]) / users) for item in listed]
    assert found.novelty == pytest.approx(np.mean(information))
    popularity = np.mean([np.mean([had[item] for item in row]) for row in plain if row])
    assert found.average_popularity == pytest.approx(popularity)
    assert found.history_popularity == pytest.approx(np.nanmean(history))
    assert found.popularity_lift == pytest.approx(popularity / np.nanmean(history) - 1)
    counts = np.array([listed.count(item) for item in range(items)], float)
    assert found.gini == pytest.approx(beyond_accuracy.gini(counts))
    assert found.lists == 20


@pytest.mark.parametrize("lists", [np.zeros((0, 5), int), np.full((2, 5), -1)])
def test_no_recommendation_at_all_has_no_figures(lists):
    found = beyond_accuracy.of_lists(lists, np.ones(4), 3, np.ones(len(lists)))
    assert all(map(math.isnan, msgspec.structs.astuple(found)[:-1]))


def test_without_histories_there_is_no_lift():
    found = beyond_accuracy.of_lists(np.array([[0]]), np.ones(2), 2, np.array([np.nan]))
    assert math.isnan(found.popularity_lift)
    assert found.novelty == 1.0
