"""The prequential protocol: by hand on a tiny log, and against a slow, obvious reference."""

import numpy as np
import pytest

from rheos.events import Event
from trainer.evaluation import event_log, metrics, prequential
from trainer.evaluation.prequential import Fitted, Plan

MINUTE_MS = 60_000
DAY_MS = 24 * 60 * MINUTE_MS


def log_of(*lines):
    """Events from (user, item, minute)."""
    return event_log.of_events(
        [
            Event(user_id=user, item_id=item, type="click", time_ms=minute * MINUTE_MS)
            for user, item, minute in lines
        ]
    )


class FakeGeneration:
    def __init__(self, item_ids, item_vectors):
        self.item_ids, self.item_vectors = item_ids, item_vectors


class Notebook:
    """A live system that writes down what happens to it and scores items by its own count."""

    def __init__(self, log):
        self.log, self.learnt, self.happened = log, [], []

    def learn(self, events):
        self.learnt += events

    def serve(self, generation):
        self.happened.append((len(self.learnt), generation))

    def scores(self, user_id, left_out):
        self.happened.append((len(self.learnt), user_id, sorted(left_out)))
        counts = [
            sum(event.item_id == item_id for event in self.learnt) for item_id in self.log.item_ids
        ]
        return {"live count": np.array(counts, float)}


def fit_nothing(log):
    generation = FakeGeneration([], np.zeros((0, 1), np.float32))
    return lambda events: Fitted(generation, np.zeros((len(log.user_ids), 1), np.float32))


def quiet(done, total):
    pass


def test_a_tiny_log_worked_out_by_hand():
    log = log_of(
        ("anna", "apple", 0),
        ("anna", "pear", 1),
        ("bert", "apple", 2),
        ("bert", "apple", 3),
        # From here on it is scored.
        ("anna", "apple", 4),  # not new to her
        ("bert", "pear", 5),  # apple is left out for him: pear stands first
        ("cleo", "pear", 90),  # apple 4, pear 2: second, and a session's start
        ("bert", "plum", 100),  # nobody had it: of what is left to him it alone
    )
    live = Notebook(log)
    report = prequential.run(log, live, fit_nothing(log), Plan(k=2, every=1), quiet)
    assert report.scored == 3
    assert report.unseen == 1
    for row in ("popularity", "live count", "nightly batch"):
        every = report.rows[row]["all"]
        assert every.mrr == pytest.approx((1 + 1 / 2 + 1) / 3), row
        start = report.rows[row]["session start"]
        assert (start.cases, start.mrr) == (2, pytest.approx((1 / 2 + 1) / 2)), row
        assert report.rows[row]["known item"].cases == 2
        assert report.rows[row]["in session"].cases == 1
    assert [entry for entry in live.happened if len(entry) == 3] == [
        (5, "bert", ["apple"]),
        (6, "cleo", []),
        (7, "bert", ["apple", "pear"]),
    ]


def test_every_kth_event_is_counted_over_the_whole_log():
    log = log_of(*((f"user{n}", f"item{n % 3}", n) for n in range(30)))
    live = Notebook(log)
    prequential.run(log, live, fit_nothing(log), Plan(every=7, begin=0.5, end=0.9), quiet)
    assert [entry[0] for entry in live.happened if len(entry) == 3] == [21]


def test_models_are_fitted_again_at_the_first_event_after_their_days_and_share_a_fit():
    log = log_of(*(("anna", f"item{n}", n * 12 * 60) for n in range(40)))  # one in 12 hours
    fitted_on = []

    def fit(events):
        fitted_on.append(events)
        return Fitted(FakeGeneration([f"of {events}"], np.zeros((1, 1))), np.zeros((1, 1)))

    live = Notebook(log)
    plan = Plan(every=50, begin=0.5, nightly_days=1, live_days=7)
    report = prequential.run(log, live, fit, plan, quiet)
    # More than a day later is the third event on; more than a week later the fifteenth.
    assert fitted_on == sorted({20, 23, 26, 29, 32, 35, 38})
    assert [(when, g.item_ids) for when, g in live.happened] == [(20, ["of 20"]), (35, ["of 35"])]
    assert report.fits == len(fitted_on)


def test_repeats_are_scored_and_nothing_left_out_when_they_are_allowed():
    log = log_of(*(("anna", "apple", n) for n in range(8)))
    live = Notebook(log)
    plan = Plan(k=1, every=1, repeats=True)
    report = prequential.run(log, live, fit_nothing(log), plan, quiet)
    assert report.scored == 4
    assert report.rows["popularity"]["all"].hit_rate == 1.0
    assert all(entry[2] == [] for entry in live.happened if len(entry) == 3)


def test_progress_ends_at_the_end():
    log = log_of(*(("anna", "apple", n) for n in range(10)))
    told = []
    prequential.run(
        log, Notebook(log), fit_nothing(log), Plan(), lambda done, total: told.append((done, total))
    )
    assert told[-1] == (10, 10)


def slow_reference(log, plan, user_vectors, item_vectors):
    """The protocol in the plainest words: (row, target, rank, ties) per scored event."""
    out = []
    events = log.events
    for i, event in enumerate(events):
        before = events[:i]
        mine = {e.item_id for e in before if e.user_id == event.user_id}
        if i < int(len(events) * plan.begin) or i % plan.every or event.item_id in mine:
            continue
        taken = {item: sum(e.item_id == item for e in before) for item in log.item_ids}
        user = log.user_ids.index(event.user_id)
        for row in ("popularity", "nightly batch"):
            places = []
            for number, item in enumerate(log.item_ids):
                if item not in mine:
                    own = taken[item] if row == "popularity" else 0.0
                    if row == "nightly batch":
                        own = float(item_vectors[number] @ user_vectors[user])
                    places.append((own, taken[item], item))
            target = next(place for place in places if place[2] == event.item_id)
            better = sum(place[:2] > target[:2] for place in places)
            tied = sum(place[:2] == target[:2] for place in places) - 1
            out.append((row, better, tied))
    return out


@pytest.mark.parametrize("seed", range(5))
def test_the_protocol_agrees_with_the_slow_reference(seed):
    rng = np.random.default_rng(seed)
    lines = [
        (f"user{rng.integers(8)}", f"item{rng.integers(15)}", minute * 20)
        for minute in np.sort(rng.integers(0, 400, 300))
    ]
    log = log_of(*lines)
    plan = Plan(k=4, every=3, nightly_days=1e6)
    # Small whole numbers: products are exact, and many of them tie.
    users = rng.integers(-1, 2, (len(log.user_ids), 2)).astype(np.float32)
    items = rng.integers(-1, 2, (len(log.item_ids), 2)).astype(np.float32)
    fitted = Fitted(FakeGeneration(log.item_ids, items), users)
    report = prequential.run(log, Notebook(log), lambda events: fitted, plan, quiet)
    expected = slow_reference(log, plan, users, items)
    for row in ("popularity", "nightly batch"):
        better, tied = zip(*(case[1:] for case in expected if case[0] == row), strict=True)
        assert report.rows[row]["all"] == metrics.of_targets(better, tied, 4), row
