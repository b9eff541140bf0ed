"""docs/models.md is held against the models themselves."""

import re
from pathlib import Path

import msgspec
import pytest

from trainer.models import MODELS, model_class

PAGE = (Path(__file__).parents[2] / "docs" / "models.md").read_text("utf-8")


@pytest.mark.parametrize("name", MODELS)
def test_every_parameter_is_documented_with_its_default_and_its_meaning(name: str) -> None:
    section = re.split(r"^## ", PAGE, flags=re.MULTILINE)
    (mine,) = [text for text in section if text.startswith(f"{name}\n")]
    rows = re.findall(r"^\| `(\w+)` \| (\S+) \| (.+) \|$", mine, flags=re.MULTILINE)
    model = model_class(name)
    expected = []
    for field in msgspec.structs.fields(model):  # type: ignore[type-var]
        (meta,) = model.__annotations__[field.name].__metadata__
        expected.append((field.name, str(field.default), meta.description))
    assert rows == expected


def test_what_each_model_can_do_is_documented() -> None:
    rows = re.findall(r"^\| `(\w+)` \| [^|]+ \| ([\w, ]+) \|$", PAGE, flags=re.MULTILINE)
    told = {name: set(can.split(", ")) for name, can in rows if name in MODELS}
    assert told == {name: set(model_class(name).can) for name in MODELS}
