"""What every model keeps to that can start from its last fit."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from rheos.generation import Generation
from rheos.snapshot_store import LocalStore
from tests.contract.test_models import (
    CASES,
    ITEMS,
    Case,
    checkerboard,
    final_scores,
    history,
)
from trainer import fitting
from trainer.data_set import DataSet
from trainer.fitting import make
from trainer.models import model_class, model_of
from trainer.models.model import Fitted, Run, Start
from trainer.warm_start import WarmStarts

NEW = 10
"""An item that is left out of the last fit, for those who take even ones."""

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


def test_it_makes_a_difference_the_same_one_each_time_and_is_less_work(last: LastFit) -> None:
    told: list[tuple[int, int]] = []

    def progress(stage: str, done: int, total: int) -> None:
        told.append((done, total))

    fits, ends = [], []
    for start in (None, last.start, last.start):
        fits.append(fitting.fit(last.model, last.data, Run(3, 1, progress, start=start)))
        ends.append(told[-1])
    assert [done for done, _ in ends] == [total for _, total in ends]
    assert ends[1][0] <= ends[0][0] / 2
    cold, warm, again = fits
    np.testing.assert_array_equal(warm.item_vectors, again.item_vectors)
    assert not np.array_equal(cold.item_vectors, warm.item_vectors)


def test_an_item_that_the_last_fit_did_not_know_is_found(last: LastFit, tmp_path: Path) -> None:
    data, new = last.data, f"i{NEW:02d}"
    before = data.where(data.items != data.item_ids.index(new))
    kept = fitting.fit(last.model, before, Run(seed=3)).keep
    assert new not in before.item_ids
    warm = last.again(data, Start(before.user_ids, before.item_ids, kept))
    store = LocalStore(tmp_path)
    generation = Generation(store.get(store.put(*make(1, last.model, warm, data, {}))))
    liking, others = (
        final_scores(generation, user)
        for user in generation.encoder.encode([history(0, 4, 8, 12), history(1, 5, 9, 13)])
    )
    assert liking[NEW] > liking[1:ITEMS:2].max()  # above all of the other colour
    assert others[NEW] < np.median(others[1:ITEMS:2])


def test_tensors_of_other_shapes_do_no_harm(last: LastFit) -> None:
    """As where features are declared otherwise than last time."""
    odd = {
        name: np.zeros((len(tensor), 3, 3) if "." in name else (3, 3, 3), np.float32)
        for name, tensor in last.start.tensors.items()
    }
    fitted = last.again(last.data, last.start._replace(tensors=odd))
    assert fitted.item_vectors.shape == last.fitted.item_vectors.shape
