"""Full-ranking accuracy through a generation, against one case at a time in plain Python."""

import math

import numpy as np
import pytest

from rheos.catalogue import Item
from rheos.generation import RANKERS, Generation
from rheos.item_weights import ItemWeights
from rheos.settings import RetrievalSettings
from rheos.snapshot import Manifest, Snapshot
from rheos.state import History
from trainer.evaluation import metrics, served
from trainer.evaluation.served import Case

DEPTH = 6


class Backwards:
    """A ranker that turns the order of the rows around."""

    def score(self, user_vector, rows):
        return rows.astype(np.float32)


@pytest.fixture
def make_generation(monkeypatch):
    monkeypatch.setitem(RANKERS, "backwards", lambda parameters, tensors: Backwards())

    def make(ranker=None, seed=0):
        random = np.random.default_rng(seed)
        vectors = random.normal(size=(20, 4)).astype(np.float32)
        manifest = Manifest(
            number=1,
            model="test",
            dimensions=4,
            items=20,
            interactions=1,
            created_ms=0,
            window={},
            parameters={},
            metrics={},
            encoder={"kind": "fold_in", "alpha": 20.0, "regularisation": 0.05},
            ranker=ranker,
            software={},
        )
        tensors = {"item_vectors": vectors, "popularity": np.ones(20, np.float32)}
        return Generation(Snapshot("1-00000000", manifest, [f"i{n}" for n in range(20)], tensors))

    return make


def case(history, target):
    count = len(history)
    weights, times = np.ones(count, np.float32), np.arange(count, dtype=np.int64)
    return Case(History(list(history), weights, times), target)


def drawn_cases(count, seed=1):
    random = np.random.default_rng(seed)
    for _ in range(count):
        items = [f"i{n}" for n in random.permutation(25)]  # five of them nobody knows
        known = next(item for item in items if int(item[1:]) < 20)
        history = dict.fromkeys([known, *items[: random.integers(1, 8)]])
        yield case(history, next(item for item in reversed(items) if item not in history))


def slow_rank(generation, one, depth):
    """The 0-based rank of the target, or None for a miss."""
    (user,) = generation.encoder.encode([one.history])
    scored = [
        (float(vector @ user), item)
        for item, vector in zip(generation.item_ids, generation.item_vectors, strict=True)
        if item not in one.history.item_ids
    ]
    order = [item for _, item in sorted(scored, reverse=True)]
    if generation.ranker is not None:
        order = sorted(order[:depth], key=lambda item: -generation.row_of[item])
    return order.index(one.target) if one.target in order else None


@pytest.mark.parametrize("ranker", [None, {"kind": "backwards"}])
def test_accuracy_agrees_with_one_case_at_a_time(make_generation, ranker):
    generation = make_generation(ranker)
    cases = list(drawn_cases(600))  # more than one batch
    ranks = [slow_rank(generation, one, DEPTH) for one in cases]
    expected = metrics.of_targets([99 if r is None else r for r in ranks], [0] * len(ranks), k=5)
    assert 0.05 < expected.hit_rate < 0.95
    assert served.accuracy(generation, cases, 5, depth=DEPTH) == expected


def test_a_user_without_a_known_item_ties_everything(make_generation):
    found = served.accuracy(make_generation(), [case(["nobody's"], "i3")], 5, depth=DEPTH)
    assert found.hit_rate == pytest.approx(5 / 20)


def test_what_stands_in_the_history_cannot_be_hit(make_generation):
    found = served.accuracy(make_generation(), [case(["i1", "i2"], "i1")], 20, depth=DEPTH)
    assert found.hit_rate == 0.0


def test_scores_that_are_not_finite_have_no_accuracy(make_generation):
    generation = make_generation()
    generation.item_vectors = generation.item_vectors.copy()
    generation.item_vectors[3] = np.nan
    assert math.isnan(served.accuracy(generation, [case(["i1"], "i2")], 5, depth=DEPTH).ndcg)


def test_no_cases_have_no_accuracy(make_generation):
    assert served.accuracy(make_generation(), [], 5, depth=DEPTH).cases == 0


@pytest.mark.parametrize("ranker", [None, {"kind": "backwards"}])
def test_the_lists_are_those_that_would_be_shown(make_generation, ranker):
    generation = make_generation(ranker)
    cases = list(drawn_cases(50))
    judged = served.judge(generation, cases, 4, depth=DEPTH)
    for one, rows in zip(cases, judged.lists.tolist(), strict=True):
        for place, row in enumerate(rows):
            assert slow_rank(generation, one._replace(target=f"i{row}"), DEPTH) == place


def test_a_list_longer_than_what_is_left_ends_with_nothing(make_generation):
    had = [f"i{n}" for n in range(18)]
    (rows,) = served.judge(make_generation(), [case(had, "i19")], 30, depth=DEPTH).lists
    assert sorted(rows[:2]) == [18, 19]
    assert (rows[2:] == -1).all()


@pytest.mark.parametrize("wild", [np.nan, np.inf])
def test_a_ranker_whose_scores_are_not_finite_has_no_accuracy(make_generation, wild):
    generation = make_generation({"kind": "backwards"})
    generation.ranker.score = lambda user, rows: np.full(len(rows), wild, np.float32)
    assert math.isnan(served.accuracy(generation, [case(["i1"], "i2")], 5, depth=DEPTH).ndcg)


def test_where_a_generation_carries_item_weights_they_are_what_it_says(make_generation):
    generation = make_generation()
    starts = np.r_[0, 2, np.full(19, 2)].astype(np.int64)  # i0 points at i7 and, less so, at i3
    parameters = {"session_gap_s": 1800, "half_steps": 1.0, "before": 1.0, "last": 10}
    generation.item_weights = ItemWeights(
        starts, np.array([7, 3]), np.array([0.5, 0.25], np.float32), parameters
    )
    judged = served.judge(
        generation, [case(["i0"], "i3"), case(["i0", "i7"], "i3")], 2, depth=DEPTH
    )
    assert judged.better.tolist() == [1, 0]
    assert judged.tied.tolist() == [0, 0]
    assert judged.lists[0].tolist() == [7, 3]


def slow_fused(generation, one, depth, retrieval):
    """Scores of what vectors (or ranker) and item weights find, as their z-scores add up."""
    (user,) = generation.encoder.encode([one.history])
    left = [i for i in generation.item_ids if i not in one.history.item_ids]
    by_vector = {i: float(generation.item_vectors[generation.row_of[i]] @ user) for i in left}
    share = generation.item_weights.read(one.history, generation.row_of)
    sums = generation.item_weights.scores(share).of(np.arange(20))
    by_weights = {i: float(sums[generation.row_of[i]]) for i in left}
    near = sorted(left, key=lambda i: -by_vector[i])[:depth]
    pointed = sorted(left, key=lambda i: -by_weights[i])[: retrieval.item_weights_depth]
    found = sorted({*near, *(i for i in pointed if by_weights[i] > 0)})
    if generation.ranker is not None:
        by_vector = {i: float(generation.row_of[i]) for i in found}
    layers = [np.array([scores[i] for i in found]) for scores in (by_vector, by_weights)]
    first, second = ((layer - layer.mean()) / (layer.std() or 1.0) for layer in layers)
    totals = retrieval.vector_weight * first + retrieval.item_weights_weight * second
    return dict(zip(found, totals, strict=True))


@pytest.mark.parametrize("ranker", [None, {"kind": "backwards"}])
def test_item_weights_of_another_model_join_the_vectors_as_retrieval_weighs_them(
    make_generation, ranker
):
    generation = make_generation(ranker)
    random = np.random.default_rng(5)
    parameters = {"session_gap_s": 1800, "half_steps": 4.0, "before": 1.0, "last": 10}
    generation.item_weights = ItemWeights(
        5 * np.arange(21),
        np.concatenate([np.sort(random.permutation(20)[:5]) for _ in range(20)]),
        random.standard_normal(100).astype(np.float32),
        parameters | {"by": "ease"},
    )
    retrieval = RetrievalSettings(item_weights_depth=4, vector_weight=0.7, item_weights_weight=0.3)
    cases = list(drawn_cases(20))
    judged = served.judge(generation, cases, 3, depth=DEPTH, retrieval=retrieval)
    for one, rows in zip(cases, judged.lists, strict=True):
        expected = slow_fused(generation, one, DEPTH, retrieval)
        best = sorted(expected, key=lambda item: -expected[item])[:3]
        assert [generation.item_ids[row] for row in rows] == best


def test_item_weights_whose_sums_are_beyond_single_precision_have_no_accuracy(make_generation):
    generation = make_generation()
    largest = np.finfo(np.float32).max
    starts = np.r_[0, 1, np.full(19, 2)].astype(np.int64)  # i0 and i1 point at i7
    parameters = {"session_gap_s": 1800, "half_steps": 1e9, "before": 1.0, "last": 10}
    generation.item_weights = ItemWeights(starts, np.array([7, 7]), np.full(2, largest), parameters)
    assert math.isnan(served.accuracy(generation, [case(["i0", "i1"], "i7")], 5, depth=DEPTH).ndcg)


def test_an_unknown_user_is_shown_what_the_caller_says(make_generation):
    generation = make_generation({"kind": "backwards"})
    unknown = np.arange(20, dtype=np.float32)
    histories = [case(["nobody's"], "").history, case(["i4"], "").history]
    first, second = served.scores(generation, histories, [None, None], depth=DEPTH, unknown=unknown)
    assert first.tolist() == unknown.tolist()
    assert second.tolist() != unknown.tolist()


class Parity:
    """Content that knows even items by their title, and of odd ones nothing."""

    def encode(self, items):
        return np.array([[int(item.title) % 2 == 0] * 4 for item in items], np.float32)


def test_items_younger_than_a_generation_are_found_by_their_content(make_generation):
    generation = make_generation()
    known = {
        item_id: Item(item_id=item_id, title=title, available=available)
        for item_id, title, available in [
            *(("i3", "2", True), ("new", "2", True), ("odd", "3", True), ("sold out", "2", False)),
        ]
    }
    assert served.with_new_items(generation, known) is generation  # it has no content
    generation.content = Parity()
    whole = served.with_new_items(generation, known)
    assert whole.item_ids == [*generation.item_ids, "new"]
    assert len(generation.item_ids) == len(generation.item_vectors) == 20  # it is as it was
    user = generation.encoder.encode([case(["i1"], "").history])[0]
    (found,) = served.scores(whole, [case(["i1"], "").history], [None], depth=DEPTH)
    assert found[whole.row_of["new"]] == pytest.approx(user.sum())
    judged = served.judge(whole, [case(["i1"], "new"), case(["i1"], "odd")], 20, depth=DEPTH)
    assert judged.better[0] < 20
    assert judged.better[1] == metrics.NO_CANDIDATE
    generation.ranker = RANKERS["backwards"]({}, {})
    assert served.with_new_items(generation, known) is generation
