"""The engine's tags on their way to the package's builder."""

from typing import Any

import pytest
from openpectus.engine import engine_message_builder as builder

from trio_runner.protocol import encode

from .units import ticked_demo


def test_of_each_tag_one_model_is_made_a_sample(monkeypatch: pytest.MonkeyPatch) -> None:
    """The engine ticks three times between two samples; a flow changes at each tick."""
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
    """The aggregator shows and plots them in the order in which it hears of them first."""
    with ticked_demo() as ticked:
        ticked.tick()
        ticked.engine.builder.create_tag_updates_snapshot_msg()  # begins with what had changed
        message = ticked.engine.builder.create_tag_updates_snapshot_msg()
        told = [tag["name"] for tag in encode(message)["tags"]]
        assert told == [tag.name for tag in ticked.inside._iter_all_tags()]
