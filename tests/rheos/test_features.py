"""Features: whatever a record holds becomes rows with weights; trainer and indexer read alike."""

import subprocess
import sys
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rheos.catalogue import Item, UserAttributes
from rheos.feature_kinds import UNKNOWN, fit_kind, load_kind
from rheos.feature_text import grams, words
from rheos.features import Features
from rheos.settings import FeatureDeclaration


def declared(kind: str, **more: Any) -> FeatureDeclaration:
    return FeatureDeclaration(name="x", kind=kind, **more)  # type: ignore[arg-type]


def item(**attributes: Any) -> Item:
    return Item(item_id="i", attributes=attributes)


EVERY_KIND = [
    declared("numeric"),
    declared("numeric", scale="standard"),
    declared("categorical", buckets=3),
    declared("bag", vocabulary=2),
    declared("text", buckets=64),
    declared("text", vectors="wordllama"),
]
HOSTILE = [
    *(None, "", "   ", float("nan"), float("inf"), -1e308, True, 0, 1e18, 10**400),
    *([], ["", None, 3, ["deep"], {"a": 1}], {"a": 1}, b"bytes", object()),
    *("x" * 100_000, "\ud800 lone", "\x00", "🧦" * 500, ["y" * 5000] * 500, "9" * 5000),
]


@pytest.mark.parametrize("feature", EVERY_KIND, ids=lambda one: f"{one.kind}-{one.scale}")
def test_whatever_a_record_holds_gives_rows_and_never_an_exception(
    feature: FeatureDeclaration,
) -> None:
    for training in ([], [1.0, 2.0, "3"], ["red", "red", "blue"], HOSTILE):
        kind = fit_kind(feature, training)
        again = load_kind(msgspec.json.decode(msgspec.json.encode(kind.parameters)))
        for value in HOSTILE:
            rows, weights = kind.rows(value)
            assert 0 < len(rows) == len(weights)
            assert all(0 <= row < kind.size for row in rows)
            assert np.isfinite(weights).all()
            assert ([*again.rows(value)[0]], [*again.rows(value)[1]]) == ([*rows], [*weights])
        assert kind.rows(None) == kind.rows({"no": "value"}) == UNKNOWN


JSON = st.recursive(
    st.none() | st.booleans() | st.floats() | st.text() | st.integers(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
)


@settings(max_examples=40, deadline=None)
@given(JSON, st.lists(JSON, max_size=8))
def test_any_json_at_all_is_read(value: Any, training: list[Any]) -> None:
    for feature in EVERY_KIND[:5]:
        rows, _ = fit_kind(feature, training).rows(value)
        assert len(rows) > 0


def test_a_number_falls_into_its_share_of_the_training_values() -> None:
    kind = fit_kind(declared("numeric"), list(range(1600)))
    assert kind.size == 17
    shares = [kind.rows(value)[0][0] for value in (-5, 0, 99, 100, 850, 1599, 10**9)]
    assert shares == [1, 1, 1, 2, 9, 16, 16]
    assert kind.rows("850") == kind.rows(850.0)
    assert kind.rows("many") == UNKNOWN


def test_a_standardised_number_is_clipped_to_the_usual_and_a_missing_one_is_told_apart() -> None:
    values = [*np.random.default_rng(0).normal(50, 10, 5000).tolist(), 1e12, -1e12]
    kind = fit_kind(declared("numeric", scale="standard"), values)
    (rows, (middle, _)) = kind.rows(50)
    assert (*rows,) == (1, 2)
    assert middle == pytest.approx(0, abs=0.05)
    assert kind.rows(60)[1][0] == pytest.approx(1, abs=0.1)
    assert kind.rows(1e300) == kind.rows(1e12)
    assert kind.rows(1e300)[1][0] < 3
    assert kind.rows(None) == UNKNOWN
    alike = fit_kind(declared("numeric", scale="standard"), [7.0] * 10)
    assert alike.rows(7)[1][0] == 0


def test_frequent_values_have_their_own_rows_and_others_share_buckets() -> None:
    training = ["Red"] * 3 + ["blue "] * 5 + ["green"] * 2 + ["mauve"]
    kind = fit_kind(declared("categorical", vocabulary=2, buckets=4), training)
    assert kind.parameters["vocabulary"] == ["blue", "red"]
    assert kind.rows("BLUE")[0] == [1]
    assert kind.rows(" red")[0] == [2]
    for rare in ("green", "mauve", "never seen"):
        assert 3 <= kind.rows(rare)[0][0] < kind.size
    assert kind.rows(["red"]) == UNKNOWN


def test_numbers_and_truths_are_categories_too() -> None:
    kind = fit_kind(declared("categorical"), [1.0, 1.0, True, True, "1"])
    assert kind.parameters["vocabulary"] == ["1", "true"]
    assert kind.rows(1) == kind.rows("1")


def test_a_bag_is_averaged() -> None:
    kind = fit_kind(declared("bag"), [["drama", "war"], ["war"], "drama", ["drama", "drama"]])
    assert kind.parameters["vocabulary"] == ["drama", "war"]
    assert kind.rows(["war", "drama"]) == ([2, 1], [0.5, 0.5])
    assert kind.rows("war") == ([2], [1.0])


def test_texts_that_share_words_share_rows() -> None:
    kind = fit_kind(declared("text", buckets=100_000), [])
    rows = {text: set(kind.rows(text)[0]) for text in ("Red heart", "RED  Hearts!", "blue box")}
    assert len(rows["Red heart"] & rows["RED  Hearts!"]) > 8
    assert len(rows["Red heart"] & rows["blue box"]) <= 1
    squares = sum(weight**2 for weight in kind.rows("Red heart")[1])
    assert squares == pytest.approx(1)


def test_hashes_are_the_same_in_every_process() -> None:
    code = "from rheos.feature_text import grams; print(grams('heart', 4096))"
    told = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=True,
        env={"PYTHONHASHSEED": "77"},
    ).stdout
    assert told.strip() == str(grams("heart", 4096))
    assert words("One, Two…  THREE3") == ["one", "two", "three3"]


def test_like_texts_have_like_vectors_of_a_language_model() -> None:
    pytest.importorskip("wordllama", reason="the extra text is not installed")
    kind = fit_kind(declared("text", vectors="wordllama"), [])

    def vector(text: str) -> Any:
        return np.array(kind.rows(text)[1])

    near = vector("ceramic tea cup") @ vector("porcelain coffee mug")
    assert near > vector("ceramic tea cup") @ vector("garden rake") + 0.1
    assert kind.rows("\ud800") != kind.rows("")


RECORDS = [
    Item(item_id=f"i{n}", title=f"word{n % 3} thing", price=float(n), attributes={"tags": ["a"]})
    for n in range(20)
]
DECLARED = (
    FeatureDeclaration(name="title", kind="text", buckets=50),
    FeatureDeclaration(name="cost", kind="numeric", path="price"),
    FeatureDeclaration(name="tags", kind="bag", buckets=2),
)


def test_bags_are_the_rows_of_all_features_one_after_the_other() -> None:
    features = Features.fit_items(DECLARED, [*RECORDS, None])
    bags = features.encode([RECORDS[7], None, item(), RECORDS[0]])
    assert bags.known.tolist() == [True, False, False, True]
    table = np.random.default_rng(0).normal(size=(features.size, 4)).astype(np.float32)
    sums = bags.sums(table)
    for place in range(4):
        mine = slice(bags.starts[place], bags.starts[place + 1])
        expected = bags.weights[mine] @ table[bags.rows[mine]]
        np.testing.assert_allclose(sums[place], expected, rtol=1e-5)
    np.testing.assert_array_equal(sums[1], sums[2])
    places = np.array([3, 0, 3])
    np.testing.assert_allclose(bags.take(places).sums(table), sums[places])


def test_no_features_and_no_records_are_no_trouble() -> None:
    none = Features.fit_users((), [])
    assert none.size == 0
    assert none.encode([None, None]).sums(np.zeros((0, 3), np.float32)).shape == (2, 3)
    some = Features.fit_items(DECLARED, [])
    assert some.encode([]).sums(np.zeros((some.size, 3), np.float32)).shape == (0, 3)


def test_features_of_a_manifest_read_as_the_fitted_ones() -> None:
    features = Features.fit_items(DECLARED, RECORDS)
    again = Features.load(msgspec.json.decode(msgspec.json.encode(features.parameters)))
    assert again.layout == features.layout
    assert again.layout != Features.fit_items(DECLARED, RECORDS[:9]).layout
    for one, other in zip(features.encode(RECORDS), again.encode(RECORDS), strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize(
    "broken",
    [
        {"fitted": "shares", "edges": [3.0, 1.0]},
        {"fitted": "shares", "edges": [float("nan")]},
        {"fitted": "standard", "low": 0.0, "high": 1.0, "mean": 0.0, "spread": 0.0},
        {"fitted": "values", "vocabulary": ["a", "a"], "buckets": 1, "bag": False},
        {"fitted": "grams", "buckets": 0},
        {"fitted": "grams"},
        {"fitted": "mystery"},
        {},
    ],
)
def test_broken_parameters_are_refused(broken: dict[str, Any]) -> None:
    with pytest.raises((KeyError, TypeError, ValueError)):
        Features.load([{"place": "title", **broken}])


def test_users_are_read_by_their_attributes() -> None:
    feature = FeatureDeclaration(name="age", kind="numeric")
    users = [UserAttributes(user_id=str(n), attributes={"age": float(n)}) for n in range(32)]
    features = Features.fit_users([feature], users)
    assert features.parameters[0]["place"] == "attributes.age"
    young, old = features.encode([users[1], users[30]]).rows
    assert (young, old) == (1, 16)
