"""What every model keeps to that can start from its last fit."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from tests.contract.test_models import CASES, Case, checkerboard
from trainer import fitting
from trainer.data_set import DataSet
from trainer.models import model_class, model_of
from trainer.models.model import Fitted, Run, Start
from trainer.warm_start import WarmStarts

WARM = [case for case in CASES if "warm_start" in model_class(case.name).can]


class LastFit:
    """A model fitted on the checkerboard without its last events, and what that fit kept."""

    def __init__(self, case: Case, folder: Path) -> None:
        self.model = model_of(case.name, case.parameters)
        self.data = checkerboard(missing=2)
        self.fitted = fitting.fit(self.model, self.data, Run(seed=3))
        store = WarmStarts(folder)
        store.keep(self.model, "1-0123abcd", self.data, self.fitted)
        start = store.read(self.model, "1-0123abcd")
        assert start is not None
        self.start = start

    def again(self, data: DataSet, start: Start | None) -> Fitted:
        return fitting.fit(self.model, data, Run(seed=3, start=start))


@pytest.fixture(scope="module", params=WARM, ids=lambda case: case.name)
def last(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> LastFit:
    return LastFit(request.param, tmp_path_factory.mktemp(request.param.name))


def test_rows_are_those_of_the_ids(last: LastFit) -> None:
    rows = {"user": len(last.data.user_ids), "item": len(last.fitted.item_ids)}
    for name, tensor in last.start.tensors.items():
        assert len(tensor) == rows.get(name.partition(".")[0], len(tensor)), name


def test_new_users_and_items_join_and_those_who_left_do_no_harm(last: LastFit) -> None:
    data = last.data
    names = {"u03": "new user", "u04": "another"}
    renamed = [names.get(user, user) for user in data.user_ids]
    order = np.argsort(renamed, kind="stable")
    rank = np.empty(len(order), np.int32)
    rank[order] = np.arange(len(order))
    rows = np.lexsort((data.times_ms, rank[data.users]))
    changed = replace(
        data.where(np.ones(len(data), bool)),
        user_ids=[renamed[row] for row in order],
        users=rank[data.users][rows],
        items=data.items[rows],
        weights=data.weights[rows],
        times_ms=data.times_ms[rows],
        append_times_ms=data.append_times_ms[rows],
        offsets=data.offsets[rows],
        partitions=data.partitions[rows],
    )
    fewer = changed.where(changed.items != 5)
    fitted = last.again(fewer, last.start)
    assert fitted.item_ids == fewer.item_ids
    assert len(fitted.user_vectors) == len(fewer.user_ids)


def test_it_makes_a_difference_and_the_same_one_each_time(last: LastFit) -> None:
    cold, warm, again = (last.again(last.data, start) for start in (None, last.start, last.start))
    np.testing.assert_array_equal(warm.item_vectors, again.item_vectors)
    assert not np.array_equal(cold.item_vectors, warm.item_vectors)


def test_tensors_of_other_shapes_do_no_harm(last: LastFit) -> None:
    """As where features are declared otherwise than last time."""
    odd = {
        name: np.zeros((len(tensor), 3, 3) if "." in name else (3, 3, 3), np.float32)
        for name, tensor in last.start.tensors.items()
    }
    fitted = last.again(last.data, last.start._replace(tensors=odd))
    assert fitted.item_vectors.shape == last.fitted.item_vectors.shape
