"""The models by name. A module is imported when its model is asked for: torch takes seconds."""

import importlib
from collections.abc import Mapping
from typing import Any, cast

import msgspec

from rheos.settings import Settings, SettingsError
from trainer.models.model import Model

MODELS = {
    "als": "trainer.models.als:Als",
    "neumf": "trainer.models.neumf:NeuMF",
}
"""Each model's name and class; a new model joins here and in tests/contract/test_models.py."""


def model_class(name: str) -> type[Model]:
    """The class of a model. Raises SettingsError for a name that is none."""
    if name not in MODELS:
        raise SettingsError(f"setting trainer.model = {name!r}: known are {', '.join(MODELS)}")
    module, _, attribute = MODELS[name].partition(":")
    return cast(type[Model], getattr(importlib.import_module(module), attribute))


def model_of(name: str, parameters: Mapping[str, Any]) -> Model:
    """A model with its parameters. Raises SettingsError, whose text names the parameter."""
    try:
        return msgspec.convert(dict(parameters), model_class(name))
    except msgspec.ValidationError as error:
        text, _, path = str(error).partition(" - at `$")
        key = path.rstrip("`").removeprefix(".")
        shown = f".{key} = {parameters.get(key)!r}" if key else ""
        raise SettingsError(
            f"setting trainer.parameters{shown}: {text}; see docs/models.md for those of {name}"
        ) from None


def model_of_settings(settings: Settings) -> Model:
    """The model that ``trainer.model`` and ``trainer.parameters`` name. Raises SettingsError."""
    return model_of(settings.trainer.model, settings.trainer.parameters)
