"""Accuracy at k: by hand, against an outside oracle, and against every order of the ties."""

import itertools
import math

import ir_measures
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from ir_measures import AP, RR, P, R, Success, nDCG

from tests.trainer.evaluation.plain_ranking import of_ranking
from trainer.evaluation import metrics


def test_a_ranking_worked_out_by_hand():
    accuracy = of_ranking(["a", "b", "c", "d"], {"b", "d", "z"}, k=3)
    assert accuracy.hit_rate == 1.0
    assert accuracy.recall == pytest.approx(1 / 3)
    assert accuracy.precision == pytest.approx(1 / 3)
    assert accuracy.f1 == pytest.approx(1 / 3)
    assert accuracy.mrr == pytest.approx(1 / 2)
    assert accuracy.map == pytest.approx((1 / 2) / 3)
    ideal = 1 + 1 / math.log2(3) + 1 / math.log2(4)
    assert accuracy.ndcg == pytest.approx((1 / math.log2(3)) / ideal)


def test_a_ranking_that_misses_everything_is_worth_nothing():
    assert of_ranking(["a", "b"], {"c"}, k=2) == (*[0.0] * 7, 1)
    assert of_ranking([], {"c"}, k=2) == (*[0.0] * 7, 1)


@given(
    order=st.permutations([f"item{n}" for n in range(12)]),
    relevant=st.sets(st.sampled_from([f"item{n}" for n in range(12)]), min_size=1),
    k=st.integers(1, 15),
    shown=st.integers(0, 12),
)
def test_rankings_agree_with_ir_measures(order, relevant, k, shown):
    ranked = order[:shown]
    accuracy = of_ranking(ranked, relevant, k)
    qrels = [ir_measures.Qrel("q", item, 1) for item in relevant]
    # A query without any result is absent from a run; a last irrelevant one keeps it there.
    run = [ir_measures.ScoredDoc("q", item, -place) for place, item in enumerate(ranked)]
    run.append(ir_measures.ScoredDoc("q", "no such item", -100.0))
    wanted = {
        **{"hit_rate": Success @ k, "recall": R @ k, "precision": P @ k},
        **{"mrr": RR @ k, "map": AP @ k, "ndcg": nDCG @ k},
    }
    found = ir_measures.calc_aggregate(list(wanted.values()), qrels, run)
    for name, measure in wanted.items():
        assert getattr(accuracy, name) == pytest.approx(found[measure], abs=1e-6), name
    both = found[P @ k] + found[R @ k]
    harmonic = 2 * found[P @ k] * found[R @ k] / both if both else 0.0
    assert accuracy.f1 == pytest.approx(harmonic, abs=1e-6)


@given(
    better=st.integers(0, 4), tied=st.integers(0, 4), worse=st.integers(0, 3), k=st.integers(1, 9)
)
def test_ties_count_at_the_mean_over_all_of_their_orders(better, tied, worse, k):
    above = [f"above{n}" for n in range(better)]
    below = [f"below{n}" for n in range(worse)]
    beside = ["target", *(f"beside{n}" for n in range(tied))]
    each = [
        of_ranking([*above, *order, *below], {"target"}, k)
        for order in itertools.permutations(beside)
    ]
    expected = metrics.of_targets([better], [tied], k)
    for name in metrics.MEASURES:
        mean = np.mean([getattr(accuracy, name) for accuracy in each])
        assert getattr(expected, name) == pytest.approx(mean), name


@given(
    scores=st.lists(st.sampled_from([-np.inf, 0.0, 1.0, 2.0]), min_size=1, max_size=6),
    data=st.data(),
    elsewhere=st.integers(0, 2),
    k=st.integers(1, 8),
)
def test_several_relevant_items_count_at_the_mean_over_all_orders(scores, data, elsewhere, k):
    places = st.sets(st.integers(0, len(scores) - 1), min_size=0 if elsewhere else 1)
    relevant = data.draw(places)
    wanted = {*relevant, *(f"elsewhere{n}" for n in range(elsewhere))}
    candidates = [place for place, score in enumerate(scores) if score > -np.inf]
    each = [
        of_ranking(sorted(order, key=lambda place: -scores[place]), wanted, k)
        for order in itertools.permutations(candidates)
    ]
    found = metrics.of_scores(np.array(scores), np.array(sorted(relevant), int), len(wanted), k)
    for name, value in zip(metrics.MEASURES, found, strict=True):
        mean = np.mean([getattr(accuracy, name) for accuracy in each])
        assert value == pytest.approx(mean), name


@given(scores=st.lists(st.integers(0, 5), min_size=1, max_size=30), k=st.integers(1, 40))
def test_one_target_is_several_relevant_items_of_which_there_is_one(scores, k):
    array = np.array(scores, np.float32)
    (expected,) = metrics.expected_values(*([n] for n in metrics.compare(array, 0)), k)
    np.testing.assert_allclose(metrics.of_scores(array, np.array([0]), 1, k), expected)


def test_k_may_exceed_the_number_of_items():
    values = metrics.of_scores(np.array([0.1, 0.3]), np.array([0]), 1, k=100)
    assert metrics.mean(values[None])[:5] == pytest.approx((1, 1, 1 / 100, 2 / 101, 1 / 2))


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
        lambda: metrics.of_targets([-1], [0], k=2),
        lambda: metrics.compare(np.array([0.0, np.nan]), target=0),
        lambda: metrics.of_scores(np.array([0.0, np.nan]), np.array([0]), 1, k=1),
        lambda: metrics.of_scores(np.array([0.0, np.inf]), np.array([0]), 1, k=1),
        lambda: metrics.of_scores(np.array([0.0]), np.array([], int), 0, k=1),
        lambda: metrics.of_scores(np.array([0.0]), np.array([0]), 1, k=0),
    ],
    ids=[
        *("a negative count", "NaN"),
        *("NaN among several", "infinity", "none of several", "k of 0 with several"),
    ],
)
def test_what_has_no_value_is_refused(wrong):
    with pytest.raises(ValueError):
        wrong()
