"""Fitting a model and putting the result into the form of a generation."""

import time
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import msgspec
import numpy as np

from rheos.item_weights import ItemWeights
from rheos.snapshot import Manifest, software_versions
from rheos.state import Float32s
from trainer.data_set import DataSet
from trainer.early_stopping import DivergedError
from trainer.models.model import Fitted, ItemWeigher, Model, Run


class FitError(RuntimeError):
    """A fit that gave nothing usable: it failed, or its numbers are not finite."""


class Made(NamedTuple):
    """What a snapshot store takes: ``store.put(*made)``."""

    manifest: Manifest
    item_ids: list[str]
    tensors: Mapping[str, Float32s]
    files: Mapping[str, bytes] = {}


Fit = Callable[[Model, DataSet, Run], Fitted]
"""``fit``, or what does the same in another way; ``trainer.together`` has one."""


def fit(model: Model, data: DataSet, run: Run) -> Fitted:
    """Fits and checks a model. Raises FitError, whatever went wrong in the model."""
    try:
        fitted = model.fit(data, run)
    except DivergedError as error:
        raise FitError(f"{model.name} diverged: {error}") from error
    except Exception as error:
        raise FitError(f"{model.name}: {type(error).__name__}: {error}") from error
    if fitted.item_vectors.shape[0] != len(fitted.item_ids):
        raise FitError(
            f"{model.name}: {len(fitted.item_ids)} items, {len(fitted.item_vectors)} vectors"
        )
    checked = {"item_vectors": fitted.item_vectors, **fitted.tensors}
    if fitted.item_weights is not None:
        checked |= fitted.item_weights.tensors()
    checked |= {f"kept {name}": tensor for name, tensor in fitted.keep.items()}
    for name, tensor in checked.items():
        if not np.isfinite(tensor).all():
            raise FitError(f"{model.name}: {name} has NaN or infinite numbers")
    return fitted


def with_item_weights(
    fitted: Fitted, weigher: ItemWeigher | None, data: DataSet, run: Run
) -> Fitted:
    """The same with the item weights that ``weigher`` finds in ``data``.

    A model that has weights of its own keeps them, and one that guards its users' privacy gets
    none: they would tell what it hides. Raises FitError.
    """
    if weigher is None or fitted.item_weights is not None or fitted.privacy is not None:
        return fitted
    if fitted.item_ids != data.item_ids:
        raise FitError(f"{weigher.name}: item weights for other items than the vectors'")
    try:
        weights = weigher.item_weights(data, run)
    except Exception as error:
        raise FitError(f"{weigher.name}: {type(error).__name__}: {error}") from error
    by = {"by": weigher.name, "with": msgspec.to_builtins(weigher)}
    told = ItemWeights(weights.starts, weights.targets, weights.weights, weights.parameters | by)
    return fitted._replace(item_weights=told)


def make(
    number: int,
    model: Model,
    fitted: Fitted,
    data: DataSet,
    metrics: Mapping[str, Any],
    start: str = "",
) -> Made:
    """The generation of a model fitted on ``data``, from where the fit of ``start`` ended."""
    popularity = fitted.popularity
    if popularity is None:
        counts = dict(zip(data.item_ids, data.popularity().tolist(), strict=True))
        popularity = np.array([counts[item] for item in fitted.item_ids], np.float32)
    manifest = Manifest(
        number=number,
        model=model.name,
        dimensions=int(fitted.item_vectors.shape[1]),
        items=len(fitted.item_ids),
        interactions=len(data),
        created_ms=time.time_ns() // 1_000_000,
        window=data.window,
        topic_id=data.topic_id,
        parameters=msgspec.to_builtins(model),
        start=start,
        metrics=dict(metrics),
        encoder=fitted.encoder,
        ranker=fitted.ranker,
        item_weights=None if fitted.item_weights is None else fitted.item_weights.parameters,
        content=fitted.content,
        privacy=fitted.privacy,
        software=software_versions(),
    )
    tensors = {
        "item_vectors": fitted.item_vectors,
        "popularity": popularity,
        **fitted.tensors,
    }
    if fitted.item_weights is not None:
        tensors |= fitted.item_weights.tensors()
    return Made(manifest, fitted.item_ids, tensors)
