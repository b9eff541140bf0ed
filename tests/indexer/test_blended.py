"""A generation's blend ranks what was gathered: features, shortlist, sources, when it rules."""

from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from indexer.live_view import LiveView
from indexer.ranking import (
    NEXT,
    SOURCES,
    TREND,
    VECTOR,
    Facts,
    Layer,
    blended,
    feature_names,
    features,
)
from indexer.retrieval import Choice, Retrieval, Wish, layer_names
from indexer.serving import Serving
from rheos.blend import SHORTLIST, Blend
from rheos.catalogue import Item, encode_record
from rheos.generation import Generation
from rheos.linear_blend import LinearBlend
from rheos.settings import Settings, from_tree
from rheos.snapshot import Snapshot, SnapshotError
from rheos.snapshot_store import LocalStore
from rheos.state import Float32s, Float64s, History, Int64s, encode_state
from rheos.tree_blend import TreeBlend, Trees
from tests.indexer import shop

NAN = float("nan")
ITEMS = [f"i{number:03d}" for number in range(300)]


def facts(count: int, **known: Any) -> Facts:
    unknown: dict[str, Any] = {
        "counts": np.zeros(count),
        "trend": np.zeros(count),
        "prices": np.full(count, NAN),
        "usual_price": NAN,
        "session": 0,
        "history": 0,
        "idle_s": NAN,
    }
    return Facts(**unknown | known)


def test_features_of_a_layer_do_not_depend_on_its_unit() -> None:
    random = np.random.default_rng(1)
    scores = random.normal(size=50)
    scores[::7] = NAN
    names = ["far.z", "far.rank", "far.share"]
    one = features([Layer("far", NEXT, 1.0, scores)], facts(50), names)
    other = features([Layer("far", NEXT, 0.0, scores * 1e-9)], facts(50), names)
    for name in names:
        np.testing.assert_allclose(one[name], other[name], rtol=1e-9)
    assert (one["far.z"][::7] == 0).all()
    assert np.isnan(one["far.rank"][::7]).all()


def test_a_rank_is_the_number_of_candidates_above() -> None:
    layer = Layer("far", NEXT, 1.0, np.array([0.5, 2.0, NAN, 0.5, -1.0, 2.0]))
    found = features([layer], facts(6), ["far.rank", "far.share"])
    np.testing.assert_array_equal(found["far.rank"], [2, 0, NAN, 2, 4, 0])
    np.testing.assert_array_equal(found["far.share"], [0.25, 1, NAN, 0.25, -0.5, 1])
    nothing = features([layer._replace(scores=np.zeros(6))], facts(6), ["far.share", "far.z"])
    assert not nothing["far.share"].any()
    assert not nothing["far.z"].any()


def test_a_layer_without_an_opinion_is_unknown_and_adds_nothing() -> None:
    found = features([], facts(3), feature_names(["vector"]))
    assert not found["vector.z"].any()
    assert np.isnan(found["vector.rank"]).all()
    assert np.isnan(found["vector.share"]).all()


def test_facts_become_features() -> None:
    known = facts(
        3,
        counts=np.array([0.0, 8.0, 8.0]),
        trend=np.array([0.0, 4.0, 1.0]),
        prices=np.array([NAN, 2.0, 4.0]),
        usual_price=2.0,
        session=3,
        history=9,
        idle_s=np.e - 1,
    )
    found = features([], known, feature_names([]))
    np.testing.assert_allclose(found["count"], np.log1p([0, 8, 8]))
    np.testing.assert_allclose(found["age"], [NAN, 0, 2])  # half-lives older than the youngest
    np.testing.assert_allclose(found["price"], np.log([NAN, 2, 4]))
    np.testing.assert_allclose(found["relative_price"], [NAN, 0, np.log(2)])
    assert found["session"].tolist() == [3, 3, 3]
    assert found["history"].tolist() == [9, 9, 9]
    np.testing.assert_allclose(found["idle"], 1.0)
    strange = features([], facts(2, prices=np.array([0.0, -1.0])), feature_names([]))
    for name in ("age", "price", "relative_price", "idle"):
        assert np.isnan(strange[name]).all()


class Told:
    """A blend that puts the last candidates first and keeps what it was asked."""

    weights = {"far": 1.0}  # noqa: RUF012
    features = ("far.z", "count")

    def __init__(self) -> None:
        self.asked: list[dict[str, Float64s]] = []

    def score(self, features: dict[str, Float64s]) -> Float64s:
        self.asked.append(features)
        return -features["far.z"]


def test_only_the_shortlist_is_scored_and_more_of_it_where_more_is_wanted() -> None:
    count = SHORTLIST + 100
    layers = [Layer("far", NEXT, 0.0, np.arange(count, dtype=np.float64))]
    for k, asked in ((10, SHORTLIST), (SHORTLIST + 50, SHORTLIST + 50)):
        blend = Told()
        found = blended(layers, facts(count), blend, k, str)  # type: ignore[arg-type]
        assert set(blend.asked[0]) == {"far.z", "count"}
        assert len(blend.asked[0]["far.z"]) == asked
        assert found.places.tolist() == list(range(count - asked, count - asked + k))


def test_nothing_gathered_is_an_empty_list() -> None:
    blend = LinearBlend({"far": 1.0})
    assert blended([], facts(0), blend, 5, str).places.tolist() == []
    assert blended([], facts(3), blend, 5, str).places.tolist() == []


def stumps(names: list[str]) -> TreeBlend:
    """Trees of one split each: above the mean of a layer's z-scores, or not."""
    inner = np.arange(len(names)) * 3
    nodes = np.arange(3 * len(names))
    left, right, values = nodes.copy(), nodes.copy(), np.tile([0.0, -0.5, 0.5], len(names))
    left[inner], right[inner] = inner + 1, inner + 2
    asked = np.zeros(len(nodes), np.int64)
    asked[inner] = np.arange(len(names))
    unknown = np.zeros(len(nodes), bool)
    trees = Trees(inner, asked, np.zeros(len(nodes)), unknown, left, right, values)
    return TreeBlend({"vector": 1.0, "far": 0.5, "trend": 0.1}, names, trees)


BLENDS: list[Blend] = [
    LinearBlend({"vector": 1.0, "far": 0.5, "near": 0.2, "trend": 0.1}),
    stumps(["vector.z", "far.z", "near.rank", "trend.share", "count", "price", "idle"]),
]


def generation(blend: Blend | None) -> Generation:
    vectors = shop.vectors(len(ITEMS), 6)
    manifest = shop.manifest(1, len(ITEMS))
    tensors = {"item_vectors": vectors, "popularity": np.ones(len(ITEMS), np.float32)}
    if blend is not None:
        manifest = msgspec.structs.replace(manifest, blend=blend.parameters())
        tensors |= blend.tensors()
    return Generation(Snapshot("1-00000000", manifest, list(ITEMS), tensors))


@pytest.mark.parametrize("blend", BLENDS, ids=["linear", "trees"])
def test_a_blend_comes_back_from_the_snapshot_store(blend: Blend, tmp_path: Path) -> None:
    made = generation(blend)
    tensors = {"item_vectors": made.item_vectors, "popularity": made.popularity}
    store = LocalStore(tmp_path)
    name = store.put(made.manifest, made.item_ids, tensors | blend.tensors())
    again = Generation(store.get(name)).blend
    assert again is not None
    told = {name: np.random.default_rng(4).normal(size=30) for name in blend.features}
    np.testing.assert_array_equal(again.score(told), blend.score(told))
    assert dict(again.weights) == dict(blend.weights)


class World:
    """Items with next-lists, trend and prices, and a generation with a blend."""

    def __init__(self, blend: Blend | None, settings: Settings | None = None) -> None:
        settings = settings or from_tree({"clock": "stream"})
        self.view = LiveView(settings)
        self.generation = generation(blend)
        random = np.random.default_rng(2)
        for item in ITEMS[:200]:
            others = random.choice(ITEMS, 30, replace=False).tolist()
            near = {other: (float(random.random()), float(random.random())) for other in others}
            state = shop.item_state(int(random.integers(1, 9)), near, trend=float(random.random()))
            self.view.take("rheos.item-state", item.encode(), encode_state(state), "")
        for item in ITEMS[::2]:
            record = Item(item_id=item, price=float(random.integers(1, 9)))
            self.view.take("rheos.items", item.encode(), encode_record(record), "")
        self.serving = Serving(
            self.generation,
            self.view.numbers,
            self.view.next_lists,
            self.view.catalogue,
            "flat",
        )
        self.retrieval = Retrieval(settings, self.view)

    def ask(self, history: History, *sources: str, k: int = 10, explain: bool = False) -> Choice:
        wish = Wish(k, frozenset(sources or SOURCES), explain=explain)
        return self.retrieval.recommend(wish, history, self.serving, self.vector(history))

    def vector(self, history: History) -> Float32s:
        vector: Float32s = self.generation.encoder.encode([history])[0]
        return vector


ASKED = shop.user_state(["i001", "i002", "i003"]).history()


@pytest.mark.parametrize("blend", BLENDS, ids=["linear", "trees"])
def test_the_answer_is_the_order_of_the_blend(blend: Blend) -> None:
    world = World(blend)
    found = world.ask(ASKED, k=15)
    wish = Wish(15, frozenset(SOURCES))
    gathered = world.retrieval.gather(
        wish, ASKED, world.serving, world.vector(ASKED), every_layer=True
    )
    spoke = [layer.name for layer in gathered.layers]
    assert spoke == [name for name in layer_names(world.generation) if name in spoke]
    known = world.retrieval.facts(gathered, ASKED)
    assert np.isfinite(known.prices).any()
    assert known.usual_price > 0
    assert (known.session, known.history) == (3, 3)
    told = features(gathered.layers, known, blend.features)
    picked = sum(
        blend.weights.get(layer.name, 0.0)
        * features(gathered.layers, known, [f"{layer.name}.z"])[f"{layer.name}.z"]
        for layer in gathered.layers
    )
    listed = np.argsort(-np.asarray(picked), kind="stable")[:SHORTLIST]
    scores = blend.score({name: values[listed] for name, values in told.items()})
    ids = [world.view.numbers.id_of(int(n)) for n in gathered.candidates[listed]]
    expected = sorted(
        range(len(ids)),
        key=lambda at: (-scores[at], -known.counts[listed[at]], ids[at]),
    )[:15]
    assert [item.item_id for item in found.items] == [ids[at] for at in expected]
    assert [item.score for item in found.items] == pytest.approx([scores[at] for at in expected])


def test_sources_and_reasons_stay() -> None:
    world = World(BLENDS[1])
    found = world.ask(ASKED, k=30, explain=True)
    assert {item.source for item in found.items} <= {VECTOR, NEXT, TREND}
    assert {VECTOR, NEXT} <= {item.source for item in found.items}
    assert any(item.because for item in found.items)
    assert not {item.item_id for item in found.items} & {"i001", "i002", "i003"}


def test_an_asker_who_takes_some_sources_only_is_answered_without_the_blend() -> None:
    blended_world, plain = World(BLENDS[0]), World(None)
    for sources in ((VECTOR,), (NEXT, TREND)):
        assert blended_world.ask(ASKED, *sources) == plain.ask(ASKED, *sources)
    assert blended_world.ask(ASKED) != plain.ask(ASKED)


def test_a_stranger_is_answered_too() -> None:
    world = World(BLENDS[1])
    found = world.ask(History([], np.zeros(0, np.float32), np.zeros(0, np.int64)))
    assert len(found.items) == 10
    assert {item.source for item in found.items} == {TREND}
    assert all(np.isfinite(item.score) for item in found.items)


class _ByRow:
    """A ranker whose opinion is known: the higher row first."""

    def score(self, user_vector: Float32s, rows: Int64s) -> Float32s:
        return rows.astype(np.float32)


def test_a_rankers_score_is_a_layer_beside_the_inner_products() -> None:
    blend = LinearBlend({"vector": 1.0, "ranker": 3.0})
    world = World(blend)
    world.generation.ranker = _ByRow()
    assert "ranker" in layer_names(world.generation)
    wish = Wish(10, frozenset(SOURCES))
    gathered = world.retrieval.gather(
        wish, ASKED, world.serving, world.vector(ASKED), every_layer=True
    )
    spoke = [layer.name for layer in gathered.layers]
    assert spoke == [name for name in layer_names(world.generation) if name in spoke]
    ranked = next(layer for layer in gathered.layers if layer.name == "ranker")
    rows = world.serving.rows(gathered.candidates)
    np.testing.assert_array_equal(ranked.scores, rows.astype(float))
    mean = np.mean([int(item.item_id[1:]) for item in world.ask(ASKED).items])
    assert mean > 200


@pytest.mark.parametrize(
    "blend",
    [
        {"kind": "linear"},
        {"kind": "linear", "weights": {}},
        {"kind": "linear", "weights": [1.0]},
        {"kind": "trees", "weights": {"far": 1.0}, "features": [1]},
        {"kind": "trees", "weights": {"far": 1.0}, "features": ["far.z"]},
        {"kind": "trees", "weights": {"far": 1.0}, "features": ["far.luck"]},
        {"kind": "oracle"},
    ],
)
def test_a_broken_blend_is_refused_with_the_generation(blend: dict[str, Any]) -> None:
    manifest = msgspec.structs.replace(shop.manifest(1, len(ITEMS)), blend=blend)
    tensors = {
        "item_vectors": shop.vectors(len(ITEMS)),
        "popularity": np.ones(len(ITEMS), np.float32),
    }
    with pytest.raises(SnapshotError, match="blend"):
        Generation(Snapshot("1-00000000", manifest, list(ITEMS), tensors))
