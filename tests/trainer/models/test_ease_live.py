"""EASE through the live path: the layer's row, the answer, and vectors that follow each event."""

import numpy as np

from rheos.events import Event
from rheos.live_system import ITEM_WEIGHTS, LIVE, LiveSystem
from rheos.settings import from_tree
from trainer.evaluation import event_log
from trainer.evaluation.event_log import EventLog
from trainer.evaluation.refit import Refit
from trainer.models.als import Als
from trainer.models.ease import Ease

MINUTE_MS = 60_000
START_MS = 1_300_000_000_000


def drawn_log(seed: int) -> EventLog:
    """Baskets of two kinds, some of whose lines have one time; users come back after hours."""
    random = np.random.default_rng(seed)
    events, now = [], START_MS
    for _ in range(60):
        now += 90 * MINUTE_MS
        user, kind = random.integers(6), random.integers(2)
        for item in random.permutation(8)[: random.integers(2, 6)]:
            now += int(random.integers(2)) * MINUTE_MS
            events.append(
                Event(
                    user_id=f"u{user}",
                    item_id=f"i{2 * item + kind:02d}",
                    type="purchase",
                    time_ms=now,
                )
            )
    return event_log.of_events(events)


MODEL = Ease(regularisation=1.0, factors=16)


def test_the_layer_says_what_the_weights_make_of_the_history() -> None:
    log, settings = drawn_log(0), from_tree({})
    fitted = Refit(log, MODEL, settings.event_rules(), 0)(len(log.events))
    live = LiveSystem(settings, log.item_ids, k=5)
    live.serve(fitted.generation)
    live.learn(log.events)
    weights = fitted.generation.item_weights
    assert weights is not None
    for user_id in log.user_ids:
        own = [event for event in log.events if event.user_id == user_id]
        expected = np.zeros(len(log.item_ids))
        seen: list[str] = []
        factor, later_ms = 1.0, own[-1].time_ms
        for event in reversed(own):
            if later_ms - event.time_ms > 1000 * MODEL.session_gap_s:
                factor = MODEL.before
            later_ms = event.time_ms
            if event.item_id in seen:
                continue
            share = factor * 0.5 ** (len(seen) / MODEL.half_steps)
            seen.append(event.item_id)
            row = fitted.generation.row_of[event.item_id]
            for place in range(weights.starts[row], weights.starts[row + 1]):
                expected[weights.targets[place]] += share * weights.weights[place]
        found = live.scores(user_id, [])
        np.testing.assert_allclose(found[ITEM_WEIGHTS], expected, atol=1e-5)
        listed = np.flatnonzero(found[LIVE] > -np.inf)
        assert not {log.item_ids[number] for number in listed} & {event.item_id for event in own}


def test_vectors_kept_up_event_by_event_are_those_of_the_whole_history() -> None:
    log, settings = drawn_log(1), from_tree({})
    generation = Refit(log, MODEL, settings.event_rules(), 0)(100).generation
    systems = []
    for chunk in (1, 13, len(log.events)):
        live = LiveSystem(settings, log.item_ids, k=5)
        live.serve(generation)
        for start in range(0, len(log.events), chunk):
            live.learn(log.events[start : start + chunk])
        systems.append(live)
    for user_id in log.user_ids:
        for live in systems:
            history, vector = live._asked(user_id)
            assert vector is not None
            np.testing.assert_allclose(vector, generation.encoder.encode([history])[0], atol=1e-4)
        first, *others = (live.scores(user_id, []) for live in systems)
        for other in others:
            for row in first:
                np.testing.assert_allclose(first[row], other[row], rtol=1e-4, atol=1e-5)


def test_a_generation_without_weights_has_no_such_row() -> None:
    log, settings = drawn_log(2), from_tree({})
    live = LiveSystem(settings, log.item_ids, k=5)
    assert ITEM_WEIGHTS not in live.scores("u0", [])
    refit = Refit(log, Als(factors=4, iterations=2), settings.event_rules(), 0)
    live.serve(refit(100).generation)
    assert ITEM_WEIGHTS not in live.scores("u0", [])
