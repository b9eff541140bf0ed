"""Blends: what is recorded, the weights found, trees against LightGBM, and what is let through."""

import itertools
from dataclasses import replace
from typing import Any

import lightgbm
import numpy as np
import pytest

from rheos.blend import SHORTLIST, Blend
from rheos.events import Event
from rheos.generation import Generation
from rheos.linear_blend import LinearBlend
from rheos.settings import Settings, SettingsError, from_tree
from rheos.state import Float64s
from trainer.blending import as_served, lambdamart, learning
from trainer.blending.examples import Examples, Recorder
from trainer.blending.learning import Learned, learn, learn_for
from trainer.blending.rehearsal import rehearse, spans
from trainer.blending.weights import fit_weights, gains, shortlisted, weighted
from trainer.data_set import DataSet, Mask, of_interactions
from trainer.evaluation import event_log
from trainer.evaluation.refit import in_memory
from trainer.fitting import make
from trainer.gate import Drift
from trainer.models import model_of
from trainer.models.model import Run

MINUTE_MS = 60_000
START_MS = 1_300_000_000_000
NAN = float("nan")


def drawn(queries: int, seed: int = 0, useful: float = 1.0, most: int = 60) -> Examples:
    """Queries whose relevant items stand high by 2 far + vector, mixed with chance.

    The layer ``trend`` says nothing.
    """
    random = np.random.default_rng(seed)
    lengths = random.integers(30, most, queries)
    begins = np.r_[0, np.cumsum(lengths)]
    z = random.normal(size=(begins[-1], 3))
    likely = useful * (2 * z[:, 0] + z[:, 1]) + random.gumbel(size=len(z))
    relevant = np.zeros(len(z), bool)
    for begin, end in itertools.pairwise(begins):
        relevant[begin + np.argsort(-likely[begin:end])[: random.integers(1, 4)]] = True
    wanted = np.add.reduceat(relevant.astype(int), begins[:-1]) + random.integers(0, 2, queries)
    features = np.column_stack([z, random.normal(size=len(z)), np.repeat(lengths, lengths)])
    names = ["far.z", "vector.z", "trend.z", "price", "session"]
    users = random.integers(0, max(2, queries // 3), queries)
    return Examples(names, features.astype(np.float32), relevant, begins, wanted, users)


def slow_gain(scores: list[float], relevant: list[bool], wanted: int) -> float:
    order = sorted(range(len(scores)), key=lambda place: -scores[place])
    return (
        sum(1 / np.log2(rank + 2) for rank, place in enumerate(order[:20]) if relevant[place])
        / wanted
    )


def test_gains_are_those_of_a_loop_over_the_queries() -> None:
    examples = drawn(40, seed=1)
    scores = np.random.default_rng(2).normal(size=len(examples.relevant))
    found = gains(scores, examples)
    for query, (begin, end) in enumerate(itertools.pairwise(examples.begins)):
        relevant = examples.relevant[begin:end].tolist()
        expected = slow_gain(scores[begin:end].tolist(), relevant, int(examples.wanted[query]))
        assert found[query] == pytest.approx(expected)


def test_parts_of_examples_are_whole_queries() -> None:
    examples = drawn(10)
    first, rest = examples.part(0, 4), examples.part(4, 10)
    np.testing.assert_array_equal(np.vstack([first.features, rest.features]), examples.features)
    assert len(first) == 4
    assert rest.begins[0] == 0
    third = examples.every(3)
    assert third.wanted.tolist() == examples.wanted[[0, 3, 6, 9]].tolist()
    for place, query in enumerate((0, 3, 6, 9)):
        one, same = third.part(place, place + 1), examples.part(query, query + 1)
        np.testing.assert_array_equal(one.features, same.features)
        np.testing.assert_array_equal(one.relevant, same.relevant)
    kept = examples.keeping(examples.relevant)
    assert kept.relevant.all()
    assert np.diff(kept.begins).sum() == examples.relevant.sum()


def test_weights_are_found_again_and_beat_each_layer() -> None:
    blend = fit_weights(drawn(1500, seed=3))
    assert blend.weights["far"] / blend.weights["vector"] == pytest.approx(2, rel=0.3)
    assert abs(blend.weights["trend"]) < 0.1 * blend.weights["far"]
    fresh = drawn(800, seed=4)
    found = gains(weighted(fresh, blend.weights), fresh).mean()
    for layer in ("far", "vector", "trend"):
        assert found > gains(fresh.column(f"{layer}.z"), fresh).mean()


def test_a_layer_that_never_spoke_has_no_weight() -> None:
    examples = drawn(300)
    examples.features[:, examples.names.index("trend.z")] = 0
    assert set(fit_weights(examples).weights) == {"far", "vector"}


def test_weights_are_numbers_where_nothing_that_came_was_a_candidate() -> None:
    examples = drawn(50)
    nothing = np.zeros(len(examples.relevant), bool)
    weights = fit_weights(replace(examples, relevant=nothing)).weights
    assert np.isfinite(list(weights.values())).all()


def test_the_shortlist_is_of_each_query_what_the_weights_put_first() -> None:
    examples = drawn(5, most=31 + 2 * SHORTLIST)
    scores = weighted(examples, {"far": 1.0, "absent": 3.0})
    np.testing.assert_array_equal(scores, examples.column("far.z"))
    chosen = shortlisted(examples, {"far": 1.0})
    for begin, end in itertools.pairwise(examples.begins):
        inside, own = chosen[begin:end], scores[begin:end]
        assert inside.sum() == min(SHORTLIST, end - begin)
        if not inside.all():
            assert own[inside].min() >= own[~inside].max()


@pytest.mark.parametrize("share_unknown", [0.0, 0.2])
def test_trees_in_numpy_are_lightgbms(share_unknown: float) -> None:
    random = np.random.default_rng(5)
    examples = drawn(300, seed=5)
    features = examples.features.astype(np.float64)
    features[random.random(features.shape) < share_unknown] = NAN
    parameters = {**lambdamart.PARAMETERS, "num_threads": 1}
    data = lightgbm.Dataset(features, examples.relevant.astype(int), group=np.diff(examples.begins))
    booster = lightgbm.train(parameters, data, num_boost_round=30)
    blend = lambdamart.blend_of(booster, {"far": 1.0}, examples.names)
    asked = random.normal(size=(500, features.shape[1]))
    asked[random.random(asked.shape) < 0.3] = NAN  # where training saw none, too
    asked[0] = [np.inf, -np.inf, 0.0, -0.0, 1e300]
    found = blend.score(dict(zip(examples.names, asked.T, strict=True)))
    np.testing.assert_allclose(found, booster.predict(asked), rtol=0, atol=1e-6)


def test_the_same_seed_gives_the_same_trees() -> None:
    examples = drawn(300)
    first, second = (
        lambdamart.fit_trees(examples, {"far": 1.0}, seed=1, threads=1).tensors() for _ in range(2)
    )
    assert first.keys() == second.keys()
    for name, values in first.items():
        np.testing.assert_array_equal(values, second[name])


def test_a_blend_that_pays_is_let_through_and_told() -> None:
    learned = learn(drawn(1500, seed=6), "trees", from_tree({}), 1)
    assert learned.blend is not None
    assert learned.blend.parameters()["kind"] in ("trees", "linear")
    assert learned.figures["linear"] > learned.figures["vector"]
    assert {"trees", "linear", "far", "vector", "trend", "settings"} == set(learned.figures)
    assert "blend_far_ndcg@20" in learned.metrics()


def test_too_few_queries_for_trees_give_weights() -> None:
    learned = learn(drawn(400, seed=6), "trees", from_tree({}), 1)
    assert learned.blend is not None
    assert learned.blend.parameters()["kind"] == "linear"


def test_a_blend_that_loses_against_a_part_of_it_is_not_let_through() -> None:
    examples = drawn(600, seed=7)
    cut = round(0.7 * len(examples))
    # From here on the layer that was right is wrong: what was learned does not hold any more.
    examples.features[examples.begins[cut] :, :2] *= -1
    trend = examples.names.index("trend.z")
    examples.features[examples.begins[cut] :, trend] = examples.relevant[examples.begins[cut] :]
    learned = learn(examples, "linear", from_tree({}), 1)
    assert learned.blend is None
    assert learned.reason.startswith("no blend")


def test_a_blend_without_faiss_is_named_at_the_start(monkeypatch: pytest.MonkeyPatch) -> None:
    settings = from_tree({"trainer": {"blend": "trees"}})
    learning.check(settings)
    monkeypatch.setattr(learning, "find_spec", lambda name: None)
    learning.check(from_tree({}))
    with pytest.raises(SettingsError, match=r"trainer.blend = 'trees' .* pip install"):
        learning.check(settings)


def event(user: str, item: str, minute: int, kind: str = "purchase") -> Event:
    return Event(user_id=user, item_id=item, type=kind, time_ms=START_MS + minute * MINUTE_MS)


def recorder(events: list[Event], **retrieval: Any) -> Recorder:
    class Asked:
        features = ("count",)

        def __init__(self) -> None:
            self.learnt = 0
            self.left_out: list[list[str]] = []

        def learn(self, part: list[Event]) -> None:
            self.learnt += len(part)

        def candidates(self, user_id: str, left_out: list[str]) -> Any:
            self.left_out.append(left_out)
            items = sorted({event.item_id for event in events})
            counts = {"count": np.full(len(items), float(self.learnt))}
            return type("Candidates", (), {"item_ids": items, "features": counts})

    settings = from_tree({"retrieval": retrieval})
    return Recorder(Asked(), events, settings)  # type: ignore[arg-type]


LOG = [
    event("u", "a", 0),
    event("u", "b", 0),
    event("v", "c", 1),
    event("u", "d", 5, "dislike"),
    event("u", "a", 6),
    event("u", "c", 8),
    event("v", "a", 1000),
    event("u", "b", 1001),
    event("u", "e", 1002),
    event("w", "z", 1010),
    event("v", "z", 1500),
]
"""u: a session a, b (at the same time), d disliked, a again, c; then b again and e."""


def test_all_new_liked_items_still_to_come_in_a_finished_session_are_relevant() -> None:
    playing = recorder(LOG)
    assert playing.askable().tolist() == [0, 1, 2, 5, 6, 8, 9]
    playing.play(len(LOG), [0, 1, 5, 8])
    found = playing.examples()
    assert found is not None
    items = sorted({event.item_id for event in LOG})
    told = [
        {item for item, relevant in zip(items, found.relevant[begin:end], strict=True) if relevant}
        for begin, end in itertools.pairwise(found.begins)
    ]
    assert told == [{"a", "b", "c"}, {"b", "c"}, {"c"}, {"e"}]
    assert found.wanted.tolist() == [3, 2, 1, 1]
    # Each question saw what lies before its event and nothing else.
    assert found.column("count")[found.begins[:-1]].tolist() == [0, 1, 5, 8]
    assert playing._live.left_out == [[], ["a"], ["a", "b", "d"], ["a", "b", "d", "c"]]  # type: ignore[attr-defined]


def test_where_items_may_repeat_all_that_is_to_come_is_relevant() -> None:
    playing = recorder(LOG, leave_out_seen=False)
    assert playing.askable().tolist() == [0, 1, 2, 4, 5, 6, 7, 8, 9]
    playing.play(len(LOG), [1])
    found = playing.examples()
    assert found is not None
    assert found.wanted.tolist() == [3]
    assert playing._live.left_out == [[]]  # type: ignore[attr-defined]


def test_a_log_without_questions_has_no_examples() -> None:
    playing = recorder(LOG[:2])
    assert playing.askable().tolist() == []
    playing.play(2)
    assert playing.examples() is None


def test_a_rehearsal_asks_in_its_part_of_the_log_and_fits_on_what_lies_before() -> None:
    log = event_log.of_events(LOG)
    assert spans(log, 0, len(LOG), 1.0) == [(0, 10), (10, 11)]
    assert spans(log, 3, len(LOG), 0.5) == [(3, 6), (6, 11)]
    asked: list[int] = []
    live = recorder(LOG)._live

    def generation_of(events: int) -> Any:
        asked.append(events)

    live.serve = lambda generation: None  # type: ignore[method-assign]
    settings = from_tree({})
    found = rehearse(log, live, generation_of, settings, begin=3, end=len(LOG), every=2, days=0.5)
    assert asked == [3, 6]
    assert found is not None
    # Of 5, 6, 8 and 9, before which a question has an answer, each second place of the log.
    assert found.column("count")[found.begins[:-1]].tolist() == [6, 8]
    assert rehearse(log, live, generation_of, settings, begin=10, end=11, every=1, days=1) is None


def shop(count: int, seed: int = 0) -> Any:
    """Users of five tastes in sessions of some minutes, a day apart."""
    random = np.random.default_rng(seed)
    users, items, times, now = [], [], [], START_MS
    while len(users) < count:
        now += 40 * MINUTE_MS
        user = int(random.integers(30))
        for step, item in enumerate(random.integers(0, 60, random.integers(2, 7))):
            users.append(f"u{user}")
            items.append(f"i{5 * int(item) + user % 5}")
            times.append(now + step * MINUTE_MS)
    return of_interactions(users, items, times)


SMALL = {
    "als": {"factors": 6, "iterations": 4},
    "ease": {"factors": 6},
    "neumf": {"factors": 4, "mlp_factors": 8, "epochs": 1, "gmf_epochs": 2, "mlp_epochs": 2},
}


@pytest.mark.parametrize("name", SMALL)
def test_a_blend_is_learned_on_what_the_candidate_was_not_fitted_on(name: str) -> None:
    data = shop(3000)
    earlier = data.times_ms < np.quantile(data.times_ms, 0.65)
    model = model_of(name, SMALL[name])
    part = data.where(earlier)
    candidate = in_memory(make(1, model, model.fit(part, Run()), part, {}))
    stages = []

    def told(stage: str, done: int, total: int) -> None:
        stages.append((stage, done, total))

    settings = from_tree({"trainer": {"blend": "linear"}})
    learned = learn_for(settings, candidate, None, data, earlier, Run(progress=told))
    more = {"neumf": {"ranker"}, "ease": {"item_weights"}}.get(name, set())
    layers = {"vector", "near", "far", "trend"} | more
    assert set(learned.figures) == {"linear", "settings"} | layers
    if name != "als":
        return
    assert learned.blend is not None, learned.reason
    assert set(learned.blend.weights) == layers
    assert stages[-1][1] == stages[-1][2] > 200
    again = learn_for(settings, candidate, None, data, earlier, Run())
    assert again.blend is not None
    assert again.blend.parameters() == learned.blend.parameters()
    none = learn_for(from_tree({}), candidate, None, data, earlier, Run())
    assert none.blend is None
    few = np.arange(len(data)) != int(data.times_ms.argmax())
    assert learn_for(settings, candidate, None, data, few, Run()).blend is None


def test_a_candidate_is_held_against_what_serves_each_with_its_blend() -> None:
    data = shop(3000)
    fitted_until, cut = np.quantile(data.times_ms, [0.4, 0.65])
    earlier = data.times_ms < cut
    model = model_of("als", SMALL["als"])

    def fitted(number: int, part: DataSet) -> Generation:
        return in_memory(make(number, model, model.fit(part, Run()), part, {}))

    serving = fitted(1, data.where(data.times_ms < fitted_until))
    candidate = fitted(2, data.where(earlier))
    settings = from_tree({"trainer": {"blend": "linear", "gate_tolerance": 0.05}})
    learned = learn_for(settings, candidate, serving, data, earlier, Run())
    assert len(learned.rows) == len(learned.gains) > 60
    assert not earlier[learned.rows].any()
    # They are the newest questions, from which the blend that earned these gains did not learn.
    assert learned.gains.mean() == pytest.approx(learned.figures["linear"])

    def held(learned: Learned, against: Generation) -> as_served.AsServed:
        return as_served.compare(learned, against, data, earlier, settings)

    same = held(
        learned._replace(gains=gains_of(candidate, None, learned, data, earlier)), candidate
    )
    assert same.passed
    assert same.figures["gate_served_difference"] == 0
    # What serves has learned a blend that asks its vectors for the opposite: the other is ahead.
    serving.blend = LinearBlend({"vector": -1.0})
    found = held(learned, serving)
    assert found.passed
    earned = learned.metrics()["gate_served_ndcg@20"]
    assert earned == pytest.approx(learned.gains.mean())
    assert earned > found.figures["gate_served_against_ndcg@20"]
    own = gains_of(serving, serving.blend, learned, data, earlier)
    assert found.figures["gate_served_against_ndcg@20"] == pytest.approx(own.mean())
    # The other way round it is refused, and the reason says by how much.
    serving.blend = None
    worse = held(learned._replace(gains=own), serving)
    assert not worse.passed
    assert worse.reason.startswith(f"as served NDCG@20 {own.mean():.4f} against 0.")


def test_drift_is_seen_in_what_a_generation_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(learning, "MOST_QUERIES", 300)
    data = shop(3000)
    earlier = data.times_ms < np.quantile(data.times_ms, 0.65)
    model, part = model_of("als", SMALL["als"]), data.where(earlier)
    candidate = in_memory(make(1, model, model.fit(part, Run()), part, {}))
    settings = from_tree({"trainer": {"blend": "linear"}})
    learned = learn_for(settings, candidate, None, data, earlier, Run())
    served = make(1, model, model.fit(part, Run()), part, learned.metrics())
    assert learned.blend is not None

    def found(blend: Blend | None, settings: Settings = settings) -> Drift | None:
        generation = in_memory(served)
        generation.blend = blend
        return as_served.drift(generation, data, earlier, settings)

    same = found(learned.blend)
    assert same is not None
    assert same.at_gate == pytest.approx(learned.gains.mean())
    examples, _ = learning.record(settings, candidate, data, earlier)
    assert examples is not None
    own = gains(learning.scores_of(learned.blend, examples, settings), examples)
    assert same.now == pytest.approx(own.mean())
    assert not same.has_fallen
    # The model is what it was, but what ranks its candidates has turned against it.
    turned = found(LinearBlend({"vector": -1.0}))
    assert turned is not None
    assert turned.has_fallen
    assert turned.now < 0.8 * turned.at_gate == pytest.approx(0.8 * same.at_gate)
    # Without a blend it is asked by the weights of the settings, which serve then.
    assert found(None) is not None
    assert found(learned.blend, from_tree({})) is None
    with monkeypatch.context() as patch:
        patch.setitem(learning.LEAST_QUERIES, "linear", len(examples) + 1)  # type: ignore[index]
        assert found(learned.blend) is None
    served.manifest.metrics.clear()
    assert found(learned.blend) is None


def gains_of(
    generation: Generation, blend: Blend | None, learned: Learned, data: DataSet, earlier: Mask
) -> Float64s:
    """What a generation earns with a blend on the questions that ``learned`` was checked on."""
    settings = from_tree({})
    examples, rows = learning.record(settings, generation, data, earlier, only=learned.rows)
    assert examples is not None
    assert rows.tolist() == learned.rows.tolist()
    return gains(learning.scores_of(blend, examples, settings), examples)
