"""Messages of the package write themselves, just as the package would send them."""

import json
import math
from typing import Any

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st
from openpectus.protocol import engine_messages as package
from openpectus.protocol import models as package_models
from openpectus.protocol.serialization import serialize
from pydantic import field_serializer

from trio_runner.bridge import _wire, to_object
from trio_runner.protocol import encode, encode_body, foreign
from trio_runner.protocol import engine_messages as em

from .units import ticked_demo


def sample(value: float | str | None, cls: Any = package.TagsUpdatedMsg) -> Any:
    """Return a sample of one tag with this value."""
    tag = package_models.TagValue(name="T", tick_time=1.7e9, value=value, value_unit=None)
    return cls(tags=[tag], run_id="R")


def written(message: Any) -> str:
    """Return the body with which a sample goes out."""
    return encode_body(_wire.to_ours(message, em.TagsUpdatedMsg))


def as_serialised(message: Any) -> str:
    """Return the body that follows from what the package's `serialize` makes of a sample."""
    return encode_body(foreign(to_object(message), em.TagsUpdatedMsg))


@given(st.floats() | st.integers() | st.text() | st.none())
def test_every_value_is_written_as_the_package_sends_it(value: float | str | None) -> None:
    """It is the same to the letter, except the sign of a large exponent: 1e16 here, 1e+16 there."""
    message = sample(value)
    if isinstance(value, float) and math.isfinite(value) and abs(value) >= 1e16:
        assert json.loads(written(message)) == json.loads(as_serialised(message))
    else:
        assert written(message) == as_serialised(message)


@pytest.mark.parametrize("value", [math.inf, -math.inf, math.nan])
def test_a_number_that_is_not_finite_becomes_null(value: float) -> None:
    """JSON has no such numbers."""
    message = sample(value)
    message.tags[0].tick_time = value
    (tag,) = json.loads(written(message))["tags"]
    assert (tag["tick_time"], tag["value"]) == (None, None)


class RoundedMsg(package.TagsUpdatedMsg):  # type: ignore[misc]
    """A made-up message whose text is not what `serialize` gives."""

    @field_serializer("run_id", when_used="json")  # type: ignore[untyped-decorator]
    def _run_id(self, run_id: str | None) -> str:
        return f"run {run_id}"


class CautiousMsg(package.TagsUpdatedMsg):  # type: ignore[misc]
    """A made-up message that does not tell all that it holds."""

    def model_dump(self, **options: Any) -> dict[str, Any]:
        """Leave the tags out."""
        return {**super().model_dump(**options), "tags": []}


@pytest.mark.parametrize("cls", [RoundedMsg, CautiousMsg])
def test_a_class_that_writes_itself_differently_goes_out_as_the_package_sends_it(cls: Any) -> None:
    """A newer package may serialise its messages in its own way."""
    for value in (1.5, 2.5):
        message = sample(value, cls)
        assert written(message) == as_serialised(message)
        assert json.loads(written(message))["_type"] == cls.__name__


def test_only_the_first_message_of_a_class_is_written_twice(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """All later ones are written once, by pydantic, and their text is not touched again."""
    serialised: list[str] = []
    texts: list[str] = []
    write = package.EngineMessage.model_dump_json

    def noted(message: Any) -> Any:
        serialised.append(type(message).__name__)
        return serialize(message)

    def noted_text(message: Any, **options: Any) -> str:
        texts.append(type(message).__name__)
        return str(write(message, **options))

    monkeypatch.setattr(_wire, "_ends", {})
    monkeypatch.setattr(_wire, "serialize", noted)
    monkeypatch.setattr(package.EngineMessage, "model_dump_json", noted_text)
    with ticked_demo() as unit:
        unit.tick()
        builder = unit.engine.builder
        builder.create_tag_updates_snapshot_msg()
        for _ in range(5):
            unit.tick(3)
            message = builder.create_tag_updates_msg("R")
            assert message is not None
            assert encode_body(message) is encode_body(message)
    assert serialised == ["TagsUpdatedMsg"]
    assert texts == ["TagsUpdatedMsg"] * 6


def test_a_messages_fields_can_be_read_and_changed() -> None:
    """They are the package's. The run with which a sample is stamped goes out with the rest."""
    message = _wire.to_ours(sample(1.5), em.TagsUpdatedMsg)
    assert [tag.name for tag in message.tags] == ["T"]
    assert message.run_id == "R"
    changed = attrs.evolve(message, run_id="S")
    assert json.loads(encode_body(changed)) == {**json.loads(encode_body(message)), "run_id": "S"}
    assert encode(changed) == json.loads(encode_body(changed))
