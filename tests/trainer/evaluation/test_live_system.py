"""The live path in one process: against sums of the raw events, and as a shopper sees it."""

from collections import defaultdict

import msgspec
import numpy as np
import pytest

from rheos.catalogue import Item
from rheos.events import Event
from rheos.linear_blend import LinearBlend
from rheos.live_system import FAR, FOLD_IN, LIVE, NEAR, TREND, LiveSystem
from rheos.settings import from_tree
from rheos.state import History
from trainer.evaluation import event_log
from trainer.evaluation.refit import Refit
from trainer.models.als import Als

MINUTE_MS = 60_000
START_MS = 1_300_000_000_000


def settings_of(**sections):
    forever = {"half_life_days": 1e6, "near_window": 3, "far_window": 6, "far_half_steps": 4.0}
    return from_tree({"transitions": forever, **sections})


def drawn_log(seed, count=400):
    """Users in sessions of some minutes, every now and then after hours."""
    random = np.random.default_rng(seed)
    events, now = [], START_MS
    for _ in range(count):
        now += int(random.choice([1, 5, 200], p=[0.7, 0.28, 0.02])) * MINUTE_MS
        events.append(
            Event(
                user_id=f"user{random.integers(4)}",
                item_id=f"item{int(random.exponential(6))}",
                type="purchase",
                time_ms=now,
            )
        )
    return event_log.of_events(events)


def slow_next_scores(log, user_id, settings):
    """Near and far scores of every item for a user, straight from the events."""
    transitions, gap_ms = settings.transitions, settings.history.session_gap_s * 1000
    near, far = defaultdict(float), defaultdict(float)
    taken: defaultdict[str, int] = defaultdict(int)
    histories: defaultdict[str, list[Event]] = defaultdict(list)
    for event in log.events:
        met, later_ms = {event.item_id}, event.time_ms
        for distance, earlier in enumerate(reversed(histories[event.user_id]), 1):
            if later_ms - earlier.time_ms > gap_ms:
                break
            later_ms = earlier.time_ms
            if earlier.item_id in met:
                continue
            met.add(earlier.item_id)
            here, there = (earlier.item_id, event.item_id), (event.item_id, earlier.item_id)
            if distance <= transitions.near_window:
                near[here] += 1 / distance
                near[there] += 0.5 / distance
            if distance <= transitions.far_window:
                for pair in (here, there):
                    far[pair] += 2 ** (-(distance - 1) / transitions.far_half_steps)
        histories[event.user_id].append(event)
        taken[event.item_id] += 1
    recent, count, later_ms = [], 0, None
    inside = True
    for earlier in reversed(histories[user_id]):
        if later_ms is not None and later_ms - earlier.time_ms > gap_ms:
            inside = False
        later_ms = earlier.time_ms
        if not inside and (count >= 5 or len(recent) >= 10):
            break
        if len(recent) >= 40:
            break
        if earlier.item_id not in recent:
            recent.append(earlier.item_id)
            count += inside
    out_near, out_far = [], []
    for item in log.item_ids:
        near_score = far_score = 0.0
        for d, y in enumerate(recent):
            own = (taken[y] + 5) ** 0.5
            near_score += 2 ** (-d / 2) * near[y, item] / own
            far_score += 2 ** (-d / transitions.far_half_steps) * far[y, item] / own
        out_near.append(near_score)
        out_far.append(far_score / (taken[item] + 5) ** settings.retrieval.far_damping)
    return np.array(out_near), np.array(out_far)


@pytest.mark.parametrize("seed", range(3))
def test_next_lists_are_what_the_raw_events_add_up_to(seed):
    log, settings = drawn_log(seed), settings_of()
    live = LiveSystem(settings, log.item_ids, k=5)
    for start in range(0, len(log.events), 37):
        live.learn(log.events[start : start + 37])
    for user_id in log.user_ids:
        found = live.scores(user_id, [])
        for row, expected in zip(
            (NEAR, FAR), slow_next_scores(log, user_id, settings), strict=True
        ):
            assert expected.max() > 0
            # Sums are forward-decayed: they are told from a landmark, up to one factor.
            np.testing.assert_allclose(
                found[row] / found[row].max(), expected / expected.max(), rtol=1e-3, err_msg=row
            )


def test_how_events_are_cut_into_chunks_changes_nothing():
    log = drawn_log(7, 120)
    generation = Refit(log, Als(factors=4, iterations=2), settings_of().event_rules(), 0)(120)
    systems = []
    for chunk in (1, 7, 120):
        live = LiveSystem(settings_of(), log.item_ids, k=5)
        live.serve(generation.generation)
        for start in range(0, len(log.events), chunk):
            live.learn(log.events[start : start + chunk])
        systems.append(live)
    for user_id in log.user_ids:
        first, *others = (live.scores(user_id, []) for live in systems)
        for other in others:
            for row in first:
                np.testing.assert_allclose(first[row], other[row], rtol=1e-4, atol=1e-5)


def test_the_answer_holds_k_items_and_none_that_the_user_had_or_asked_to_leave_out():
    log = drawn_log(3)
    live = LiveSystem(settings_of(), log.item_ids, k=3)
    live.learn(log.events)
    live.serve(
        Refit(log, Als(factors=4, iterations=2), settings_of().event_rules(), 0)(400).generation
    )
    had = {event.item_id for event in log.events[-100:] if event.user_id == "user1"}
    answer = live.scores("user1", [log.item_ids[0]])[LIVE]
    listed = {log.item_ids[number] for number in np.flatnonzero(answer > -np.inf)}
    assert len(listed) <= 3
    assert not listed & {*had, log.item_ids[0]}


def test_a_stranger_is_answered_with_the_trend():
    log = drawn_log(4)
    live = LiveSystem(settings_of(), log.item_ids, k=3)
    live.learn(log.events)
    found = live.scores("nobody", [])
    assert set(np.argsort(-found[LIVE])[:3]) == set(np.argsort(-found[TREND])[:3])
    assert not found[FOLD_IN].any()
    assert not found[NEAR].any()


def test_a_new_generation_moves_the_answers_of_users_who_did_nothing_since():
    log = drawn_log(5)
    live = LiveSystem(settings_of(), log.item_ids, k=3)
    live.learn(log.events)
    assert not live.scores("user0", [])[FOLD_IN].any()
    newest = [event.item_id for event in log.events if event.user_id == "user0"][-1]
    answers = []
    for seed in (0, 1):
        refit = Refit(log, Als(factors=4, iterations=5), settings_of().event_rules(), seed)
        live.serve(refit(400).generation)
        answers.append(live.scores("user0", [])[FOLD_IN])
        # Fold-in aims at 1 for what the user took last.
        assert answers[-1][log.item_ids.index(newest)] == pytest.approx(1, abs=0.2)
    assert not np.allclose(*answers, rtol=1e-3)


def test_an_event_that_the_stream_refuses_stops_the_evaluation():
    live = LiveSystem(settings_of(), ["a"], k=3)
    wrong = Event(user_id="u", item_id="a", type="sneeze", time_ms=1)
    with pytest.raises(ValueError, match="event 0: unknown_type"):
        live.learn([wrong])


def test_refits_know_the_beginning_of_the_log_and_nothing_else():
    log = drawn_log(6, 60)
    rules = settings_of().event_rules()
    whole = Refit(log, Als(factors=4, iterations=2), rules, 0)(20)
    cut = event_log.of_events(log.events[:20])
    alone = Refit(cut, Als(factors=4, iterations=2), rules, 0)(20)
    assert whole.generation.item_ids == cut.item_ids
    np.testing.assert_array_equal(whole.generation.item_vectors, alone.generation.item_vectors)
    rows = [log.user_ids.index(user_id) for user_id in cut.user_ids]
    np.testing.assert_array_equal(whole.user_vectors[rows], alone.user_vectors)
    strangers = np.delete(whole.user_vectors, rows, axis=0)
    assert not strangers.any()


@pytest.mark.parametrize("seed", range(2))
def test_what_a_blend_is_trained_on_is_what_it_is_asked_when_it_serves(seed):
    log, settings = drawn_log(seed), settings_of()
    made = Refit(log, Als(factors=4, iterations=2), settings.event_rules(), 0)(400).generation
    weights = LinearBlend({"vector": 0.4, "near": 0.3, "far": 0.6, "trend": 0.2, "absent": 1.0})
    live = LiveSystem(settings, log.item_ids, k=3, blends={"blend": weights})
    live.describe([Item(item_id=log.item_ids[0], price=2.5), Item(item_id=log.item_ids[1])])
    live.learn(log.events)
    live.serve(made)
    without = {user: live.scores(user, [])[LIVE] for user in log.user_ids}
    made.blend = weights  # now it serves
    for user in log.user_ids:
        candidates = live.candidates(user, [])
        assert set(candidates.features) == set(live.features)
        assert {"vector.z", "near.rank", "far.share", "price", "idle"} <= set(live.features)
        scores = weights.score(candidates.features | {"absent.z": 0 * candidates.features["far.z"]})
        best = np.argsort(-scores, kind="stable")[:3]
        answer = live.scores(user, [])
        np.testing.assert_array_equal(answer["blend"], answer[LIVE])
        listed = {log.item_ids[n]: answer[LIVE][n] for n in np.flatnonzero(answer[LIVE] > -np.inf)}
        assert listed == pytest.approx({candidates.item_ids[n]: scores[n] for n in best})
    assert any((without[user] != live.scores(user, [])[LIVE]).any() for user in log.user_ids)
    prices = live.candidates("user0", [])
    told = dict(zip(prices.item_ids, prices.features["price"], strict=True))
    for item_id, price in told.items():
        assert item_id == log.item_ids[0] or np.isnan(price)


def test_a_history_that_is_brought_along_has_the_candidates_of_a_user_who_has_it():
    log, settings = drawn_log(9), settings_of()
    live = LiveSystem(settings, log.item_ids, k=3)
    live.learn(log.events)
    live.serve(Refit(log, Als(factors=4, iterations=2), settings.event_rules(), 0)(400).generation)
    for user in log.user_ids:
        own = [event for event in log.events if event.user_id == user][-settings.history.size :]
        history = History(
            [event.item_id for event in own],
            np.array([settings.event_rules().weight(event) for event in own], np.float32),
            np.array([event.time_ms for event in own], np.int64),
        )
        known, brought = live.candidates(user, []), live.candidates_after(history)
        assert brought.item_ids == known.item_ids
        for name, column in known.features.items():
            np.testing.assert_allclose(brought.features[name], column, rtol=1e-4, atol=1e-5)


def test_settings_of_any_partition_count_give_one_state():
    log = drawn_log(8, 50)
    kafka = msgspec.structs.replace(settings_of().kafka, events_partitions=3, items_partitions=5)
    many = msgspec.structs.replace(settings_of(), kafka=kafka)
    found = []
    for settings in (settings_of(), many):
        live = LiveSystem(settings, log.item_ids, k=3)
        live.learn(log.events)
        found.append(live.scores("user2", [])[FAR])
    np.testing.assert_array_equal(*found)
