"""Models and popularity on a holdout, against plain loops over users and items."""

import math
from collections import Counter

import msgspec
import numpy as np
import pytest

from rheos.settings import Settings, from_tree
from tests.trainer.evaluation.plain_ranking import of_ranking
from tests.trainer.shop import taste
from trainer import fitting
from trainer.data_set import of_interactions
from trainer.evaluation import cross_validation, judgement, metrics, refit, served, time_split
from trainer.evaluation.judgement import POPULARITY
from trainer.models import model_of
from trainer.models.model import Run

K = 5
SETTINGS = Settings()
ALS = model_of("als", {"factors": 6, "iterations": 4})


@pytest.fixture(scope="module")
def data():
    events = taste(1500)
    columns = [(event.user_id, event.item_id, event.time_ms) for event in events]
    late = events[-1].time_ms
    # Somebody new, an item that is new, and an item taken again.
    columns += [("stranger", "i3", late), ("u0", "novelty", late), ("u0", "novelty", late + 1)]
    return of_interactions(*zip(*columns, strict=True))


@pytest.fixture(scope="module")
def part(data):
    return time_split.split(data, time_split.time_of(data, 0.8))


@pytest.fixture(scope="module")
def found(part):
    return judgement.compare([part], [ALS], K, SETTINGS, Run())


def rankings(part, name):
    """By user the whole ranking, ties in an order that the measures must not depend on much."""
    counts = Counter(part.train.item_ids[item] for item in part.train.items)
    fitted = fitting.fit(ALS, part.train, Run())
    generation = refit.in_memory(fitting.make(1, ALS, fitted, part.train, {}))
    for user, history in zip(part.wanted, part.histories(SETTINGS.history.size), strict=True):
        (vector,) = generation.encoder.encode([history])
        own = counts
        if name == "als" and vector.any():
            products = (generation.item_vectors @ vector).tolist()
            own = dict(zip(generation.item_ids, products, strict=True))
        left = [item for item in counts if item not in history.item_ids]
        yield user, sorted(left, key=lambda item: -own[item]), own


@pytest.mark.parametrize("name", [POPULARITY, "als"])
def test_every_user_is_judged_as_by_hand(part, found, name):
    each = [of_ranking(ranked, part.wanted[user], K) for user, ranked, _ in rankings(part, name)]
    judged = found[name].all
    assert judged.cases == judged.users == len(part.wanted) > 30
    # Popularity ties often, and one order of the ties is not their mean; fitted scores never tie.
    tolerance = 0.03 if name == POPULARITY else 1e-6
    for measure in metrics.MEASURES:
        mean = np.mean([getattr(one, measure) for one in each])
        assert judged.measures[measure].mean == pytest.approx(mean, abs=tolerance), measure
    deviation = np.std([one.recall for one in each], ddof=1) / math.sqrt(len(each))
    assert judged.measures["recall"].standard_error == pytest.approx(deviation, abs=tolerance)


def test_a_model_with_taste_is_ahead_of_popularity_in_everything(found):
    als, popular = found["als"], found[POPULARITY]
    for measure in metrics.MEASURES:
        assert als.all.measures[measure].mean > popular.all.measures[measure].mean
    assert als.pointwise.auc > popular.pointwise.auc
    assert als.beyond_accuracy.coverage > popular.beyond_accuracy.coverage
    assert als.beyond_accuracy.gini < popular.beyond_accuracy.gini
    assert als.beyond_accuracy.popularity_lift < popular.beyond_accuracy.popularity_lift
    assert als.beyond_accuracy.novelty > popular.beyond_accuracy.novelty


def test_a_stranger_is_shown_what_is_popular(found):
    first = [judged.by_activity[0] for judged in found.values()]
    assert [(band.name, band.cases) for band in first] == [("0", 1), ("0", 1)]
    assert first[0].measures == first[1].measures


def test_an_item_that_the_fit_never_saw_is_a_miss_and_is_counted(part, found):
    for judged in found.values():
        band = judged.by_item[0]
        assert (band.name, band.cases) == ("0", 1)
        assert band.measures["hit_rate"].mean == 0.0
        assert sum(band.cases for band in judged.by_item) == sum(map(len, part.wanted.values()))


def test_each_item_to_find_is_placed_as_one_by_one(part, found):
    ranks = [
        sum(own[other] > own[item] for other in ranked) if item in ranked else 10**6
        for user, ranked, own in rankings(part, "als")
        for item in part.wanted[user]
    ]
    hits = sum(rank < K for rank in ranks)
    judged = sum(band.cases * band.measures["hit_rate"].mean for band in found["als"].by_item)
    assert judged == pytest.approx(hits, abs=1.0)  # the stranger's are tied


def test_accuracy_is_told_of_models_that_give_probabilities_only(part, found):
    assert math.isnan(found["als"].pointwise.accuracy)
    small = {"factors": 4, "mlp_factors": 4, "epochs": 2}
    (_, judged) = judgement.compare([part], [model_of("neumf", small)], K, SETTINGS, Run()).values()
    assert 0.3 < judged.pointwise.accuracy < 1
    assert judged.pointwise.log_loss > 0


def test_folds_are_judged_together(data):
    parts = list(cross_validation.folds(data, 3, "interactions", seed=0))
    together = judgement.compare(iter(parts), [ALS], K, SETTINGS, Run())["als"]
    alone = [judgement.compare([part], [ALS], K, SETTINGS, Run())["als"] for part in parts]
    cases = [judged.all.cases for judged in alone]
    assert together.all.cases == sum(cases)
    means = [judged.all.measures["ndcg"].mean for judged in alone]
    assert together.all.measures["ndcg"].mean == pytest.approx(np.average(means, weights=cases))
    assert together.all.users == len(data.user_ids)
    assert together.beyond_accuracy.lists == sum(cases)
    coverages = [judged.beyond_accuracy.coverage for judged in alone]
    assert together.beyond_accuracy.coverage == pytest.approx(np.mean(coverages))


def test_the_same_seed_says_the_same_again(part, found):
    again = judgement.compare([part], [ALS], K, SETTINGS, Run())
    assert msgspec.json.encode(again) == msgspec.json.encode(found)


def test_more_recommendations_than_items_are_no_error(part):
    judged = judgement.compare([part], [ALS], 10_000, SETTINGS, Run())["als"]
    assert judged.all.measures["recall"].mean > 0.95
    assert judged.beyond_accuracy.coverage == 1.0


def test_scores_that_are_not_finite_have_no_judgement(part, monkeypatch):
    def wild(made):
        generation = refit.Generation(
            refit.Snapshot("1-00000000", made.manifest, made.item_ids, dict(made.tensors))
        )
        generation.item_vectors = np.full_like(generation.item_vectors, np.nan)
        return generation

    monkeypatch.setattr(judgement.refit, "in_memory", wild)
    with pytest.raises(served.NotFiniteError):
        judgement.compare([part], [ALS], K, SETTINGS, Run())


def test_item_weights_join_where_the_settings_ask_for_them(part, found):
    settings = from_tree({"trainer": {"item_weights": "ease"}})
    with_weights = judgement.compare([part], [ALS], K, settings, Run())
    assert with_weights[POPULARITY].all == found[POPULARITY].all
    assert with_weights["als"].all.measures != found["als"].all.measures
    ndcg = with_weights["als"].all.measures["ndcg"].mean
    assert ndcg > found[POPULARITY].all.measures["ndcg"].mean
