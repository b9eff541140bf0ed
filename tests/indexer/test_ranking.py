"""Fusing: z-scores, weights, sources, ties; and the rules that leave items out."""

import random

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from indexer.ranking import NEXT, TREND, VECTOR, Layer, Ranked, allowed, fuse, union
from rheos.z_scores import z_scores

NAN = float("nan")


def ids(count: int) -> list[str]:
    return [f"item{place:03d}" for place in range(count)]


def reference_order(layers: list[Layer], popularity: list[float], k: int) -> list[int]:
    """Every candidate's weighted z-scores, added one by one, then a plain sort."""
    totals = [0.0] * len(popularity)
    for layer in layers:
        known = [score for score in layer.scores.tolist() if score == score]
        mean = sum(known) / len(known) if known else 0.0
        spread = (sum((s - mean) ** 2 for s in known) / len(known)) ** 0.5 if known else 0.0
        for place, score in enumerate(layer.scores.tolist()):
            if score == score and spread > 0:
                totals[place] += layer.weight * (score - mean) / spread
    names = ids(len(popularity))
    order = sorted(
        range(len(popularity)),
        key=lambda place: (-round(totals[place], 9), -popularity[place], names[place]),
    )
    return order[:k]


def fused(layers: list[Layer], popularity: list[float], k: int) -> Ranked:
    names = ids(len(popularity))
    return fuse(layers, np.array(popularity), k, lambda place: names[place])


def test_fused_lists_are_the_references() -> None:
    rng = np.random.default_rng(5)
    for count in (1, 2, 17, 300):
        near = rng.random(count)
        near[rng.random(count) < 0.5] = 0.0
        vector = rng.standard_normal(count)
        vector[rng.random(count) < 0.2] = NAN
        layers = [
            Layer("vector", VECTOR, 0.3, vector),
            Layer("far", NEXT, 0.2, near),
            Layer("far", NEXT, 0.5, rng.random(count)),
            Layer("trend", TREND, 0.02, np.full(count, 3.0)),
        ]
        popularity = rng.integers(0, 5, count).astype(float).tolist()
        found = fused(layers, popularity, 20)
        assert found.places.tolist() == reference_order(layers, popularity, 20)
        assert (np.diff(found.scores) <= 0).all()


def test_the_source_is_the_one_that_gave_most_with_near_and_far_added_up() -> None:
    layers = [
        Layer("vector", VECTOR, 0.5, np.array([9.0, 1.0, 0.0, 0.0])),
        Layer("far", NEXT, 0.3, np.array([0.0, 5.0, 5.0, 0.0])),
        Layer("far", NEXT, 0.3, np.array([0.0, 5.0, 5.0, 0.0])),
        Layer("trend", TREND, 0.1, np.array([0.0, 0.0, 0.0, 1.0])),
    ]
    found = fused(layers, [0.0] * 4, 4)
    source_of = dict(zip(found.places.tolist(), found.sources, strict=True))
    assert source_of == {0: VECTOR, 1: NEXT, 2: NEXT, 3: TREND}


def test_one_layer_alone_keeps_its_scores_and_leaves_out_what_it_cannot_tell() -> None:
    found = fused([Layer("vector", VECTOR, 0.3, np.array([1.5, NAN, 7.0]))], [0.0] * 3, 5)
    assert found.places.tolist() == [2, 0]
    assert found.scores.tolist() == [7.0, 1.5]


def test_ties_go_to_the_more_popular_item_then_to_the_smaller_id() -> None:
    layers = [Layer("trend", TREND, 1.0, np.array([1.0, 1.0, 1.0, 2.0]))]
    assert fused(layers, [5.0, 9.0, 9.0, 0.0], 3).places.tolist() == [3, 1, 2]


def test_the_order_does_not_depend_on_how_candidates_were_found() -> None:
    rng = np.random.default_rng(8)
    scores, popularity = rng.integers(0, 4, 60).astype(float), rng.integers(0, 3, 60).astype(float)
    names = ids(60)
    lists = set()
    for seed in range(5):
        order = list(range(60))
        random.Random(seed).shuffle(order)
        layers = [
            Layer("vector", VECTOR, 0.4, scores[order]),
            Layer("trend", TREND, 0.6, popularity[order]),
        ]
        found = fuse(layers, popularity[order], 15, lambda place, order=order: names[order[place]])
        lists.add(tuple(names[order[place]] for place in found.places))
    assert len(lists) == 1


def test_nothing_to_fuse_is_an_empty_list() -> None:
    assert fused([], [], 5).sources == []
    assert fused([], [1.0], 5).sources == []
    assert fused([Layer("far", NEXT, 1.0, np.zeros(0))], [], 5).places.tolist() == []
    assert union([]).tolist() == []


@given(st.lists(st.floats(-1e6, 1e6), max_size=30))
def test_z_scores_have_mean_0_and_spread_1(values: list[float]) -> None:
    scores = z_scores(np.array(values))
    assert np.isfinite(scores).all()
    if len(values) > 1 and np.std(values) > 1e-3 * (1 + np.abs(values).max()):
        assert scores.mean() == pytest.approx(0, abs=1e-6)
        assert scores.std() == pytest.approx(1, abs=1e-6)


def test_rules_leave_out_the_unavailable_the_excluded_and_other_categories() -> None:
    available = np.array([True, False, True, True])
    categories = np.array([0, 0, 1, 0], np.int32)
    excluded = np.array([3, -1, 99])
    mask = allowed(6, excluded=excluded, available=available, categories=categories, category=None)
    assert mask.tolist() == [True, False, True, False, True, True]
    mask = allowed(6, excluded=excluded, available=available, categories=categories, category=0)
    assert mask.tolist() == [True, False, False, False, False, False]
    mask = allowed(2, excluded=excluded, available=available, categories=categories, category=0)
    assert mask.tolist() == [True, False]
