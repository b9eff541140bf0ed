"""What features are worth where there are no events: new items and new users on MovieLens-1M.

Three fits of the two-tower model, each without a third of the users and a tenth of the items (drawn
at random, seeded): together they ask about every user as a new one. Judged, through a snapshot
written and read back, NumPy alone:

new items   for each fitted user who liked some of the left-out items: these are to be found among
            all left-out items, which have a vector from title and genres alone.
new users   for each left-out user: what she liked is to be found among all fitted items, from
            gender, age and occupation alone, without any history.

Recall@20 and NDCG@20 over their lists, with the 95 % interval of the difference to each baseline by
paired bootstrap over these. "Liked" is a rating of 4 or 5 stars; popularity counts these. The
ratings are the first 487,650 lines of the data set, of half of its users. The model's defaults were
chosen on the draw of seed 0, so the figures are of seed 1. Needs ../shared/data.
"""

import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

if __package__ in (None, ""):
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks import movielens_1m, report
from rheos.catalogue import Attribute, Item, UserAttributes
from rheos.generation import Generation
from rheos.settings import FeatureDeclaration, FeatureSettings
from rheos.snapshot_store import LocalStore
from rheos.state import Float32s, History
from trainer import bootstrap
from trainer.data_set import DataSet, of_interactions
from trainer.fitting import make
from trainer.models import model_of
from trainer.models.model import Run

K = 20
MEASURES = (f"recall@{K}", f"ndcg@{K}")
FITS = 3
ITEMS_LEFT_OUT = 0.1  # by each fit
LIKED = 0.6
"""The weight of four stars: (4 - 2.5) / 2.5."""
FEATURES = FeatureSettings(
    items=(
        FeatureDeclaration(name="genres", kind="bag"),
        FeatureDeclaration(name="year", kind="numeric"),
        FeatureDeclaration(name="title", kind="text", buckets=4096),
    ),
    users=(
        FeatureDeclaration(name="gender", kind="categorical"),
        FeatureDeclaration(name="age", kind="categorical"),
        FeatureDeclaration(name="occupation", kind="categorical"),
    ),
)


def read() -> DataSet:
    """The ratings with what is known of users and movies."""
    users, items, times, weights = [], [], [], []
    for rating in movielens_1m.ratings():
        users.append(rating.user)
        items.append(rating.movie)
        times.append(rating.time_ms)
        weights.append((rating.stars - 2.5) / 2.5)
    return replace(
        of_interactions(users, items, times, weights),
        items_known=dict(map(_movie, _lines("movies.dat"))),
        users_known=dict(map(_person, _lines("users.dat"))),
        features=FEATURES,
    )


def _lines(name: str) -> list[str]:
    return (movielens_1m.FOLDER / name).read_text("latin-1").splitlines()


def _movie(line: str) -> tuple[str, Item]:
    item_id, title, genres = line.split("::")
    year = float(title[-5:-1])  # Toy Story (1995)
    known: dict[str, Attribute] = {"genres": genres.split("|"), "year": year}
    return item_id, Item(item_id=item_id, title=title[:-7], attributes=known)


def _person(line: str) -> tuple[str, UserAttributes]:
    user_id, gender, age, occupation, _ = line.split("::")
    known: dict[str, Attribute] = {"gender": gender, "age": age, "occupation": occupation}
    return user_id, UserAttributes(user_id=user_id, attributes=known)


Rows = dict[str, list[tuple[float, float]]]
"""Recall and NDCG of each user's list, by recommender."""


def measured(
    scores: np.ndarray, relevant: np.ndarray, random: np.random.Generator
) -> tuple[float, float]:
    """Recall@K (of at most K) and NDCG@K of the places ``relevant`` under ``scores`` (n,).

    Equal scores are put in an order of chance.
    """
    top = np.lexsort((random.random(len(scores)), -scores))[:K]
    hits = np.isin(top, relevant)
    most = min(K, len(relevant))
    gains = 1.0 / np.log2(np.arange(K) + 2.0)
    return hits.sum() / most, float(gains[: len(top)] @ hits / gains[:most].sum())


def compared(rows: Rows) -> dict[str, Any]:
    """Each recommender's means, and by how much the first one is ahead of the others."""
    told: dict[str, Any] = {}
    first, *others = rows
    own = np.array(rows[first])
    groups = np.arange(len(own))
    for name in (first, *others):
        found = np.array(rows[name])
        told[name] = {}
        for measure, mine, its in zip(MEASURES, own.T, found.T, strict=True):
            told[name][measure] = round(float(its.mean()), 4)
            if name != first:
                random = np.random.default_rng(0)
                ahead = bootstrap.paired(
                    mine, its, groups, margin=0.0, confidence=0.975, random=random
                )
                told[name][f"ahead by {measure}"] = [round(ahead.low, 4), round(ahead.high, 4)]
    return told | {"users": len(own)}


def likes(data: DataSet) -> Float32s:
    """How often each item was liked (N,)."""
    return data.keeping(data.weights >= LIKED).popularity()


def new_items(
    generation: Generation, data: DataSet, train: DataSet, cold: list[int], rows: Rows
) -> None:
    assert generation.content is not None
    records = [data.items_known[data.item_ids[item]] for item in cold]
    vectors = generation.content.encode(records)
    place_of = {item: place for place, item in enumerate(cold)}
    hindsight = likes(data)[cold]  # what nobody can know beforehand
    random = np.random.default_rng(0)
    begins = data.begins()
    train_begins = train.begins()
    train_rows = {user_id: row for row, user_id in enumerate(train.user_ids)}
    for row, user_id in enumerate(data.user_ids):
        if user_id not in train_rows:
            continue
        mine = slice(begins[row], begins[row + 1])
        liked = data.items[mine][data.weights[mine] >= LIKED]
        relevant = np.array([place_of[item] for item in liked.tolist() if item in place_of])
        if not len(relevant):
            continue
        own = train_rows[user_id]
        span = slice(train_begins[own], train_begins[own + 1])
        user = generation.encoder.encode([train.history(span)], [data.users_known.get(user_id)])[0]
        for name, scores in {
            "two-tower, by content": vectors @ user,
            "random": np.zeros(len(cold)),
            "popularity in hindsight": hindsight,
        }.items():
            rows.setdefault(name, []).append(measured(scores, relevant, random))


def new_users(
    generation: Generation, data: DataSet, train: DataSet, cold: list[int], rows: Rows
) -> None:
    row_of, random = generation.row_of, np.random.default_rng(0)
    nobody = History([], np.zeros(0, np.float32), np.zeros(0, np.int64))
    begins, popularity = data.begins(), likes(train)
    for row in cold:
        mine = slice(begins[row], begins[row + 1])
        liked = [data.item_ids[item] for item in data.items[mine][data.weights[mine] >= LIKED]]
        relevant = np.array([row_of[item_id] for item_id in liked if item_id in row_of])
        if not len(relevant):
            continue
        known = data.users_known.get(data.user_ids[row])
        user = generation.encoder.encode([nobody], [known])[0]
        for name, scores in {
            "two-tower, by attributes": generation.item_vectors @ user,
            "popularity": popularity,
        }.items():
            rows.setdefault(name, []).append(measured(scores, relevant, random))


def main() -> int:
    options = report.arguments(
        __doc__,
        ("--seed", {"type": int, "default": 1}),
        ("--threads", {"type": int, "default": 1}),
        ("--set", {"action": "append", "default": [], "metavar": "PARAMETER=VALUE"}),
    )
    if not movielens_1m.FOLDER.is_dir():
        print(f"the data set is not at {movielens_1m.FOLDER}", file=sys.stderr)
        return 2
    data = read()
    random = np.random.default_rng(options.seed)
    left_items = random.permutation(len(data.item_ids))
    left_users = np.array_split(random.permutation(len(data.user_ids)), FITS)
    each = int(ITEMS_LEFT_OUT * len(data.item_ids))
    chosen = {
        name: float(value) if "." in value or "e" in value else int(value)
        for name, _, value in (pair.partition("=") for pair in options.set)
    }
    model = model_of("two_tower", chosen)
    item_lists: Rows = {}
    user_lists: Rows = {}
    interactions: list[int] = []
    seconds, cpu_seconds = 0.0, 0.0
    for number, users in enumerate(left_users):
        items = left_items[number * each : (number + 1) * each]
        train = data.where(~(np.isin(data.items, items) | np.isin(data.users, users)))
        began, cpu = time.monotonic(), time.process_time()
        fitted = model.fit(train, Run(options.seed, options.threads))
        seconds += time.monotonic() - began
        cpu_seconds += time.process_time() - cpu
        report.note(f"fit {number + 1} of {FITS}")
        with tempfile.TemporaryDirectory() as folder:
            store = LocalStore(Path(folder))
            generation = Generation(store.get(store.put(*make(1, model, fitted, train, {}))))
        interactions.append(len(train))
        new_items(generation, data, train, sorted(items.tolist()), item_lists)
        new_users(generation, data, train, sorted(users.tolist()), user_lists)
    outcome = {
        "parameters": msgspec.to_builtins(model),
        "seed": options.seed,
        "interactions": interactions,
        "fit_seconds": round(seconds, 1),
        "fit_cpu_seconds": round(cpu_seconds, 1),
        "new_items": compared(item_lists) | {"items of each fit": each},
        "new_users": compared(user_lists),
    }
    item_rows, user_rows = outcome["new_items"], outcome["new_users"]
    ahead = f"ahead by ndcg@{K}"
    claims = {
        "new items are found better than at random": item_rows["random"][ahead][0] > 0,
        "new users get better lists than popularity's": user_rows["popularity"][ahead][0] > 0,
    }
    return report.finish("cold_start", outcome, claims, as_json=options.json)


if __name__ == "__main__":
    sys.exit(main())
