"""The engine's tags on their way to the package's builder."""

import logging
from typing import Any

import pytest
from openpectus.engine import engine_message_builder as builder

from trio_runner.protocol import encode

from .units import ticked_demo


def test_each_sample_makes_one_model_of_each_tag(monkeypatch: pytest.MonkeyPatch) -> None:
    """The engine ticks three times between two samples, and a flow changes at each tick."""
    models: list[Any] = []
    make = builder.to_model_tag

    def noted(tag: Any) -> Any:
        models.append(make(tag))
        return models[-1]

    monkeypatch.setattr(builder, "to_model_tag", noted)
    with ticked_demo() as ticked:
        ticked.tick()
        ticked.engine.builder.create_tag_updates_snapshot_msg()
        models.clear()
        ticked.tick(3)
        message = ticked.engine.builder.create_tag_updates_msg(None)
        assert message is not None
        told = {tag["name"]: tag["value"] for tag in encode(message)["tags"]}
        assert len(models) == len(message.tags) == len(told)
        assert told["FT02"] == ticked.inside.tags["FT02"].get_value()
        assert ticked.engine.builder.create_tag_updates_msg(None) is None


def test_tags_keep_the_engines_order() -> None:
    """The aggregator shows and plots them in the order in which it first hears of them."""
    with ticked_demo() as ticked:
        ticked.tick()
        ticked.engine.builder.create_tag_updates_snapshot_msg()  # it begins with what had changed
        message = ticked.engine.builder.create_tag_updates_snapshot_msg()
        told = [tag["name"] for tag in encode(message)["tags"]]
        assert told == [tag.name for tag in ticked.inside._iter_all_tags()]


def test_a_tag_that_no_message_can_hold_costs_that_tag_only(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """A driver gave a list for a flow: that is logged once, in one line; all other tags go out."""
    with ticked_demo() as ticked:
        ticked.tick()
        names = [tag.name for tag in ticked.inside._iter_all_tags()]
        caplog.clear()
        for _ in range(2):
            ticked.inside.tags["FT02"].value = [1.5]
            message = ticked.engine.builder.create_tag_updates_snapshot_msg()
            told = [tag["name"] for tag in encode(message)["tags"]]
            assert sorted(told) == sorted(name for name in names if name != "FT02")
    (record,) = [r for r in caplog.records if r.levelno >= logging.ERROR]
    assert record.getMessage() == (
        "The tag 'FT02' is left out: its value has to be a number, a text or None, not a list"
    )
    assert record.exc_info is None
