"""Both stages on a holdout: any model, then any blend, asked as the API answers."""

import math
from dataclasses import replace
from typing import Any, NamedTuple

import msgspec
import numpy as np
import pytest

from rheos.catalogue import Item
from rheos.generation import Generation
from rheos.live_system import LiveSystem
from rheos.settings import Settings, from_tree
from tests.trainer.shop import visits
from trainer.blending import lambdamart, learning, replay
from trainer.blending.examples import Examples
from trainer.data_set import DataSet, of_interactions
from trainer.evaluation import judgement, pipeline, refit, time_split
from trainer.evaluation.holdout import Holdout
from trainer.evaluation.judgement import Judgement
from trainer.models import model_of
from trainer.models.model import Model, Run

K = 10
SMALL: dict[str, dict[str, Any]] = {
    "als": {"factors": 6, "iterations": 4},
    "ease": {"factors": 6},
    "neumf": {"factors": 4, "mlp_factors": 4, "epochs": 1, "gmf_epochs": 1, "mlp_epochs": 1},
    "sasrec": {"factors": 8, "epochs": 1},
}
ALS = model_of("als", SMALL["als"])


def settings_of(blend: str, **trainer: object) -> Settings:
    return from_tree({"trainer": {"blend": blend, "gate_min_events": 300, **trainer}})


@pytest.fixture(scope="module")
def data() -> DataSet:
    events = visits(2200)
    columns = [(event.user_id, event.item_id, event.time_ms) for event in events]
    late = events[-1].time_ms
    columns += [("stranger", "i3", late), ("u0", "novelty", late)]
    return of_interactions(*zip(*columns, strict=True))  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def part(data: DataSet) -> Holdout:
    return time_split.split(data, time_split.time_of(data, 0.85))


@pytest.fixture(scope="module")
def found(part: Holdout) -> dict[str, Judgement]:
    settings = settings_of("linear")
    return judgement.compare([part], [ALS], K, settings, Run(), as_served=True)


def generation_of(model: Model, part: Holdout, settings: Settings) -> tuple[Generation, str]:
    made = pipeline.made(model, part.train, settings, Run())
    learned = pipeline.learned(model, part.train, settings, Run())
    if learned.blend is not None:
        made = learning.attach(made, learned.blend)
    return refit.in_memory(made), learned.reason


def test_the_model_alone_is_judged_as_without_a_second_stage(
    part: Holdout, found: dict[str, Judgement]
) -> None:
    alone = judgement.compare([part], [ALS], K, settings_of("none"), Run())
    assert list(found) == ["popularity", "als", "als as served"]
    for name, one in alone.items():
        assert found[name].all == one.all
        assert found[name].beyond_accuracy == one.beyond_accuracy
        assert one.blend == ""


def test_as_served_the_same_users_are_asked_for_the_same_items(found: dict[str, Judgement]) -> None:
    alone, both = found["als"], found["als as served"]
    assert both.blend.startswith("blend linear: NDCG@20 on ")
    assert both.all.cases == alone.all.cases > 30
    for bands in ("by_activity", "by_item"):
        shapes = [
            [(band.name, band.cases, band.users) for band in getattr(one, bands)]
            for one in (alone, both)
        ]
        assert shapes[0] == shapes[1]
    assert both.all.measures["ndcg"].mean > found["popularity"].all.measures["ndcg"].mean
    assert both.by_activity[0].cases == 1  # the stranger, whom the trend answers
    assert both.by_item[0].measures["hit_rate"].mean == 0  # nobody can find the novelty
    assert both.beyond_accuracy.lists == both.all.cases
    # The live path scores what it retrieves: there is nothing to hold other items against.
    assert both.pointwise.cases == 0
    assert math.isnan(both.pointwise.auc)


@pytest.mark.parametrize(
    ("name", "kind"),
    [("als", "trees"), ("ease", "linear"), ("neumf", "trees"), ("sasrec", "linear")],
)
def test_each_user_is_shown_the_best_of_the_candidates_by_the_blend(
    part: Holdout, name: str, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(learning, "LEAST_QUERIES", {"linear": 100, "trees": 100})
    monkeypatch.setattr(learning, "MOST_QUERIES", 150)
    monkeypatch.setattr(lambdamart, "TREES", 20)
    # So that each kind gets through, however little it learns from so few.
    monkeypatch.setattr(learning, "_is_worse", lambda *_: False)
    settings = settings_of(kind)
    generation, reason = generation_of(model_of(name, SMALL[name]), part, settings)
    assert generation.blend is not None, reason
    assert reason.startswith(f"blend {kind}: ")
    row_of = generation.row_of
    histories = part.histories(settings.history.size)
    shown = list(pipeline.Live(part, settings, K).scores(generation, row_of, histories))

    # A system of its own, and all of its candidates scored as where blends are learned.
    played, events, live = replay.of(settings, part.train, replay.in_time(part.train), K)
    live.learn(events)
    live.serve(generation)
    for user, history, own in zip(part.wanted, histories, shown, strict=True):
        asked = one_query(live, user, history.item_ids)
        scores = learning.scores_of(generation.blend, asked.examples, played)
        best = np.sort(scores)[::-1][:K]
        listed = {item: own[row] for item, row in row_of.items() if own[row] > -np.inf}
        np.testing.assert_allclose(sorted(listed.values(), reverse=True), best, rtol=1e-5)
        score_of = dict(zip(asked.item_ids, scores.tolist(), strict=True))
        for item, score in listed.items():
            assert score_of[item] == pytest.approx(score, rel=1e-5)
        assert not set(listed) & set(history.item_ids)


class OneQuery(NamedTuple):
    item_ids: list[str]
    examples: Examples


def one_query(live: LiveSystem, user: str, left_out: list[str]) -> OneQuery:
    found = live.candidates(user, left_out)
    features = np.stack([found.features[name] for name in live.features], axis=1)
    count = len(found.item_ids)
    return OneQuery(
        found.item_ids,
        Examples(
            live.features,
            features.astype(np.float32),
            np.zeros(count, bool),
            np.array([0, count]),
            np.ones(1, np.int64),
            np.zeros(1, np.int64),
        ),
    )


def test_the_blend_is_learned_on_the_newest_of_what_is_fitted(
    part: Holdout, monkeypatch: pytest.MonkeyPatch
) -> None:
    fitted: list[DataSet] = []

    def watched(self: Any, data: DataSet, run: Run) -> Any:
        fitted.append(data)
        return fit(self, data, run)

    fit = type(ALS).fit
    monkeypatch.setattr(type(ALS), "fit", watched)
    learned = pipeline.learned(ALS, part.train, settings_of("linear"), Run())
    assert learned.blend is not None, learned.reason
    assert len(fitted) == 1
    cut_ms = fitted[0].times_ms.max()
    assert 0.5 * len(part.train) < len(fitted[0]) < 0.95 * len(part.train)
    assert (part.train.times_ms[learned.rows] > cut_ms).all()
    assert len(learned.rows) > 50


def test_without_a_blend_the_weights_of_the_settings_rank(part: Holdout) -> None:
    settings = settings_of("trees", gate_min_events=1_000_000)
    both = judgement.compare([part], [ALS], K, settings, Run(), as_served=True)["als as served"]
    assert both.blend.startswith("no blend: ")
    assert both.blend.endswith("1000000 are needed")
    generation, _ = generation_of(ALS, part, settings)
    live = pipeline.Live(part, settings, K)
    histories = part.histories(settings.history.size)
    [first, *_] = live.scores(generation, generation.row_of, histories)
    assert np.isfinite(first).sum() == K
    assert both.all.measures["hit_rate"].mean > 0


def test_a_model_that_guards_privacy_is_served_without_a_blend(
    part: Holdout, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = pipeline.made

    def guarding(*words: Any) -> Any:
        found = made(*words)
        manifest = msgspec.structs.replace(found.manifest, privacy={"epsilon": 1.0})
        return found._replace(manifest=manifest)

    monkeypatch.setattr(pipeline, "made", guarding)
    learned = pipeline.learned(ALS, part.train, settings_of("linear"), Run())
    assert learned.blend is None
    assert learned.reason == "no blend: als guards its users' privacy"


def test_only_the_newest_interactions_make_the_states(
    part: Holdout, monkeypatch: pytest.MonkeyPatch
) -> None:
    taken: list[int] = []

    def counted(self: LiveSystem, events: Any) -> None:
        taken.append(len(events))
        return learn(self, events)

    learn = LiveSystem.learn
    monkeypatch.setattr(LiveSystem, "learn", counted)
    monkeypatch.setattr(replay, "MOST_FOLDED", 1_200)
    pipeline.Live(part, settings_of("linear"), K)
    assert sum(taken) == 1_200
    assert max(taken) <= 500


def test_what_is_new_in_the_catalogue_may_be_shown_by_its_content(part: Holdout) -> None:
    items = {
        item_id: Item(item_id=item_id, category=f"department {int(item_id[1:]) % 6}")
        for item_id in [*(f"i{n}" for n in range(300)), "i1000"]
    }
    part = part._replace(train=replace(part.train, items_known=items))
    two_tower = model_of("two_tower", {"factors": 4, "epochs": 1})
    settings = from_tree(
        {
            "trainer": {"blend": "linear", "gate_min_events": 1_000_000},
            "features": {"items": [{"name": "category", "kind": "categorical"}]},
        }
    )
    part = part._replace(train=replace(part.train, features=settings.features))
    found = judgement.compare([part], [two_tower], 400, settings, Run(), as_served=True)
    alone, both = (found[name].beyond_accuracy for name in ("two_tower", "two_tower as served"))
    assert alone.coverage == both.coverage == 1.0  # 301 items, the new one among them
