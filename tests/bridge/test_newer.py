"""A newer Open Pectus: classes and fields that this project does not know."""

import json
from typing import Any

import pytest
from openpectus.protocol import aggregator_messages as am
from openpectus.protocol import engine_messages as package
from openpectus.protocol import messages as package_base
from openpectus.protocol.serialization import serialize

from trio_runner import EngineRunner, MemoryOutbox
from trio_runner.bridge import UodDispatcher
from trio_runner.protocol import encode
from trio_runner.protocol import engine_messages as em

from .units import demo_engine, ticked_demo


class TagsWithQualityMsg(package.TagsUpdatedMsg):  # type: ignore[misc]
    """A made-up sample that tells how good its values are."""

    quality: dict[str, set[str]]
    source: str = "FT01"
    attr: int = 1


class TareMsg(am.AggregatorMessage):  # type: ignore[misc]
    """A made-up command that this project does not know."""

    scale: str
    grams: float


class TaredMsg(package_base.SuccessMessage):  # type: ignore[misc]
    """A made-up answer that this project does not know either."""

    offset: float


def test_a_made_up_message_and_field_are_sent_as_they_are() -> None:
    """The sample that the runner queues is of the package's class, with all its fields."""
    with ticked_demo() as unit:
        unit.tick()
        builder: Any = unit.engine.builder
        outbox = MemoryOutbox()
        dispatcher = UodDispatcher(engine=unit.engine)
        runner = EngineRunner(dispatcher, builder, unit.engine.emitter, outbox=outbox)
        builder.create_tag_updates_snapshot_msg()
        made = TagsWithQualityMsg(tags=[], quality={"FT01": {"stale"}})
        builder._builder.create_tag_updates_msg = lambda run_id: made
        runner.on_start("R")
        message = builder.create_tag_updates_msg("R")
        runner.post(message)
        outbox.take()
        outbox.take()
        entry = outbox.take()
    assert entry.kind is em.TagsUpdatedMsg
    sent = json.loads(entry.text)
    assert (sent["_type"], sent["_ns"]) == ("TagsWithQualityMsg", TagsWithQualityMsg.__module__)
    assert sent["quality"] == {"FT01": ["stale"]}
    assert (sent["source"], sent["attr"]) == ("FT01", 1)
    assert sent["run_id"] == "R"


async def test_a_made_up_command_reaches_its_handler(monkeypatch: pytest.MonkeyPatch) -> None:
    """A class that only the package has is handled, and its answer is sent."""
    monkeypatch.setattr(am, "TareMsg", TareMsg, raising=False)
    monkeypatch.setattr(TareMsg, "__module__", am.__name__)
    heard: list[Any] = []

    async def tare(message: Any) -> Any:
        heard.append(message)
        return TaredMsg(offset=message.grams / 2)

    with demo_engine() as engine:
        engine.set_rpc_handler(TareMsg, tare)
        asked = TareMsg(scale="S1", grams=3.0)
        answer = encode(await UodDispatcher(engine=engine).dispatch(serialize(asked)))
    assert heard == [asked]
    assert (answer["_type"], answer["offset"]) == ("TaredMsg", 1.5)
