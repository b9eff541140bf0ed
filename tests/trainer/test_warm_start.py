"""What a fit keeps for the next one: handed on when it fits, passed over when it does not."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from rheos.state import Float32s
from trainer.data_set import DataSet, of_interactions
from trainer.models.als import Als
from trainer.models.mf import Mf
from trainer.models.model import Fitted
from trainer.warm_start import WarmStarts

DATA = of_interactions(["a", "b", "b"], ["x", "y", "z"], [1, 2, 3])
KEPT: dict[str, Float32s] = {
    "user.p": np.arange(4, dtype=np.float32).reshape(2, 2),
    "item.q": np.arange(6, dtype=np.float32).reshape(3, 2),
    "layer": np.ones((5, 4), np.float32),
}


MODEL = Als(factors=2)


def fitted(keep: Mapping[str, Float32s], data: DataSet = DATA) -> Fitted:
    vectors = np.zeros((len(data.item_ids), 2), np.float32)
    users = np.zeros((len(data.user_ids), 2), np.float32)
    return Fitted(data.item_ids, vectors, {}, None, {}, users, keep=keep)


@pytest.fixture
def store(tmp_path: Path) -> WarmStarts:
    kept = WarmStarts(tmp_path / "warm")
    kept.keep(MODEL, "3-0123abcd", DATA, fitted(KEPT))
    return kept


def test_what_was_kept_comes_back(store: WarmStarts) -> None:
    start = store.read(MODEL, "3-0123abcd")
    assert start is not None
    assert (start.user_ids, start.item_ids) == (["a", "b"], ["x", "y", "z"])
    assert set(start.tensors) == set(KEPT)
    for name, tensor in KEPT.items():
        np.testing.assert_array_equal(start.tensors[name], tensor)
    into = np.full((3, 2), -1, np.float32)
    start.carry("item.q", ["new", "z", "x"], into)
    assert into.tolist() == [[-1, -1], [4, 5], [0, 1]]


def test_another_model_generation_or_parameter_has_none(store: WarmStarts, tmp_path: Path) -> None:
    assert store.read(Mf(), "3-0123abcd") is None
    assert store.read(Als(factors=3), "3-0123abcd") is None
    assert store.read(MODEL, "2-0123abcd") is None
    assert WarmStarts(tmp_path / "nowhere").read(MODEL, "3-0123abcd") is None


def test_the_next_fit_replaces_it_and_who_left_the_data_is_gone(
    store: WarmStarts, tmp_path: Path
) -> None:
    later = of_interactions(["b"], ["x"], [9])
    store.keep(MODEL, "4-0123abcd", later, fitted({"user.p": np.ones((1, 2), np.float32)}, later))
    start = store.read(MODEL, "4-0123abcd")
    assert start is not None
    assert start.user_ids == ["b"]
    assert set(start.tensors) == {"user.p"}
    assert [path.name for path in (tmp_path / "warm").iterdir()] == ["als.safetensors"]


def test_a_fit_that_keeps_nothing_leaves_nothing_and_so_does_a_drop(store: WarmStarts) -> None:
    store.keep(MODEL, "4-0123abcd", DATA, fitted({}))
    assert store.read(MODEL, "4-0123abcd") is None
    store.keep(MODEL, "5-0123abcd", DATA, fitted(KEPT))
    store.drop("als")
    store.drop("als")
    assert store.read(MODEL, "5-0123abcd") is None


def about(**changes: Any) -> Float32s:
    tree = {
        "generation": "3-0123abcd",
        "parameters": {},
        "user_ids": ["a", "b"],
        "item_ids": ["x", "y", "z"],
    }
    return np.frombuffer(msgspec.json.encode(tree | changes), np.uint8)


@pytest.mark.parametrize(
    "tensors",
    [
        {},
        {"about": np.ones(3, np.float32)},
        {"about": np.frombuffer(b"\x80\x04pickle", np.uint8)},
        {"about": np.frombuffer(b'{"generation": "3-0123abcd"}', np.uint8)},
        {"about": about(user_ids="ab")},
        {"about": about(user_ids=["a", "a"])},
        {"about": about(), "user.p": np.ones((3, 2), np.float32)},
        {"about": about(), "item.q": np.ones((2, 2), np.float32)},
        {"about": about(), "item.q": np.float32(1)},
        {"about": about(), "item.q": np.full((3, 2), np.nan, np.float32)},
        {"about": about(), "layer": np.full(2, np.inf, np.float32)},
        {"about": about(), "layer": np.ones(2, np.int64)},
    ],
)
def test_a_file_that_no_fit_of_ours_wrote_is_passed_over_and_said_so(
    store: WarmStarts,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    tensors: dict[str, Any],
) -> None:
    save_file({name: np.asarray(t) for name, t in tensors.items()}, *paths(tmp_path))
    assert store.read(MODEL, "3-0123abcd") is None
    assert "als.safetensors is passed over, the fit starts anew" in caplog.text


def paths(tmp_path: Path) -> list[Path]:
    return list((tmp_path / "warm").glob("*.safetensors"))


@pytest.mark.parametrize("how", ["empty", "noise", "cut", "long", "header", "folder"])
def test_a_torn_file_is_passed_over(store: WarmStarts, tmp_path: Path, how: str) -> None:
    (path,) = paths(tmp_path)
    whole = path.read_bytes()
    broken = {
        "empty": b"",
        "noise": np.random.default_rng(0).bytes(400),
        "cut": whole[:-5],
        "long": whole + b"\0" * 9,
        "header": (1 << 60).to_bytes(8, "little") + whole[8:],
        "folder": b"",
    }[how]
    path.unlink()
    if how == "folder":
        path.mkdir()
    else:
        path.write_bytes(broken)
    assert store.read(MODEL, "3-0123abcd") is None


def test_the_file_holds_tensors_and_json_alone(store: WarmStarts, tmp_path: Path) -> None:
    found = load_file(*paths(tmp_path))
    assert msgspec.json.decode(found.pop("about").tobytes())["generation"] == "3-0123abcd"
    assert set(found) == set(KEPT)
