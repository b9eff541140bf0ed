"""Accuracy at k: by hand, against an outside oracle, and against every order of the ties."""

import itertools
import math

import ir_measures
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from ir_measures import RR, R, Success, nDCG

from trainer.evaluation import metrics


def test_a_ranking_worked_out_by_hand():
    accuracy = metrics.of_ranking(["a", "b", "c", "d"], {"b", "d", "z"}, k=3)
    assert accuracy.hit_rate == 1.0
    assert accuracy.recall == pytest.approx(1 / 3)
    assert accuracy.mrr == pytest.approx(1 / 2)
    ideal = 1 + 1 / math.log2(3) + 1 / math.log2(4)
    assert accuracy.ndcg == pytest.approx((1 / math.log2(3)) / ideal)


def test_a_ranking_that_misses_everything_is_worth_nothing():
    assert metrics.of_ranking(["a", "b"], {"c"}, k=2) == (0.0, 0.0, 0.0, 0.0, 1)
    assert metrics.of_ranking([], {"c"}, k=2) == (0.0, 0.0, 0.0, 0.0, 1)


@given(
    order=st.permutations([f"item{n}" for n in range(12)]),
    relevant=st.sets(st.sampled_from([f"item{n}" for n in range(12)]), min_size=1),
    k=st.integers(1, 15),
    shown=st.integers(0, 12),
)
def test_rankings_agree_with_ir_measures(order, relevant, k, shown):
    ranked = order[:shown]
    accuracy = metrics.of_ranking(ranked, relevant, k)
    qrels = [ir_measures.Qrel("q", item, 1) for item in relevant]
    # A query without any result is absent from a run; a last irrelevant one keeps it there.
    run = [ir_measures.ScoredDoc("q", item, -place) for place, item in enumerate(ranked)]
    run.append(ir_measures.ScoredDoc("q", "no such item", -100.0))
    wanted = {"hit_rate": Success @ k, "recall": R @ k, "mrr": RR @ k, "ndcg": nDCG @ k}
    found = ir_measures.calc_aggregate(list(wanted.values()), qrels, run)
    for name, measure in wanted.items():
        assert getattr(accuracy, name) == pytest.approx(found[measure], abs=1e-6), name


@given(
    better=st.integers(0, 4), tied=st.integers(0, 4), worse=st.integers(0, 3), k=st.integers(1, 9)
)
def test_ties_count_at_the_mean_over_all_of_their_orders(better, tied, worse, k):
    above = [f"above{n}" for n in range(better)]
    below = [f"below{n}" for n in range(worse)]
    beside = ["target", *(f"beside{n}" for n in range(tied))]
    each = [
        metrics.of_ranking([*above, *order, *below], {"target"}, k)
        for order in itertools.permutations(beside)
    ]
    expected = metrics.of_targets([better], [tied], k)
    for name in ("hit_rate", "recall", "mrr", "ndcg"):
        mean = np.mean([getattr(accuracy, name) for accuracy in each])
        assert getattr(expected, name) == pytest.approx(mean), name


def test_a_model_that_scores_everything_alike_earns_what_chance_would():
    better, tied = metrics.compare(np.zeros(100), target=7)
    assert (better, tied) == (0, 99)
    assert metrics.of_targets([better], [tied], k=20).hit_rate == pytest.approx(0.2)


def test_the_mean_is_taken_over_cases():
    accuracy = metrics.of_targets([0, 5, 2], [0, 0, 0], k=3)
    assert accuracy.hit_rate == pytest.approx(2 / 3)
    assert accuracy.mrr == pytest.approx((1 + 0 + 1 / 3) / 3)
    assert accuracy.cases == 3


def test_no_cases_have_no_accuracy():
    accuracy = metrics.of_targets([], [], k=3)
    assert accuracy.cases == 0
    assert math.isnan(accuracy.ndcg)


def test_items_that_an_answer_must_not_hold_stand_in_nobodys_way():
    scores = np.array([0.9, 0.5, 0.7, 0.5])
    assert metrics.compare(scores, target=1) == (2, 1)
    allowed = np.array([False, True, True, False])
    assert metrics.compare(scores, target=1, allowed=allowed) == (1, 0)


def test_equal_scores_go_to_the_more_popular_item():
    scores, popularity = np.array([1.0, 1.0, 1.0, 1.0, 0.5]), np.array([3, 2, 2, 1, 9])
    assert metrics.compare(scores, target=1, popularity=popularity) == (1, 1)


def test_a_target_that_was_no_candidate_is_missed_at_every_k():
    better, tied = metrics.compare(np.array([-np.inf, -np.inf, 0.0]), target=0)
    assert metrics.of_targets([better], [tied], k=100).hit_rate == 0.0


@pytest.mark.parametrize(
    "wrong",
    [
        lambda: metrics.of_ranking(["a"], {"a"}, k=0),
        lambda: metrics.of_ranking(["a"], set(), k=1),
        lambda: metrics.of_ranking(["a", "a"], {"b"}, k=2),
        lambda: metrics.of_targets([-1], [0], k=2),
        lambda: metrics.compare(np.array([0.0, np.nan]), target=0),
    ],
    ids=["k of 0", "nothing relevant", "an item twice", "a negative count", "NaN"],
)
def test_what_has_no_value_is_refused(wrong):
    with pytest.raises(ValueError):
        wrong()
