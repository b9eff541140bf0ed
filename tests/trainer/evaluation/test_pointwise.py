"""AUC by ranks against all pairs one by one; accuracy and log loss against plain loops."""

import itertools
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from trainer.evaluation import pointwise

PAIRS = st.lists(st.tuples(st.integers(-3, 3), st.booleans()), min_size=2, max_size=30).filter(
    lambda pairs: len({label for _, label in pairs}) == 2
)


@given(PAIRS)
def test_each_metric_agrees_with_a_slow_obvious_one(pairs):
    scores, labels = zip(*pairs, strict=True)
    found = pointwise.of_labels(scores, labels, logits=True)
    positive = [score for score, label in pairs if label]
    negative = [score for score, label in pairs if not label]
    won = [(p > n) + (p == n) / 2 for p, n in itertools.product(positive, negative)]
    assert found.auc == pytest.approx(np.mean(won))
    right = [0.5 if score == 0 else float((score > 0) == label) for score, label in pairs]
    assert found.accuracy == pytest.approx(np.mean(right))
    probability = [1 / (1 + math.exp(-score)) for score in scores]
    loss = [-math.log(p if label else 1 - p) for p, label in zip(probability, labels, strict=True)]
    assert found.log_loss == pytest.approx(np.mean(loss))


def test_scores_that_are_no_logits_have_an_order_and_no_accuracy():
    found = pointwise.of_labels([5.0, 4.0], [True, False], logits=False)
    assert found.auc == 1.0
    assert math.isnan(found.accuracy)


def test_scores_beyond_all_bounds_overflow_nothing():
    found = pointwise.of_labels([1e30, -1e30], [False, True], logits=True)
    assert (found.auc, found.accuracy) == (0.0, 0.0)
    assert found.log_loss == pytest.approx(1e30)


@pytest.mark.parametrize("labels", [[], [True], [False, False]])
def test_a_class_without_a_pair_gives_nothing(labels):
    found = pointwise.of_labels(np.zeros(len(labels)), labels, logits=True)
    assert math.isnan(found.auc)
    assert found.cases == len(labels)


@pytest.mark.parametrize("score", [np.nan, np.inf])
def test_scores_that_are_not_finite_are_refused(score):
    with pytest.raises(ValueError, match="not finite"):
        pointwise.of_labels([score, 0.0], [True, False], logits=True)


def test_a_label_for_each_score():
    with pytest.raises(ValueError, match="2 scores, 1 labels"):
        pointwise.of_labels([0.0, 1.0], [True], logits=True)
