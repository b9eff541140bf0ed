"""Which answers count as clicked, and when a share has fallen."""

import numpy as np
import pytest

from trainer import click_rates
from trainer.click_rates import ClickRates, Comparison, Rate

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
    return rates.compare(NEW, OLD, 0.1, 1000, np.random.default_rng(0)).p_value


RHYTHM = 0.2 + 0.1 * np.sin(np.arange(24) * np.pi / 12)
"""Of a day's hours the share that is clicked: three times as much at the best as at the worst."""


def days_of(count: int, *, fallen: int = -1, times: float = 0.6, answers: int = 4000) -> ClickRates:
    """Each hour another generation, named by its number, as a trainer makes them that fits hourly.

    Of the one of the hour ``fallen`` only so many ``times`` are clicked; the last day is a sale.
    """
    random = np.random.default_rng(1)
    rates = ClickRates(wait_ms=0)
    for hour in range(24 * count):
        share = RHYTHM[hour % 24] * (1.5 if hour >= 24 * (count - 1) else 1.0)
        share *= times if hour == fallen else 1.0
        buckets = random.integers(click_rates.BUCKETS, size=answers)
        counts = np.zeros((click_rates.BUCKETS, 2), np.int64)
        np.add.at(counts[:, 0], buckets, 1)
        np.add.at(counts[:, 1], buckets, random.random(answers) < share)
        rates.counts[f"{hour + 1}-0123abcd"] = {hour: counts}
    rates.settle(0)
    return rates


def judged(rates: ClickRates, hour: int) -> Comparison:
    """The generation of an hour against that of the hour before."""
    names = f"{hour + 1}-0123abcd", f"{hour}-0123abcd"
    return rates.compare(*names, 0.1, 1000, np.random.default_rng(0))


def test_a_daily_rhythm_is_no_fall_where_the_days_before_have_it_too() -> None:
    rates = days_of(4)
    last = range(24 * 4 - click_rates.MOST_GENERATIONS + 1, 24 * 4)
    found = [judged(rates, hour) for hour in last]
    assert all(one.usual is not None for one in found)
    assert min(one.p_value for one in found) > 0.01
    # It would be one: the shares themselves fall by more than the margin.
    shares = [one.serving.share / one.predecessor.share for one in found]
    assert min(shares) < 0.87
    worst = found[int(np.argmin(shares))]
    assert worst.usual is not None
    usual = [RHYTHM[(last[int(np.argmin(shares))] - ago) % 24] for ago in (0, 1)]
    assert worst.usual == pytest.approx(usual, abs=0.02)


@pytest.mark.parametrize("hour", [78, 81, 86, 92])
def test_a_real_fall_is_found_at_any_hour_of_the_rhythm(hour: int) -> None:
    found = judged(days_of(4, fallen=hour), hour)
    assert found.usual is not None
    assert found.p_value < 0.01


def test_without_days_before_the_shares_themselves_are_compared() -> None:
    rates = days_of(1)
    found = [judged(rates, hour) for hour in range(5, 24)]
    assert {one.usual for one in found} == {None}
    assert min(one.p_value for one in found) < 0.01  # at night it takes the rhythm for a fall


def test_too_few_answers_at_the_same_hours_before_are_no_measure() -> None:
    rates = told(0.2, 0.1, 2000)
    for generation in (OLD, NEW):
        rates.counts[generation] = {48: rates.counts[generation][0]}
    few = np.zeros((click_rates.BUCKETS, 2), np.int64)
    few[:3] = (300, 1)
    rates.counts[click_rates.EARLIER] = {24: few}
    found = rates.compare(NEW, OLD, 0.1, 1000, np.random.default_rng(0))
    assert found.usual is None
    assert found.p_value < 1e-3


def test_what_a_generation_did_itself_the_day_before_is_no_measure_of_it() -> None:
    rates = told(0.2, 0.1, 2000)
    rates.counts[OLD] = {46: rates.counts[OLD][0]}
    rates.counts[NEW] = {24: rates.counts[NEW][0], 48: rates.counts[NEW][0]}
    found = rates.compare(NEW, OLD, 0.1, 1000, np.random.default_rng(0))
    assert found.usual is None


def test_a_week_is_kept_and_old_generations_together() -> None:
    rates = days_of(10, answers=10)
    hours = [hour for found in rates.counts.values() for hour in found]
    assert min(hours) == 24 * 10 - 1 - 24 * (click_rates.DAYS + 1)
    assert len(hours) == len(set(hours)) == 24 * (click_rates.DAYS + 1) + 1
    assert len(rates.counts) == click_rates.MOST_GENERATIONS + 1
    assert sum(rates.rate(name).answers for name in rates.counts) == 10 * len(hours)


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
    found = rates.compare(NEW, OLD, 0.1, 1000, np.random.default_rng(0))
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


def test_names_that_are_no_generations_take_no_room() -> None:
    rates = ClickRates(1000)
    for number in range(1, 40):
        rates.shown(f"r{number}", "u", f"{number}-0123abcd", 0)
        rates.shown(f"x{number}", "u", f"../{number}", 0)
    rates.settle(1)
    newest = [f"{number}-0123abcd" for number in range(20, 40)]
    assert sorted(rates.counts) == sorted([click_rates.EARLIER, *newest])
