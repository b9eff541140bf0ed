"""What every model keeps to. A new model joins by a line in CASES."""

from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import numpy as np
import pytest

from rheos.catalogue import Item, UserAttributes
from rheos.generation import Generation
from rheos.settings import FeatureDeclaration, FeatureSettings, SettingsError
from rheos.snapshot_store import LocalStore
from rheos.state import History
from trainer.data_set import DataSet, of_interactions
from trainer.fitting import make
from trainer.models import MODELS, model_class, model_of
from trainer.models.model import Fitted, Model, Run


class Case(NamedTuple):
    """A model and parameters under which it learns the small data here within seconds."""

    name: str
    parameters: dict[str, Any]


CASES = [
    Case("als", {"factors": 2, "iterations": 10, "warm_iterations": 5, "half_steps": 4.0}),
    Case("mf", {"factors": 4, "negatives": 2, "learning_rate": 0.1}),
    Case("bpr", {"factors": 2, "regularisation": 0.05}),
    Case("gmf", {"factors": 2, "negatives": 2, "regularisation": 0.02}),
    Case("mlp", {"mlp_factors": 8, "negatives": 2, "epochs": 60}),
    Case(
        "neumf",
        {"factors": 4, "mlp_factors": 8, "negatives": 2, "mlp_epochs": 60}
        | {"gmf_learning_rate": 0.05, "mlp_learning_rate": 0.03, "mlp_regularisation": 0.01},
    ),
    Case(
        "sasrec",
        {"factors": 16, "blocks": 1, "last": 10, "epochs": 40, "batch": 100, "dropout": 0.1}
        | {"learning_rate": 0.01},
    ),
    Case("ease", {"factors": 16, "regularisation": 1.0}),
    Case("private_mf", {"epsilon": 1e6, "factors": 2, "user_share": 1.0, "half_steps": 8.0}),
    Case("federated_mf", {"clients": 3, "factors": 4, "half_steps": 8.0}),
    Case("bspm", {"rank": 4, "factors": 8, "weights": 10, "half_steps": 4.0}),
    Case(
        "lightgcn",
        {"factors": 8, "layers": 2, "steps": 100, "warm_steps": 50, "batch": 256}
        | {"negatives": 2, "learning_rate": 0.05, "half_steps": 4.0},
    ),
    Case(
        "two_tower",
        {"factors": 8, "hidden": 16, "epochs": 20, "batch": 64, "learning_rate": 0.02}
        | {"negatives": 8, "last": 10},
    ),
]

USERS, ITEMS = 40, 24


def checkerboard(missing: int = 0) -> DataSet:
    """Users of one parity take the items of that parity, but for ``missing`` of them each.

    The catalogue says which parity: by an item's title and category, and a user's side.
    """
    random = np.random.default_rng(7)
    users, items, times = [], [], []
    for user in range(USERS):
        own = np.array([item for item in range(ITEMS) if item % 2 == user % 2])
        for step, item in enumerate(random.permutation(own)[: len(own) - missing]):
            users.append(f"u{user:02d}")
            items.append(f"i{item:02d}")
            times.append(1_000_000 + 1000 * step)
    return replace(
        of_interactions(users, items, times),
        items_known={f"i{item:02d}": item_of(item) for item in range(ITEMS)},
        users_known={f"u{user:02d}": user_of(user) for user in range(USERS)},
        features=FEATURES,
    )


FEATURES = FeatureSettings(
    items=(
        FeatureDeclaration(name="category", kind="categorical", buckets=2),
        FeatureDeclaration(name="title", kind="text", buckets=64),
    ),
    users=(FeatureDeclaration(name="side", kind="categorical", buckets=2),),
)


def item_of(item: int) -> Item:
    colour = ("white", "black")[item % 2]
    return Item(item_id=f"i{item:02d}", title=f"a {colour} square", category=colour)


def user_of(user: int) -> UserAttributes:
    return UserAttributes(user_id=f"u{user:02d}", attributes={"side": ("W", "B")[user % 2]})


def history(*items: int, weight: float = 1.0) -> History:
    count = len(items)
    return History(
        [f"i{item:02d}" for item in items],
        np.full(count, weight, np.float32),
        np.arange(count, dtype=np.int64),
    )


def fit(model: Model, data: DataSet, seed: int = 3) -> Fitted:
    return model.fit(data, Run(seed=seed))


class Trained(NamedTuple):
    model: Model
    data: DataSet
    fitted: Fitted
    generation: Generation


@pytest.fixture(scope="module", params=CASES, ids=lambda case: case.name)
def trained(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Trained:
    """A model fitted on the checkerboard and served from a snapshot written and read back."""
    case: Case = request.param
    model = model_of(case.name, case.parameters)
    data = checkerboard(missing=2)
    fitted = fit(model, data)
    store = LocalStore(tmp_path_factory.mktemp(case.name))
    name = store.put(*make(1, model, fitted, data, {"note": 1.0}))
    return Trained(model, data, fitted, Generation(store.get(name)))


def final_scores(generation: Generation, user: Any) -> Any:
    rows = np.arange(len(generation.item_ids))
    if generation.ranker is not None:
        return generation.ranker.score(user, rows)
    return generation.item_vectors @ user[: generation.dimensions]


def test_every_registered_model_is_tested_here() -> None:
    assert {case.name for case in CASES} == set(MODELS)


def test_numbers_are_finite_and_shapes_agree(trained: Trained) -> None:
    fitted, data = trained.fitted, trained.data
    assert fitted.item_ids == data.item_ids
    assert fitted.item_vectors.shape[0] == ITEMS
    assert fitted.item_vectors.dtype == np.float32
    assert fitted.user_vectors.shape == (USERS, trained.generation.encoder.dimensions)
    for tensor in (fitted.item_vectors, fitted.user_vectors, *fitted.tensors.values()):
        assert tensor.dtype == np.float32
        assert np.isfinite(tensor).all()


def test_the_same_seed_gives_the_same_numbers_and_another_seed_others(trained: Trained) -> None:
    again = fit(trained.model, trained.data)
    if trained.fitted.privacy is not None:  # noise that can be drawn again hides nothing
        assert not np.array_equal(again.item_vectors, trained.fitted.item_vectors)
        return
    other = fit(trained.model, trained.data, seed=4)
    np.testing.assert_array_equal(again.item_vectors, trained.fitted.item_vectors)
    np.testing.assert_array_equal(again.user_vectors, trained.fitted.user_vectors)
    for name, tensor in trained.fitted.tensors.items():
        np.testing.assert_array_equal(again.tensors[name], tensor)
    assert not np.array_equal(other.item_vectors, trained.fitted.item_vectors)


def test_the_order_of_the_log_does_not_matter(trained: Trained) -> None:
    if trained.fitted.privacy is not None:
        pytest.skip("its noise is another one in each fit")
    data = trained.data
    order = np.random.default_rng(1).permutation(len(data))
    shuffled = of_interactions(
        [data.user_ids[data.users[place]] for place in order],
        [data.item_ids[data.items[place]] for place in order],
        data.times_ms[order],
    )
    shuffled = replace(
        shuffled,
        items_known=data.items_known,
        users_known=data.users_known,
        features=data.features,
    )
    np.testing.assert_array_equal(shuffled.items, data.items)
    again = fit(trained.model, shuffled)
    np.testing.assert_array_equal(again.item_vectors, trained.fitted.item_vectors)


def test_a_fitted_user_prefers_the_held_out_items_of_her_colour(trained: Trained) -> None:
    missed = 0
    for row, user_id in enumerate(trained.data.user_ids):
        scores = final_scores(trained.generation, trained.fitted.user_vectors[row])
        had = set(trained.data.items[trained.data.users == row].tolist())
        left = [item for item in range(ITEMS) if item not in had]
        best = sorted(left, key=lambda item: -scores[item])[:2]
        missed += sum(item % 2 != int(user_id[1:]) % 2 for item in best)
    assert missed <= 0.05 * 2 * USERS


def test_an_encoded_history_ranks_its_colour_high(trained: Trained) -> None:
    generation = trained.generation
    histories = [history(0, 4, 8, 12), history(1, 5, 9, 13), history(2), history(3)]
    for place, user in enumerate(generation.encoder.encode(histories)):
        had = {generation.row_of[item] for item in histories[place].item_ids}
        retrieval = generation.item_vectors @ user[: generation.dimensions]
        for scores in (retrieval, final_scores(generation, user)):
            best = [item for item in np.argsort(-scores) if item not in had][:6]
            assert sum(item % 2 == place % 2 for item in best) >= 5


def test_the_encoder_is_the_same_alone_and_among_others(trained: Trained) -> None:
    histories = [history(0, 2), history(1), history(3, 5, 7, 9, 11), history()]
    together = trained.generation.encoder.encode(histories)
    for place, one in enumerate(histories):
        alone = trained.generation.encoder.encode([one])[0]
        np.testing.assert_allclose(alone, together[place], atol=1e-5)


def test_nothing_known_of_a_user_gives_zeros(trained: Trained) -> None:
    encoder = trained.generation.encoder
    nothing = [history(), History(["new", "newer"], np.ones(2, np.float32), np.arange(2))]
    vectors = encoder.encode(nothing)
    assert vectors.shape == (2, encoder.dimensions)
    assert vectors.dtype == np.float32
    assert not vectors.any()
    assert encoder.encode([]).shape == (0, encoder.dimensions)


def test_unknown_items_of_a_history_are_passed_over(trained: Trained) -> None:
    with_unknown = History(
        ["i00", "unheard of", "i02", "neither"], np.ones(4, np.float32), np.arange(4)
    )
    encoder = trained.generation.encoder
    expected = encoder.encode([history(0, 2)])
    np.testing.assert_allclose(encoder.encode([with_unknown]), expected, atol=1e-6)


def test_a_disliked_item_does_not_draw_others_of_its_colour(trained: Trained) -> None:
    generation = trained.generation
    liked, disliked = generation.encoder.encode([history(0), history(0, weight=-1.0)])
    others = [generation.row_of[f"i{item:02d}"] for item in range(2, ITEMS, 2)]
    d = generation.dimensions
    vectors = generation.item_vectors[others]
    assert (vectors @ liked[:d]).mean() > (vectors @ disliked[:d]).mean()
    assert np.isfinite(disliked).all()


def test_extreme_weights_stay_finite(trained: Trained) -> None:
    for weight in (0.0, 1e-30, 100.0, -100.0):
        vectors = trained.generation.encoder.encode([history(0, 1, 2, 3, weight=weight)])
        assert np.isfinite(vectors).all()


def test_a_new_item_is_found_by_those_who_like_its_kind(trained: Trained) -> None:
    content = trained.generation.content
    if content is None:
        assert "cold_items" not in trained.model.can
        return
    encoder, d = trained.generation.encoder, trained.generation.dimensions
    new = content.encode([item_of(100), item_of(101), Item(item_id="nothing known")])
    assert new.shape == (3, d)
    assert new.dtype == np.float32
    assert not new[2].any()
    white, black = encoder.encode([history(0, 4, 8), history(1, 5, 9)])[:, :d] @ new[:2].T
    assert white[0] > white[1]
    assert black[1] > black[0]


def test_a_new_user_gets_what_those_like_her_take(trained: Trained) -> None:
    encoder = trained.generation.encoder
    if not encoder.reads_attributes:
        assert "attributes" not in trained.model.can
        return
    known = [user_of(100), user_of(101), None, UserAttributes(user_id="nothing known")]
    users = encoder.encode([history()] * 4, known)
    assert not users[2:].any()
    for place, user in enumerate(users[:2]):
        best = np.argsort(-final_scores(trained.generation, user))[: ITEMS // 2]
        items = [int(trained.generation.item_ids[row][1:]) for row in best]
        assert sum(item % 2 == place for item in items) >= ITEMS // 2 - 1
    # What the stream, which knows no attributes, and what the indexer makes of a history.
    one = history(0, 2)
    unknown = encoder.encode([one], [UserAttributes(user_id="nothing known")])
    np.testing.assert_allclose(encoder.encode([one]), unknown, atol=1e-6)


def test_the_terms_of_a_score_add_up_to_it(trained: Trained) -> None:
    generation, past = trained.generation, history(0, 3, 4, 0)
    told = generation.encoder.terms(past, ["i02", "unknown", "i05"])
    assert [len(terms) for terms in told] == (
        [3, 0, 3] if "explain" in trained.model.can else [0, 0, 0]
    )
    user = generation.encoder.encode([past])[0]
    for terms, item in zip(told, ["i02", "unknown", "i05"], strict=True):
        if terms:
            expected = (
                generation.item_vectors[generation.row_of[item]]
                @ user[: len(user)][: generation.dimensions]
            )
            assert {source for source, _ in terms} == {"i00", "i03", "i04"}
            assert sum(score for _, score in terms) == pytest.approx(float(expected), abs=1e-4)


def test_a_score_is_a_logit_where_it_is_said_to_be_one(trained: Trained) -> None:
    if "probabilities" not in trained.model.can:
        return
    taken, others = [], []
    for row, user_id in enumerate(trained.data.user_ids):
        scores = final_scores(trained.generation, trained.fitted.user_vectors[row])
        chances = 1 / (1 + np.exp(-scores))
        mine = np.arange(ITEMS) % 2 == int(user_id[1:]) % 2
        taken.append(chances[mine].mean())
        others.append(chances[~mine].mean())
    # L2 and the negatives that are a user's own keep the former from 1.
    assert np.mean(taken) > 0.4 > np.mean(others)


def test_what_it_can_do_is_what_it_declares(trained: Trained) -> None:
    generation, can = trained.generation, trained.model.can
    assert "item_vectors" in can
    assert (generation.ranker is not None) == ("rerank" in can)
    assert (generation.item_weights is not None) == ("item_weights" in can)
    assert (generation.content is not None) == ("cold_items" in can)
    assert generation.encoder.reads_attributes == ("attributes" in can)
    assert bool(trained.fitted.keep) == ("warm_start" in can)


def test_the_generation_says_what_it_is(trained: Trained) -> None:
    manifest = trained.generation.manifest
    assert manifest.model == trained.model.name
    assert manifest.parameters == msgspec.to_builtins(trained.model)
    assert manifest.interactions == len(trained.data)
    assert manifest.privacy == trained.fitted.privacy
    if manifest.privacy is None:  # else the counts are noisy
        expected = trained.data.popularity()
        np.testing.assert_array_equal(trained.generation.popularity, expected)
    # The manifest is enough to fit the same again.
    assert model_of(manifest.model, manifest.parameters) == trained.model


def test_a_serving_process_needs_nothing_of_the_trainer(trained: Trained, tmp_path: Path) -> None:
    import subprocess
    import sys

    store = LocalStore(tmp_path)
    name = store.put(*make(1, trained.model, trained.fitted, trained.data, {}))
    code = (
        "import sys, numpy as np\n"
        "from pathlib import Path\n"
        "from rheos.generation import Generation\n"
        "from rheos.snapshot_store import LocalStore\n"
        f"found = Generation(LocalStore(Path({str(tmp_path)!r})).get({name!r}))\n"
        "print(sorted({'torch', 'scipy', 'pyarrow', 'trainer'} & set(sys.modules)))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_nothing_to_learn_from_is_said_so(trained: Trained) -> None:
    with pytest.raises(ValueError):
        fit(trained.model, of_interactions([], [], []))
    only_dislikes = replace(trained.data, weights=-trained.data.weights)
    with pytest.raises(ValueError):
        fit(trained.model, only_dislikes)


def test_dislikes_and_one_lone_user_are_no_trouble(trained: Trained) -> None:
    data = checkerboard()
    mixed = replace(data, weights=np.where(np.arange(len(data)) % 5, 1, -1).astype(np.float32))
    lone = of_interactions(["one"] * 3, ["a", "b", "c"], [1, 2, 3], [1.0, 0.4, -1.0])
    for odd in (mixed, lone):
        fitted = fit(trained.model, odd)
        assert np.isfinite(fitted.item_vectors).all()


def test_progress_ends_at_its_total(trained: Trained) -> None:
    told: list[tuple[int, int]] = []
    trained.model.fit(
        checkerboard(), Run(progress=lambda stage, done, total: told.append((done, total)))
    )
    assert told[-1][0] == told[-1][1]
    assert [done for done, _ in told] == sorted(done for done, _ in told)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_a_wrong_parameter_is_named(case: Case) -> None:
    with pytest.raises(SettingsError, match="no_such_parameter"):
        model_of(case.name, {"no_such_parameter": 1})
    first = msgspec.structs.fields(model_class(case.name))[0].name  # type: ignore[type-var]
    with pytest.raises(SettingsError, match=rf"{first} = 'many'.*docs/models.md"):
        model_of(case.name, {first: "many"})
    with pytest.raises(SettingsError, match=first):
        model_of(case.name, {first: -3})


def test_an_unknown_model_is_named_with_those_that_there_are() -> None:
    with pytest.raises(SettingsError, match=r"trainer\.model = 'mystery': known are als, "):
        model_of("mystery", {})
