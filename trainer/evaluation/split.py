"""Published splits: a model fitted and judged exactly as a paper did it.

``ncf``: He et al., "Neural Collaborative Filtering" (WWW 2017), section 4.1. Each user's latest
interaction is held out and ranked among 99 items that the user never had, drawn once by the
authors; HR@10 and NDCG@10 are means over users. Sampled metrics are not consistent with a ranking
of all items (Krichene & Rendle, KDD 2020): good for a comparison with the paper, and no more.
"""

import lzma
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np

from rheos.generation import Generation
from rheos.state import Float32s, Int64s
from trainer import data_set, fitting
from trainer.data_set import DataSet
from trainer.evaluation import metrics, refit
from trainer.evaluation.metrics import Accuracy
from trainer.models.model import Model, Progress, Run

NEGATIVES = 99

_TRAIN, _TEST, _NEGATIVES = "train.pairs.tsv.xz", "test.rating", "test.negative.xz"


class SampledSplit(NamedTuple):
    """``candidates[user]`` are item ids: first the one held out, then the sampled negatives."""

    train: DataSet
    candidates: dict[str, list[str]]


def read_ncf(folder: Path) -> SampledSplit:
    """Reads the paper's files. Raises ValueError naming file and line, OSError for a file."""
    users, items = [], []
    for _, (user, item, *_) in _lines(folder / _TRAIN, least=2):
        users.append(user)
        items.append(item)
    # The paper's model takes pairs: neither ratings nor times, which half of the rows lack.
    train = data_set.of_interactions(users, items, np.zeros(len(users), np.int64))
    held_out = {cells[0]: cells[1] for _, cells in _lines(folder / _TEST, least=2)}
    candidates: dict[str, list[str]] = {}
    for number, (pair, *negatives) in _lines(folder / _NEGATIVES, least=1):
        user, _, item = pair.strip("()").partition(",")
        if held_out.get(user) != item:
            raise ValueError(f"{_NEGATIVES} line {number}: {pair} is not what {_TEST} holds out")
        if len(negatives) != NEGATIVES:
            raise ValueError(f"{_NEGATIVES} line {number}: {len(negatives)}, not {NEGATIVES} items")
        candidates[user] = [item, *negatives]
    if len(candidates) != len(held_out):
        raise ValueError(f"{_NEGATIVES} has {len(candidates)} users, {_TEST} {len(held_out)}")
    return SampledSplit(train, candidates)


def evaluate(split: SampledSplit, model: Model, k: int, run: Run) -> Accuracy:
    """Fits ``model`` on the training part and ranks each user's candidates.

    A user is her fitted vector, as in the paper; the score is the ranker's where the model has
    one, else the inner product. Items and users without training data score 0. Raises FitError.
    """
    fitted = fitting.fit(model, split.train, run)
    generation = refit.in_memory(fitting.make(1, model, fitted, split.train, {}))
    return judge(split, generation, fitted.user_vectors, k, run.progress)


def judge(
    split: SampledSplit, generation: Generation, vectors: Float32s, k: int, progress: Progress
) -> Accuracy:
    """Ranks each user's candidates; ``vectors`` (U, dimensions) are of ``split.train``'s users."""
    row_of_user = {user: row for row, user in enumerate(split.train.user_ids)}
    better, tied = [], []
    for done, (user, item_ids) in enumerate(split.candidates.items()):
        rows: Int64s = np.array([generation.row_of.get(item, -1) for item in item_ids], np.int64)
        scores = np.zeros(len(rows))
        if user in row_of_user:
            vector, known = vectors[row_of_user[user]], rows >= 0
            if generation.ranker is not None:
                scores[known] = generation.ranker.score(vector, rows[known])
            else:
                scores[known] = generation.item_vectors[rows[known]] @ vector
        above, beside = metrics.compare(scores, 0)
        better.append(above)
        tied.append(beside)
        if done % 100 == 0:
            progress("evaluate", done, len(split.candidates))
    progress("evaluate", len(better), len(split.candidates))
    return metrics.of_targets(better, tied, k)


def _lines(path: Path, least: int) -> Iterator[tuple[int, list[str]]]:
    """Numbered lines of tab-separated cells, at least ``least`` of them each."""
    opened = lzma.open if path.suffix == ".xz" else open
    with opened(path, "rt", encoding="ascii") as file:
        for number, line in enumerate(file, 1):
            cells = line.rstrip("\n").split("\t")
            if len(cells) < least or not cells[0]:
                raise ValueError(f"{path.name} line {number}: {len(cells)} cells, not {least}")
            yield number, cells
