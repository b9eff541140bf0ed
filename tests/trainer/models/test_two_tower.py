"""The two-tower model: NumPy serves what PyTorch trained, and the sampler's chances are true."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from rheos.catalogue import Item, UserAttributes
from rheos.features import Features
from rheos.generation import Generation
from rheos.settings import FeatureDeclaration, FeatureSettings
from rheos.snapshot import SnapshotError
from rheos.snapshot_store import LocalStore
from rheos.state import History
from trainer.data_set import DataSet, of_interactions
from trainer.fitting import make
from trainer.models.model import Fitted, Run, Start
from trainer.models.two_tower import TwoTower, _Histories, _Sampler
from trainer.models.two_tower_network import Network, Sizes

FEATURES = FeatureSettings(
    items=(
        FeatureDeclaration(name="title", kind="text", buckets=32),
        FeatureDeclaration(name="price", kind="numeric", scale="standard"),
        FeatureDeclaration(name="tags", kind="bag", buckets=2),
    ),
    users=(
        FeatureDeclaration(name="age", kind="numeric"),
        FeatureDeclaration(name="town", kind="categorical", buckets=2),
    ),
)
MODEL = TwoTower(factors=6, hidden=10, epochs=3, batch=32, negatives=8, learning_rate=0.02, last=9)


def shop(seed: int = 0, users: int = 25, items: int = 30) -> DataSet:
    """Users, some of whom nothing is known, who took items at random, each item once."""
    random = np.random.default_rng(seed)
    taken = [
        (f"u{user:02d}", f"i{item:02d}", step, float(random.choice([1.0, 0.4, -1.0])))
        for user in range(users)
        for step, item in enumerate(random.permutation(items)[: 3 + user % 12].tolist())
    ]
    user_ids, item_ids, times, weights = zip(*taken, strict=True)
    records = [
        Item(item_id=f"i{n:02d}", title=f"red {n % 4}", price=float(n), attributes={"tags": ["a"]})
        for n in range(0, items + 9, 2)
    ]
    people = [
        UserAttributes(user_id=f"u{n:02d}", attributes={"age": float(n), "town": "xyz"[n % 3]})
        for n in range(0, users, 2)
    ]
    return replace(
        of_interactions(user_ids, item_ids, times, weights),
        items_known={record.item_id: record for record in records},
        users_known={person.user_id: person for person in people},
        features=FEATURES,
    )


DATA = shop()


def generation_of(fitted: Fitted, data: DataSet, folder: Path) -> Generation:
    store = LocalStore(folder)
    return Generation(store.get(store.put(*make(1, MODEL, fitted, data, {}))))


@pytest.fixture(scope="module")
def fitted() -> Fitted:
    return MODEL.fit(DATA, Run(seed=1))


@pytest.fixture(scope="module")
def generation(fitted: Fitted, tmp_path_factory: pytest.TempPathFactory) -> Generation:
    return generation_of(fitted, DATA, tmp_path_factory.mktemp("two_tower"))


def history_of(data: DataSet, user: int) -> History:
    begins = data.begins()
    span = slice(begins[user], begins[user + 1])
    items = [data.item_ids[item] for item in data.items[span]]
    return History(items, data.weights[span], data.times_ms[span])


def test_numpy_encodes_users_as_pytorch_does(fitted: Fitted, generation: Generation) -> None:
    users = range(len(DATA.user_ids))
    encoded = generation.encoder.encode(
        [history_of(DATA, user) for user in users],
        [DATA.users_known.get(user_id) for user_id in DATA.user_ids],
    )
    np.testing.assert_allclose(encoded, fitted.user_vectors, atol=1e-4)
    assert np.abs(encoded).max() > 0.1


def test_numpy_reads_new_items_as_pytorch_does(fitted: Fitted, generation: Generation) -> None:
    content, parameters = generation.content, fitted.content
    assert content is not None
    assert parameters is not None
    features = Features.load(parameters["features"])
    user_features = Features.load(fitted.encoder["features"])
    sizes = Sizes(len(DATA.item_ids), features.size, user_features.size, 3, 6, 10)
    network = Network(sizes, torch.Generator())
    with torch.no_grad():
        for name, parameter in network.named_parameters():
            # "item.own" holds own, "item_table.<layout>" item_table.
            (kept,) = [key for key in fitted.keep if name in key.split(".")]
            parameter.copy_(torch.from_numpy(fitted.keep[kept]))
        records = [*DATA.items_known.values(), Item(item_id="x", title="blue", price=1e9)]
        rows = np.zeros(len(records), np.int64)
        alone = network.items(rows, features.encode(records), torch.zeros(len(records)))
        every = np.arange(len(DATA.item_ids))
        known = features.encode([DATA.items_known.get(item_id) for item_id in DATA.item_ids])
        np.testing.assert_allclose(network.items(every, known).numpy(), fitted.item_vectors)
    np.testing.assert_allclose(content.encode(records), alone.numpy(), atol=1e-4)


def test_what_stood_before_a_moment_is_what_the_encoder_would_read() -> None:
    histories = _Histories(DATA, 4)
    begins = DATA.begins()
    user = 20
    place = int(begins[user]) + 6
    past = histories.before(np.array([place, begins[user]]), np.array([user, user]))
    np.testing.assert_array_equal(past.rows[0], DATA.items[place - 4 : place][::-1])
    sums = np.abs(past.shares[0]).sum(axis=1)
    np.testing.assert_allclose(sums, 1, atol=1e-6)
    assert not past.shares[1].any()


def test_the_chances_of_the_candidates_are_their_frequencies() -> None:
    random = np.random.default_rng(5)
    items = np.repeat(np.arange(6), [50, 30, 12, 6, 2, 0]).astype(np.int32)
    sampler = _Sampler(items, 8, negatives=3)
    counts, told = np.zeros(8), np.zeros(8)
    draws = 4000
    for _ in range(draws):
        batch = random.choice(items, 5)
        candidates, own, chances = sampler.draw(batch, random)
        assert len(np.unique(candidates)) == len(candidates)
        np.testing.assert_array_equal(candidates[own], batch)
        counts[candidates] += 1
        told[candidates] = chances
    np.testing.assert_allclose(counts / draws, told, atol=0.03)


def test_one_item_alone_and_none_drawn_is_no_trouble() -> None:
    lone = of_interactions(["a", "b"], ["x", "x"], [1, 2])
    for negatives in (0, 1):
        fitted = TwoTower(epochs=1, negatives=negatives).fit(lone, Run())
        assert np.isfinite(fitted.item_vectors).all()
        assert np.isfinite(fitted.user_vectors).all()


def test_without_features_it_is_a_model_of_histories(tmp_path: Path) -> None:
    bare = replace(DATA, features=FeatureSettings(items=(), users=()))
    fitted = MODEL.fit(bare, Run())
    generation = generation_of(fitted, bare, tmp_path)
    assert not generation.encoder.reads_attributes
    assert generation.content is not None
    assert not generation.content.encode(list(DATA.items_known.values())).any()
    vectors = generation.encoder.encode([history_of(bare, 3)])
    np.testing.assert_allclose(vectors[0], fitted.user_vectors[3], atol=1e-4)


HOSTILE: list[Mapping[str, Any]] = [
    {"age": "old", "town": ["x", None]},
    {"age": float("nan"), "town": "z" * 60_000},
    {"age": 1e308, "town": 7.0},
    {"town": "\ud800"},
    {},
]


def test_hostile_records_give_finite_vectors(generation: Generation) -> None:
    content = generation.content
    assert content is not None
    past = history_of(DATA, 1)
    for attributes in HOSTILE:
        user = UserAttributes(user_id="u", attributes=dict(attributes))
        item = Item(item_id="i", title="\x00" * 900, price=1e300, attributes=dict(attributes))
        assert np.isfinite(generation.encoder.encode([past], [user])).all()
        assert np.isfinite(content.encode([item])).all()


def start_of(fitted: Fitted, data: DataSet) -> Start:
    return Start(data.user_ids, fitted.item_ids, fitted.keep)


def test_a_warm_start_goes_on_where_the_last_fit_ended(fitted: Fitted) -> None:
    frozen = TwoTower(factors=6, hidden=10, epochs=1, batch=32, learning_rate=1e-12, last=9)
    again = frozen.fit(DATA, Run(seed=9, start=start_of(fitted, DATA)))
    np.testing.assert_allclose(again.item_vectors, fitted.item_vectors, atol=1e-5)
    np.testing.assert_allclose(again.user_vectors, fitted.user_vectors, atol=1e-5)


def test_a_warm_start_keeps_items_when_features_are_read_differently(fitted: Fitted) -> None:
    fewer = replace(DATA, features=FeatureSettings(items=FEATURES.items[1:], users=()))
    frozen = TwoTower(factors=6, hidden=10, epochs=1, batch=32, learning_rate=1e-12, last=9)
    again = frozen.fit(fewer, Run(seed=9, start=start_of(fitted, DATA)))
    np.testing.assert_allclose(again.keep["item.own"], fitted.keep["item.own"], atol=1e-5)
    other = TwoTower(factors=4, hidden=10, epochs=1, batch=32, last=9)
    assert np.isfinite(other.fit(fewer, Run(start=start_of(fitted, DATA))).item_vectors).all()


def test_a_snapshot_whose_parts_do_not_fit_is_refused(fitted: Fitted, tmp_path: Path) -> None:
    store = LocalStore(tmp_path)
    for name in ("encoder.history", "encoder.table", "content.table", "content.out"):
        broken = fitted._replace(tensors={**fitted.tensors, name: np.zeros((3, 3), np.float32)})
        with pytest.raises(SnapshotError, match="two-tower"):
            Generation(store.get(store.put(*make(1, MODEL, broken, DATA, {}))))


def test_with_patience_the_fit_ends_where_the_held_out_items_say() -> None:
    told: list[tuple[int, int]] = []
    model = TwoTower(factors=6, hidden=10, epochs=60, batch=32, last=9, patience=3)
    data = shop(users=60)
    run = Run(seed=1, progress=lambda stage, done, total: told.append((done, total)))
    fitted = model.fit(data, run)
    values = fitted.curve["ndcg@20"]
    assert 3 < len(values) < 60
    assert values.index(max(values)) == len(values) - 4
    assert told[-1] == (60, 60)
    assert fitted.user_vectors.shape == (60, 6)
    again = model.fit(data, Run(seed=1))
    np.testing.assert_array_equal(again.item_vectors, fitted.item_vectors)
