"""When a fit ends, and which losses end it at once."""

import math

import pytest

from trainer.early_stopping import DivergedError, EarlyStopping


def test_it_is_over_after_as_many_values_without_a_gain() -> None:
    stopping = EarlyStopping(patience=2)
    told = [stopping.improved(step, value) for step, value in enumerate([0.1, 0.3, 0.3, 0.2])]
    assert told == [True, True, False, False]
    assert (stopping.best, stopping.best_step) == (0.3, 1)
    assert stopping.is_over


def test_a_gain_starts_the_count_again() -> None:
    stopping = EarlyStopping(patience=2, least_gain=0.01)
    for step, value in enumerate([0.1, 0.1, 0.2, 0.205]):
        assert not stopping.is_over
        stopping.improved(step, value)
    assert (stopping.best, stopping.best_step) == (0.2, 2)
    assert not stopping.is_over


@pytest.mark.parametrize("loss", [math.nan, math.inf, -math.inf])
def test_a_loss_that_is_not_finite_is_divergence(loss: float) -> None:
    with pytest.raises(DivergedError, match="smaller learning rate"):
        EarlyStopping(patience=1).check(loss)


def test_a_loss_that_explodes_is_divergence_and_a_falling_one_is_not() -> None:
    stopping = EarlyStopping(patience=1)
    for loss in (0.7, 0.001, 0.6, 6.9):
        stopping.check(loss)
    with pytest.raises(DivergedError, match=r"the loss is 7\.1, at first it was 0\.7"):
        stopping.check(7.1)


def test_a_first_loss_of_zero_says_nothing_of_later_ones() -> None:
    stopping = EarlyStopping(patience=1)
    stopping.check(0.0)
    stopping.check(3.0)


def test_a_measure_that_is_not_finite_is_divergence() -> None:
    with pytest.raises(DivergedError, match="after step 4"):
        EarlyStopping(patience=1).improved(4, math.nan)


def test_without_patience_there_is_nothing_to_wait_for() -> None:
    with pytest.raises(ValueError, match="patience = 0"):
        EarlyStopping(patience=0)


def test_what_was_told_can_be_shown_afterwards() -> None:
    stopping = EarlyStopping(patience=2)
    for step, (loss, value) in enumerate([(3.0, 0.1), (2.0, 0.3), (1.5, 0.2)]):
        stopping.check(loss)
        stopping.improved(step, value)
    assert stopping.curve("ndcg") == {"loss": [3.0, 2.0, 1.5], "ndcg": [0.1, 0.3, 0.2]}
