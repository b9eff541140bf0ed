"""What the last promoted fit kept, for the next fit of the same model to begin with.

    <data_dir>/warm/<model>.safetensors     the tensors, and beside them ids and generation

User vectors are among it, so it stays in the trainer's own folder. It is written anew with each
promotion, from that fit's users alone: who has left the data set has left it too.
"""

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file

from rheos.state import Float32s
from trainer.data_set import DataSet
from trainer.models.model import Fitted, Model, Start

log = logging.getLogger(__name__)

_ABOUT = "about"
"""The tensor that holds an _About as JSON bytes; safetensors' own metadata is text only."""
_WRITING = ".writing-"


class _About(msgspec.Struct, frozen=True):
    generation: str
    parameters: dict[str, Any]
    user_ids: list[str]
    item_ids: list[str]


class WarmStarts:
    """One file a model below ``directory``. For one process at a time (the cycle's lock)."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory

    def keep(self, model: Model, generation: str, data: DataSet, fitted: Fitted) -> None:
        """Replaces what is kept of a model by what the fit of ``generation`` kept.

        Nothing is left where the fit kept nothing. What a crash or a power cut tears is passed over
        by ``read``. Raises OSError.
        """
        if not fitted.keep:
            self.drop(model.name)
            return
        about = msgspec.json.encode(
            _About(generation, msgspec.to_builtins(model), data.user_ids, fitted.item_ids)
        )
        tensors = {name: np.ascontiguousarray(tensor) for name, tensor in fitted.keep.items()}
        self._directory.mkdir(parents=True, exist_ok=True)
        temporary = self._directory / f"{_WRITING}{model.name}"
        try:
            save_file(tensors | {_ABOUT: np.frombuffer(about, np.uint8)}, temporary)
            temporary.rename(self._path(model.name))
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise

    def read(self, model: Model, generation: str) -> Start | None:
        """What the fit of ``generation`` kept; None where that is not there or not sound.

        Another generation's is of no use: one fitted on newer events than the serving one has seen
        what the gate will ask, and one that was rolled back is no good to begin with. Nor is one of
        other parameters: its numbers may mean something else.
        """
        path = self._path(model.name)
        if not path.is_file():
            return None
        try:
            tensors: dict[str, Float32s] = load_file(path)
            about = msgspec.json.decode(tensors.pop(_ABOUT).tobytes(), type=_About)
            _check(about, tensors)
        except (SafetensorError, msgspec.DecodeError, KeyError, ValueError, OSError) as error:
            log.warning("%s is passed over, the fit starts anew: %s", path, error)
            return None
        if about.generation != generation:
            log.info(
                "%s is of %s and not of the serving generation; the fit starts anew",
                *(path, about.generation),
            )
            return None
        if about.parameters != msgspec.to_builtins(model):
            log.info("%s is of other parameters; the fit starts anew", path)
            return None
        return Start(about.user_ids, about.item_ids, tensors)

    def drop(self, model: str) -> None:
        """Removes what is kept of a model: the next fit starts anew. Raises OSError."""
        self._path(model).unlink(missing_ok=True)

    def _path(self, model: str) -> Path:
        return self._directory / f"{model}.safetensors"


def _check(about: _About, tensors: Mapping[str, Float32s]) -> None:
    """Raises ValueError, naming what no fit of ours can have kept."""
    for what, ids in (("user", about.user_ids), ("item", about.item_ids)):
        if len(set(ids)) != len(ids):
            raise ValueError(f"{what} ids are not distinct")
    rows = {"user": len(about.user_ids), "item": len(about.item_ids)}
    for name, tensor in tensors.items():
        if tensor.dtype != np.float32 or not np.isfinite(tensor).all():
            raise ValueError(f"tensor {name} is no float32, or has NaN or infinite numbers")
        expected = rows.get(name.partition(".")[0])
        if expected is not None and (tensor.ndim == 0 or len(tensor) != expected):
            raise ValueError(f"tensor {name} is {tensor.shape}, for {expected} ids")
