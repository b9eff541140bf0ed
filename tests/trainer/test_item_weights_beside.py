"""Item weights of one model beside the vectors of another, in one generation."""

from dataclasses import replace
from pathlib import Path

import msgspec
import numpy as np
import pytest

from rheos.generation import Generation
from rheos.settings import SettingsError, from_tree
from rheos.snapshot_store import LocalStore
from tests.contract.test_models import checkerboard
from trainer.fitting import FitError, fit, make, with_item_weights
from trainer.models import item_weigher_of_settings
from trainer.models.als import Als
from trainer.models.ease import Ease
from trainer.models.model import Run

ALS, EASE = Als(factors=4, iterations=5), Ease(regularisation=1.0, damping=0.1)


def test_a_generation_has_the_vectors_of_one_and_the_weights_of_the_other(tmp_path: Path) -> None:
    data = checkerboard()
    alone = fit(ALS, data, Run())
    store = LocalStore(tmp_path)
    both = with_item_weights(alone, EASE, data, Run())
    generation = Generation(store.get(store.put(*make(1, ALS, both, data, {}))))
    np.testing.assert_array_equal(generation.item_vectors, alone.item_vectors)
    assert generation.manifest.model == "als"
    weights = generation.item_weights
    assert weights is not None
    expected = EASE.item_weights(data, Run())
    np.testing.assert_array_equal(weights.weights, expected.weights)
    # The manifest is enough to fit the same again.
    assert weights.parameters["by"] == "ease"
    assert msgspec.convert(weights.parameters["with"], Ease) == EASE


def test_weights_of_its_own_stay_and_nothing_joins_where_none_are_wanted() -> None:
    data = checkerboard()
    own = fit(EASE, data, Run())
    assert with_item_weights(own, Ease(regularisation=9.0), data, Run()) is own
    alone = fit(ALS, data, Run())
    assert with_item_weights(alone, None, data, Run()) is alone


def test_a_private_model_gets_none_for_they_would_tell_what_it_hides() -> None:
    data = checkerboard()
    private = fit(ALS, data, Run())._replace(privacy={"epsilon": 1.0})
    assert with_item_weights(private, EASE, data, Run()).item_weights is None


def test_weights_that_cannot_be_fitted_are_a_failed_fit() -> None:
    data = checkerboard()
    alone = fit(ALS, data, Run())
    disliked = replace(data, weights=-data.weights)
    with pytest.raises(FitError, match="ease: ValueError: ease: no interaction"):
        with_item_weights(alone, EASE, disliked, Run())
    with pytest.raises(FitError, match="other items"):
        with_item_weights(alone._replace(item_ids=["other"]), EASE, data, Run())


def test_the_settings_name_the_model_and_its_parameters() -> None:
    assert item_weigher_of_settings(from_tree({"trainer": {"item_weights": "none"}})) is None
    trainer = {"item_weights": "ease", "item_weights_parameters": {"damping": 0.4}}
    assert item_weigher_of_settings(from_tree({"trainer": trainer})) == Ease(damping=0.4)
    wrong = {"item_weights": "ease", "item_weights_parameters": {"damping": 4}}
    with pytest.raises(SettingsError, match=r"item_weights_parameters\.damping = 4"):
        item_weigher_of_settings(from_tree({"trainer": wrong}))
    with pytest.raises(SettingsError, match="item_weights"):
        from_tree({"trainer": {"item_weights": "als"}})
