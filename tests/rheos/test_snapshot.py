"""Snapshots: written wholly or not at all, refused when anything at all is wrong."""

import os
import time
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from rheos import snapshot
from rheos.durable import LEFTOVER_S
from rheos.generation import Generation
from rheos.snapshot import Manifest, SnapshotError
from rheos.snapshot_store import LocalStore, SnapshotStore

ITEMS = ["a", "b", "c"]


def manifest(**changes: Any) -> Manifest:
    fields: dict[str, Any] = {
        "number": 3,
        "model": "als",
        "dimensions": 2,
        "items": 3,
        "interactions": 10,
        "created_ms": 1,
        "window": {"0": (0, 10)},
        "parameters": {},
        "metrics": {},
        "encoder": {"kind": "fold_in", "alpha": 20.0, "regularisation": 0.05},
        "software": {},
    }
    return Manifest(**{**fields, **changes})


def tensors() -> dict[str, Any]:
    return {
        "item_vectors": np.array([[1, 0], [0, 1], [1, 1]], np.float32),
        "popularity": np.ones(3, np.float32),
    }


@pytest.fixture
def store(tmp_path: Path) -> SnapshotStore:
    return LocalStore(tmp_path)


def test_what_is_put_is_what_is_got_under_its_number_and_hash(store: SnapshotStore) -> None:
    name = store.put(manifest(), ITEMS, tensors())
    assert name.startswith("3-")
    got = store.get(name)
    assert got.item_ids == ITEMS
    np.testing.assert_array_equal(got.tensors["item_vectors"], tensors()["item_vectors"])
    assert Generation(got).row_of == {"a": 0, "b": 1, "c": 2}
    assert store.names() == [name]
    assert store.put(manifest(), ITEMS, tensors()) == name


def test_what_killed_writers_left_goes_with_the_next_put(tmp_path: Path) -> None:
    then = time.time() - LEFTOVER_S - 60
    for name in (".writing-a1b2", ".deleting-1-0123abcd", "notes"):
        (tmp_path / name).mkdir()
        os.utime(tmp_path / name, (then, then))
    (tmp_path / ".writing-now").mkdir()
    name = LocalStore(tmp_path).put(manifest(), ITEMS, tensors())
    assert {path.name for path in tmp_path.iterdir()} == {name, ".writing-now", "notes"}


def test_names_are_ordered_by_number_not_by_letter(store: SnapshotStore) -> None:
    names = [store.put(manifest(number=n), ITEMS, tensors()) for n in (10, 9, 2)]
    assert store.names() == names[::-1]


def test_a_deleted_snapshot_is_gone_and_deleting_it_twice_is_no_error(
    store: SnapshotStore,
) -> None:
    name = store.put(manifest(), ITEMS, tensors())
    store.delete(name)
    store.delete(name)
    assert store.names() == []
    with pytest.raises(SnapshotError, match="not in"):
        store.get(name)


@pytest.mark.parametrize(
    "name", ["../../etc", "3-xyz", "0-00000000", "", "3-3fa94c01/..", "3-3fa94c01\n"]
)
def test_a_name_that_is_no_generations_never_reaches_a_path(
    store: SnapshotStore, name: str
) -> None:
    with pytest.raises(SnapshotError, match="no generation's"):
        store.get(name)
    with pytest.raises(SnapshotError, match="no generation's"):
        store.delete(name)


@pytest.mark.parametrize("file", ["manifest.json", "items.json", "tensors.safetensors"])
@pytest.mark.parametrize("damage", ["flip", "cut", "remove"])
def test_a_damaged_snapshot_is_refused_and_named(tmp_path: Path, file: str, damage: str) -> None:
    store = LocalStore(tmp_path)
    name = store.put(manifest(), ITEMS, tensors())
    path = tmp_path / name / file
    data = bytearray(path.read_bytes())
    if damage == "flip":
        data[len(data) // 2] ^= 1
        path.write_bytes(data)
    elif damage == "cut":
        path.write_bytes(data[:-1])
    else:
        path.unlink()
    with pytest.raises(SnapshotError, match=rf"{name}.*{file}"):
        store.get(name)


def test_a_half_written_snapshot_is_not_listed(tmp_path: Path) -> None:
    (tmp_path / ".writing-abc").mkdir()
    (tmp_path / "notes").mkdir()
    assert LocalStore(tmp_path).names() == []


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"items": 4}, "3 item ids, not 4"),
        ({"dimensions": 3}, "item_vectors"),
    ],
)
def test_content_that_contradicts_its_manifest_is_not_written(
    tmp_path: Path, changes: dict[str, Any], text: str
) -> None:
    with pytest.raises(SnapshotError, match=text):
        LocalStore(tmp_path).put(manifest(**changes), ITEMS, tensors())
    assert list(tmp_path.iterdir()) == []


def test_numbers_that_are_not_finite_are_not_written(store: SnapshotStore) -> None:
    bad = tensors()
    bad["item_vectors"][0, 0] = np.nan
    with pytest.raises(SnapshotError, match="NaN"):
        store.put(manifest(), ITEMS, bad)


def test_the_same_item_twice_is_not_written(store: SnapshotStore) -> None:
    with pytest.raises(SnapshotError, match="not distinct"):
        store.put(manifest(), ["a", "a", "b"], tensors())


@pytest.mark.parametrize(
    "encoder", [{}, {"kind": "pickle"}, {"kind": "fold_in"}, {"kind": "fold_in", "alpha": -1.0}]
)
def test_a_generation_with_an_encoder_that_makes_no_sense_is_refused(
    store: SnapshotStore, encoder: dict[str, Any]
) -> None:
    name = store.put(manifest(encoder=encoder), ITEMS, tensors())
    with pytest.raises(SnapshotError, match="encoder"):
        Generation(store.get(name))


def test_a_snapshot_of_a_newer_format_is_refused(tmp_path: Path) -> None:
    path = snapshot.write(tmp_path, manifest(format=2), ITEMS, tensors())
    with pytest.raises(SnapshotError, match="format 2"):
        snapshot.read(path)


def test_a_manifest_of_another_number_is_refused(tmp_path: Path) -> None:
    path = snapshot.write(tmp_path, manifest(), ITEMS, tensors())
    other = path.rename(path.with_name("4" + path.name[1:]))
    with pytest.raises(SnapshotError, match="says number 3"):
        snapshot.read(other)


def test_manifests_are_plain_json(tmp_path: Path) -> None:
    path = snapshot.write(tmp_path, manifest(), ITEMS, tensors())
    assert msgspec.json.decode((path / "manifest.json").read_bytes())["files"].keys() == {
        "items.json",
        "tensors.safetensors",
    }


EXTRA = {"report.json": b'{"ndcg": 0.1}', "report.html": b"<!doctype html>"}


def test_extra_files_are_kept_beside_what_serves(tmp_path: Path) -> None:
    store = LocalStore(tmp_path)
    name = store.put(manifest(), ITEMS, tensors(), EXTRA)
    assert {file: store.extra(name, file) for file in EXTRA} == EXTRA
    assert store.get(name).item_ids == ITEMS
    assert store.put(manifest(), ITEMS, tensors()) != name  # another manifest, another generation


def test_a_snapshot_without_extra_files_says_that_it_has_none(store: SnapshotStore) -> None:
    name = store.put(manifest(), ITEMS, tensors())
    with pytest.raises(SnapshotError, match=rf"{name}: it has no report\.json"):
        store.extra(name, "report.json")


@pytest.mark.parametrize("damage", ["flip", "remove"])
def test_a_damaged_extra_file_is_refused_and_hinders_no_serving(
    tmp_path: Path, damage: str
) -> None:
    store = LocalStore(tmp_path)
    name = store.put(manifest(), ITEMS, tensors(), EXTRA)
    path = tmp_path / name / "report.json"
    if damage == "flip":
        path.write_bytes(b'{"ndcg": 0.9}')
    else:
        path.unlink()
    with pytest.raises(SnapshotError, match=rf"{name}.*report\.json"):
        store.extra(name, "report.json")
    assert store.get(name).item_ids == ITEMS


@pytest.mark.parametrize(
    "file",
    [
        *("../report.json", "/etc/report.json", "a/report.json", ".report.json", "", "report"),
        *("manifest.json", "items.json", "tensors.safetensors", "report.js", "report.json\n"),
        *("Report.json", "report\0.json", "répört.json", "a" * 65 + ".json"),
    ],
)
def test_hostile_names_of_extra_files_never_reach_a_path(tmp_path: Path, file: str) -> None:
    store = LocalStore(tmp_path)
    with pytest.raises(SnapshotError, match="no extra file is called"):
        store.put(manifest(), ITEMS, tensors(), {file: b"x"})
    assert store.names() == []
    name = store.put(manifest(), ITEMS, tensors())
    with pytest.raises(SnapshotError, match="no extra file is called"):
        store.extra(name, file)
