"""Which answers count as clicked, and when a share has fallen."""

import numpy as np
import pytest

from trainer import click_rates
from trainer.click_rates import ClickRates, Rate

OLD, NEW = "1-0123abcd", "2-0123abcd"


def told(share_old: float, share_new: float, answers: int, seed: int = 0) -> ClickRates:
    """Rates of two generations, each shown ``answers`` times to 500 users."""
    random = np.random.default_rng(seed)
    rates = ClickRates(wait_ms=1000)
    for generation, share in ((OLD, share_old), (NEW, share_new)):
        for number in range(answers):
            name = f"{generation}/{number}"
            rates.shown(name, f"u{random.integers(500)}", generation, 0)
            if random.random() < share:
                rates.clicked(name, 10)
    rates.settle(2000)
    return rates


def p_value(rates: ClickRates) -> float:
    """Against a share more than a tenth below."""
    return rates.compare(NEW, OLD, 0.1, np.random.default_rng(0)).p_value


def test_an_answer_counts_once_it_has_had_its_time_and_clicks_in_it() -> None:
    rates = ClickRates(wait_ms=1000)
    for number, time_ms in enumerate([0, 0, 0, 0, 500]):
        rates.shown(f"r{number}", "u", NEW, time_ms)
    rates.clicked("r0", 1000)
    rates.clicked("r0", 900)  # twice is once
    rates.clicked("r1", 1001)  # too late
    rates.clicked("r2", -1)  # before it was shown
    rates.clicked("unknown", 5)
    rates.settle(0)
    assert rates.rate(NEW) == Rate(0, 0)
    rates.settle(500)
    assert rates.rate(NEW) == Rate(4, 1)
    rates.clicked("r4", 1500)
    rates.settle(501)
    assert rates.rate(NEW) == Rate(5, 2)
    assert rates.rate(OLD).share == 0.0


def test_counts_go_on_where_they_were_left() -> None:
    first = told(0.1, 0.1, 100)
    again = ClickRates(1000, first.counts)
    again.shown("more", None, NEW, 0)
    again.settle(1)
    assert again.rate(NEW).answers == 101


def test_a_clear_fall_is_found_and_a_small_or_uncertain_one_is_not() -> None:
    assert p_value(told(0.2, 0.1, 2000)) < 1e-3
    assert p_value(told(0.2, 0.2, 2000)) > 0.5
    assert p_value(told(0.2, 0.3, 2000)) > 0.99
    assert p_value(told(0.2, 0.19, 2000)) > 0.05
    assert p_value(told(0.2, 0.1, 20)) > 0.01


def test_at_the_margin_itself_it_errs_as_often_as_it_says() -> None:
    found = [p_value(told(0.5, 0.45, 400, seed=seed)) < 0.1 for seed in range(50)]
    assert 1 <= sum(found) <= 12


def test_one_user_who_stopped_clicking_is_no_proof() -> None:
    rates = ClickRates(wait_ms=1000)
    for generation, clicks in ((OLD, True), (NEW, False)):
        for number in range(1000):
            rates.shown(f"{generation}/{number}", "busy", generation, 0)
            if clicks:
                rates.clicked(f"{generation}/{number}", 1)
        for number in range(500):
            rates.shown(f"{generation}/other/{number}", f"u{number}", generation, 0)
            if number % 2:
                rates.clicked(f"{generation}/other/{number}", 1)
    rates.settle(2000)
    found = rates.compare(NEW, OLD, 0.1, np.random.default_rng(0))
    assert found.serving.share < 0.5 * found.predecessor.share
    assert found.p_value > 0.05


def test_without_answers_or_clicks_nothing_has_fallen() -> None:
    assert p_value(ClickRates(1000)) == 1.0
    assert p_value(told(0.0, 0.0, 100)) == 1.0
    assert p_value(told(1.0, 0.0, 1000)) < 1e-3


def test_of_too_many_answers_a_share_is_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(click_rates, "MOST_PENDING", 300)
    rates = told(0.2, 0.4, 2000)
    assert 50 < rates.rate(NEW).answers <= 600
    assert rates.rate(OLD).share == pytest.approx(0.2, abs=0.1)
    assert rates.rate(NEW).share == pytest.approx(0.4, abs=0.15)


def test_names_that_are_no_generations_and_old_ones_take_no_room() -> None:
    rates = ClickRates(1000)
    for number in range(1, 40):
        rates.shown(f"r{number}", "u", f"{number}-0123abcd", 0)
        rates.shown(f"x{number}", "u", f"../{number}", 0)
    rates.settle(1)
    assert sorted(rates.counts) == sorted(f"{number}-0123abcd" for number in range(20, 40))
