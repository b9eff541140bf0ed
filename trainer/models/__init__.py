"""The models by name. A module is imported when its model is asked for: torch takes seconds."""

import importlib
from collections.abc import Mapping
from importlib.metadata import entry_points
from typing import Any, cast

import msgspec

from rheos.settings import Settings, SettingsError
from trainer.models.model import ItemWeigher, Model

MODELS = {
    "als": "trainer.models.als:Als",
    "bpr": "trainer.models.bpr:Bpr",
    "mf": "trainer.models.mf:Mf",
    "gmf": "trainer.models.gmf:Gmf",
    "mlp": "trainer.models.mlp:Mlp",
    "neumf": "trainer.models.neumf:NeuMF",
    "ease": "trainer.models.ease:Ease",
    "lightgcn": "trainer.models.lightgcn:LightGCN",
    "bspm": "trainer.models.bspm:Bspm",
    "private_mf": "trainer.models.private_mf:PrivateMf",
    "federated_mf": "trainer.models.federated_mf:FederatedMf",
    "sasrec": "trainer.models.sasrec:SasRec",
    "two_tower": "trainer.models.two_tower:TwoTower",
}
"""Our models: name and class; a new one joins here and in tests/contract/test_models.py."""

ENTRY_POINTS = "rheos.models"
"""The group in which an installed package names its models, each ``name = "module:Class"``."""


def known_models() -> dict[str, str]:
    """All models by name, our own first; a package cannot take the name of one of these."""
    installed = {found.name: found.value for found in entry_points(group=ENTRY_POINTS)}
    return MODELS | {name: installed[name] for name in sorted(installed) if name not in MODELS}


def model_class(name: str) -> type[Model]:
    """The class of a model. Raises SettingsError for a name that is none, or does not load."""
    known = known_models()
    if name not in known:
        raise SettingsError(f"setting trainer.model = {name!r}: known are {', '.join(known)}")
    module, _, attribute = known[name].partition(":")
    try:
        return cast(type[Model], getattr(importlib.import_module(module), attribute))
    except (ImportError, AttributeError) as error:
        raise SettingsError(f"setting trainer.model = {name!r}: {error}") from None


def model_of(
    name: str, parameters: Mapping[str, Any], setting: str = "trainer.parameters"
) -> Model:
    """A model with its parameters. Raises SettingsError, whose text names the parameter.

    ``setting`` is where the parameters come from.
    """
    try:
        return msgspec.convert(dict(parameters), model_class(name))
    except msgspec.ValidationError as error:
        text, _, path = str(error).partition(" - at `$")
        key = path.rstrip("`").removeprefix(".")
        shown = f".{key} = {parameters.get(key)!r}" if key else ""
        raise SettingsError(
            f"setting {setting}{shown}: {text}; see docs/models.md for those of {name}"
        ) from None


def model_of_settings(settings: Settings) -> Model:
    """The model that ``trainer.model`` and ``trainer.parameters`` name. Raises SettingsError."""
    return model_of(settings.trainer.model, settings.trainer.parameters)


def item_weigher_of_settings(settings: Settings) -> ItemWeigher | None:
    """The model whose item weights join the others' vectors, by ``trainer.item_weights``.

    None where that is ``none``. Raises SettingsError.
    """
    trainer = settings.trainer
    if trainer.item_weights == "none":
        return None
    setting = "trainer.item_weights_parameters"
    return cast(
        ItemWeigher, model_of(trainer.item_weights, trainer.item_weights_parameters, setting)
    )
