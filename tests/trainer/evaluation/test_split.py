"""The paper's split: its files are read strictly, and ranked as the paper ranked them."""

import lzma
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest
from msgspec import Struct

from rheos.generation import RANKERS
from trainer.evaluation import split
from trainer.models.model import Fitted, Run

DATA = Path(__file__).parents[4] / "shared" / "data" / "ncf-ml-1m"


def write(folder, negatives=None, test="0\t2\n1\t0\n"):
    with lzma.open(folder / "train.pairs.tsv.xz", "wt") as file:
        file.write("0\t0\t5\t978300000\n0\t1\n1\t1\n1\t2\t\t\n")
    (folder / "test.rating").write_text(test)
    if negatives is None:
        others = "\t".join(str(n) for n in range(100, 199))
        negatives = f"(0,2)\t{others}\n(1,0)\t{others}\n"
    with lzma.open(folder / "test.negative.xz", "wt") as file:
        file.write(negatives)


class Half(Struct):
    """A model that scores the first user's item on top and cannot tell for the second."""

    ranker: dict[str, str] | None = None

    name: ClassVar[str] = "half"

    def fit(self, data, run):
        vectors = np.array([[0.0], [0.0], [1.0]], np.float32)
        users = np.array([[1.0], [0.0]], np.float32)
        encoder = {"kind": "fold_in", "alpha": 1.0, "regularisation": 1.0}
        return Fitted(data.item_ids, vectors, encoder, self.ranker, {}, users)


def test_a_tiny_split_worked_out_by_hand(tmp_path):
    write(tmp_path)
    found = split.evaluate(split.read_ncf(tmp_path), Half(), 10, Run())
    # The second user's hundred scores all tie: a tenth of a hit.
    assert found.hit_rate == pytest.approx((1 + 0.1) / 2)
    assert found.cases == 2


def test_a_ranker_scores_the_candidates_that_the_model_knows(tmp_path, monkeypatch):
    class Against:
        def score(self, user_vector, rows):
            return -np.ones(len(rows), np.float32)

    monkeypatch.setitem(RANKERS, "against", lambda parameters, tensors: Against())
    write(tmp_path)
    model = Half({"kind": "against"})
    found = split.evaluate(split.read_ncf(tmp_path), model, 10, Run())
    assert found.hit_rate == 0.0


def test_ratings_and_times_are_not_read(tmp_path):
    write(tmp_path)
    train = split.read_ncf(tmp_path).train
    assert len(train) == 4
    assert train.weights.tolist() == [1.0] * 4


@pytest.mark.parametrize(
    ("negatives", "message"),
    [
        ("(0,2)\t5\n", "line 1: 1, not 99 items"),
        ("(0,7)\t5\n", r"line 1: \(0,7\) is not what test.rating holds out"),
        ("", "has 0 users, test.rating 2"),
        ("\t5\n", "line 1: 2 cells"),
    ],
)
def test_files_that_do_not_fit_together_are_refused(tmp_path, negatives, message):
    write(tmp_path, negatives)
    with pytest.raises(ValueError, match=message):
        split.read_ncf(tmp_path)


@pytest.mark.skipif(not DATA.is_dir(), reason="../shared/data/ncf-ml-1m is not here")
def test_the_papers_files_are_read_whole():
    found = split.read_ncf(DATA)
    assert len(found.train) == 994_169
    assert len(found.candidates) == 6_040
    assert {len(set(items)) for items in found.candidates.values()} <= {99, 100}
