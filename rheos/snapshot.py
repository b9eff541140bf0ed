"""A snapshot: an immutable directory of one generation, written atomically, verified on read.

``manifest.json`` names every other file with its size and sha256; the generation's name is its
number and the first 8 hex digits of the manifest's own sha256. Tensors are safetensors, the rest
JSON; nothing is ever unpickled. Extra files, such as a report for people, stand beside what serves:
the manifest names them too, and they are read and verified when somebody asks for them.
"""

import hashlib
import importlib.metadata
import os
import re
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load as load_tensors
from safetensors.numpy import save as save_tensors

from rheos.durable import sync_directory
from rheos.state import Float32s

MANIFEST = "manifest.json"
ITEMS = "items.json"
TENSORS = "tensors.safetensors"
FORMAT = 1
WRITING = ".writing-"
"""How the name of a directory begins that is still being filled."""

_NAME = re.compile(r"[1-9][0-9]{0,17}-[0-9a-f]{8}")
_EXTRA = re.compile(r"[a-z][a-z0-9_-]{0,63}\.(json|html)")


class SnapshotError(ValueError):
    """A snapshot that must not be used; the text names the snapshot, the file and what is wrong."""


class FileEntry(msgspec.Struct, frozen=True):
    size: int
    sha256: str


class Manifest(msgspec.Struct, frozen=True, kw_only=True):
    """What a generation is. ``window``: each events partition's fitted offsets [from, to), of the
    events topic with the id ``topic_id``. ``start``: the generation whose fit this one began with.
    """

    format: int = FORMAT
    number: int
    model: str
    dimensions: int
    dtype: str = "float32"
    items: int
    interactions: int
    created_ms: int
    window: dict[str, tuple[int, int]]
    topic_id: str = ""
    parameters: dict[str, Any]
    start: str = ""
    metrics: dict[str, Any]
    encoder: dict[str, Any]
    ranker: dict[str, Any] | None = None
    item_weights: dict[str, Any] | None = None
    content: dict[str, Any] | None = None
    blend: dict[str, Any] | None = None
    privacy: dict[str, Any] | None = None
    software: dict[str, str]
    files: dict[str, FileEntry] = {}


class Snapshot(NamedTuple):
    """A verified snapshot; ``tensors`` has item_vectors (N, d), popularity (N,) and others."""

    name: str
    manifest: Manifest
    item_ids: list[str]
    tensors: dict[str, Float32s]


def software_versions() -> dict[str, str]:
    """Versions of what shaped the numbers, as far as installed."""
    versions = {}
    for package in ("rheos", "numpy", "torch", "lightgbm"):
        try:
            versions[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return versions


def is_name(name: str) -> bool:
    """Whether ``name`` has the form of a generation's name; other names never reach a path."""
    return bool(_NAME.fullmatch(name))


def is_extra(file: str) -> bool:
    """Whether an extra file may have this name; other names never reach a path."""
    return bool(_EXTRA.fullmatch(file)) and file not in (MANIFEST, ITEMS)


def number_of(name: str) -> int:
    return int(name.partition("-")[0])


def write(
    parent: Path,
    manifest: Manifest,
    item_ids: Sequence[str],
    tensors: Mapping[str, Float32s],
    files: Mapping[str, bytes] = {},
) -> Path:
    """Writes a snapshot under ``parent`` and returns its directory, named as the generation.

    Atomic: a temporary directory is filled, fsynced and renamed. Raises SnapshotError for content
    that no reader would accept (wrong shapes, NaN, names of extra ``files``), OSError for the disk.
    """
    _check_content(str(manifest.number), manifest, item_ids, tensors)
    for file in files:
        if not is_extra(file):
            raise SnapshotError(f"snapshot {manifest.number}: no extra file is called {file!r}")
    parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(prefix=WRITING, dir=parent))
    try:
        contents = {
            ITEMS: msgspec.json.encode(list(item_ids)),
            TENSORS: save_tensors({name: np.ascontiguousarray(t) for name, t in tensors.items()}),
            **files,
        }
        entries = {name: _entry(data) for name, data in contents.items()}
        sealed = msgspec.json.encode(msgspec.structs.replace(manifest, files=entries))
        contents[MANIFEST] = sealed
        for name, data in contents.items():
            _write_durably(temporary / name, data)
        sync_directory(temporary)
        target = parent / f"{manifest.number}-{hashlib.sha256(sealed).hexdigest()[:8]}"
        if target.exists():  # the same bytes under the same name
            shutil.rmtree(temporary)
        else:
            temporary.chmod(0o755)
            temporary.rename(target)
            sync_directory(parent)
        return target
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise


def read(directory: Path) -> Snapshot:
    """Reads and verifies all of a snapshot that serves, and none of its extra files.

    Raises SnapshotError if anything at all is wrong.
    """
    name = directory.name
    manifest = read_manifest(directory)
    contents = {file: _verified(directory, manifest, file) for file in (ITEMS, TENSORS)}
    try:
        item_ids = msgspec.json.decode(contents[ITEMS], type=list[str])
        tensors = load_tensors(contents[TENSORS])
    except (msgspec.DecodeError, SafetensorError) as error:
        raise SnapshotError(f"snapshot {name}: {error}") from None
    _check_content(name, manifest, item_ids, tensors)
    return Snapshot(name, manifest, item_ids, tensors)


def read_extra(directory: Path, file: str) -> bytes:
    """An extra file of a snapshot, verified. Raises SnapshotError, also if there is none."""
    if not is_extra(file):
        raise SnapshotError(f"snapshot {directory.name}: no extra file is called {file!r}")
    manifest = read_manifest(directory)
    if file not in manifest.files:
        raise SnapshotError(f"snapshot {directory.name}: it has no {file}")
    return _verified(directory, manifest, file)


def read_manifest(directory: Path) -> Manifest:
    """The verified manifest of a snapshot. Raises SnapshotError."""
    name = directory.name
    if not is_name(name):
        raise SnapshotError(f"snapshot {name!r}: the name is no generation's, like 12-3fa94c01")
    sealed = _read(directory, MANIFEST)
    if hashlib.sha256(sealed).hexdigest()[:8] != name.partition("-")[2]:
        raise SnapshotError(f"snapshot {name}: {MANIFEST} does not have the sha256 in the name")
    try:
        manifest = msgspec.json.decode(sealed, type=Manifest)
    except msgspec.DecodeError as error:
        raise SnapshotError(f"snapshot {name}: {MANIFEST}: {error}") from None
    if manifest.format != FORMAT:
        raise SnapshotError(
            f"snapshot {name}: format {manifest.format}; this version reads format {FORMAT}"
        )
    if manifest.number != number_of(name):
        raise SnapshotError(f"snapshot {name}: {MANIFEST} says number {manifest.number}")
    return manifest


def _verified(directory: Path, manifest: Manifest, file: str) -> bytes:
    """A file's bytes, as the manifest has their size and sha256."""
    data = _read(directory, file)
    if _entry(data) != manifest.files.get(file):
        name = directory.name
        raise SnapshotError(f"snapshot {name}: {file} differs from the manifest's sha256")
    return data


def _check_content(
    name: str, manifest: Manifest, item_ids: Sequence[str], tensors: Mapping[str, Float32s]
) -> None:
    if len(set(item_ids)) != len(item_ids) or not item_ids:
        raise SnapshotError(f"snapshot {name}: item ids are empty or not distinct")
    expected = {
        "item_vectors": (len(item_ids), manifest.dimensions),
        "popularity": (len(item_ids),),
    }
    for key, shape in expected.items():
        if key not in tensors or tensors[key].shape != shape:
            found = tensors[key].shape if key in tensors else "nothing"
            raise SnapshotError(f"snapshot {name}: tensor {key} is {found}, not {shape}")
    if manifest.items != len(item_ids):
        raise SnapshotError(f"snapshot {name}: {len(item_ids)} item ids, not {manifest.items}")
    for key, tensor in tensors.items():
        if tensor.dtype == np.float32 and not np.isfinite(tensor).all():
            raise SnapshotError(f"snapshot {name}: tensor {key} has NaN or infinite numbers")


def _entry(data: bytes) -> FileEntry:
    return FileEntry(len(data), hashlib.sha256(data).hexdigest())


def _read(directory: Path, file: str) -> bytes:
    try:
        return (directory / file).read_bytes()
    except OSError as error:
        raise SnapshotError(f"snapshot {directory.name}: {file}: {error.strerror}") from None


def _write_durably(path: Path, data: bytes) -> None:
    with path.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
