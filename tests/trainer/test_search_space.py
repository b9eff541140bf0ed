"""What the models declare for tuning."""

from typing import Any

import msgspec
import pytest

from trainer.models import MODELS, model_class, model_of
from trainer.models.als import Als
from trainer.search_space import Range, space_of

UNTUNED = {
    "private_mf",  # each trial would spend its users' privacy
    "federated_mf",  # a simulation
}


@pytest.mark.parametrize("name", MODELS)
def test_a_space_names_parameters_and_stays_in_their_bounds(name: str) -> None:
    space = space_of(model_class(name))
    own = msgspec.to_builtins(model_of(name, {}))
    for key, span in space.items():
        assert span.low <= own[key] <= span.high, key
        assert span.is_whole == isinstance(own[key], int), key
        assert span.low > 0 or not span.log, key
    for end in ("low", "high"):
        model_of(name, {key: getattr(span, end) for key, span in space.items()})


@pytest.mark.parametrize("name", [name for name in MODELS if name not in UNTUNED])
def test_there_is_something_to_tune(name: str) -> None:
    assert space_of(model_class(name))


def test_a_range_is_whole_where_both_ends_are() -> None:
    assert Range(1, 4).is_whole
    assert not Range(1.0, 4.0).is_whole


def test_a_model_that_declares_nothing_has_nothing_to_tune() -> None:
    class Plain:
        pass

    plain: Any = Plain
    assert space_of(plain) == {}
    assert set(space_of(Als)) == {"factors", "regularisation", "alpha", "half_steps"}
