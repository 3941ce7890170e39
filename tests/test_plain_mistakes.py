"""Mistakes in the functions that a `PlainEngine` is made of cost what they must and are named."""

import logging
from collections.abc import Callable
from typing import Any

import pytest
import trio
from trio.testing import MockClock as Clock

from trio_runner import EngineDispatcher, EngineRunner, PlainEngine
from trio_runner.protocol import engine_messages as em
from trio_runner.protocol import models as mdl
from trio_runner.simulation import Aggregator

EPOCH = 1.7e9
SHARED = {"System State", "Run Time"}

TOLD = "The reading 'pH' raised ZeroDivisionError: division by zero; it is left out"


def unit(read: Callable[[], Any]) -> PlainEngine:
    """Return a unit with a sound reading and one that is read by `read`."""
    engine = PlainEngine("Tank", computer_name="pc", clock=lambda: EPOCH + trio.current_time())
    engine.add_reading("Level", trio.current_time, "L")
    engine.add_reading("pH", read)
    engine.add_command("Rinse", lambda: None)
    return engine


def names(tags: list[mdl.TagValue]) -> set[str]:
    return {tag.name for tag in tags}


async def test_a_reading_that_raises_costs_that_reading_only(
    autojump_clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    """It is named once, in the log and in the unit's error log; it is back once it can be read."""
    fails = True
    engine, aggregator = unit(lambda: 1 / 0 if fails else 7.0), Aggregator()
    async with trio.open_nursery() as nursery:
        dispatcher = EngineDispatcher(handlers=engine, open_stream=aggregator.in_memory(nursery))
        await nursery.start(EngineRunner(dispatcher, engine, engine, clock=engine.clock).run)
        await trio.sleep(6)
        samples = aggregator.messages(em.TagsUpdatedMsg)
        # one each 0.3 s: at least 16 in 5 s
        assert len(samples) >= 16
        assert {name for sample in samples for name in names(sample.tags)} == {"Level", *SHARED}
        fails = False
        await trio.sleep(1)
        later = aggregator.messages(em.TagsUpdatedMsg)[len(samples) :]
        assert "pH" in {name for sample in later for name in names(sample.tags)}
        (entry,) = aggregator.engine("pc_Tank").unit.error_log
        assert entry.message == TOLD
        nursery.cancel_scope.cancel()
    (record,) = [r for r in caplog.records if r.levelno >= logging.ERROR]
    assert record.getMessage() == TOLD
    assert record.exc_info is not None  # where in the program's own code it was raised


async def test_a_reading_that_raises_costs_no_command(autojump_clock: Clock) -> None:
    """The run log has its values at the beginning and end of each line."""
    engine = unit(lambda: 1 / 0)
    async with trio.open_nursery() as nursery:
        await nursery.start(engine.run_commands)
        engine.start_run()
        await engine.inject_code("Rinse")
        await trio.sleep(1)
        run_id = engine.current_run_id
        assert run_id is not None
        (line,) = engine.create_runlog_msg(run_id).runlog.lines
        assert not line.failed
        assert names(line.start_values) == names(line.end_values) == {"Level"}
        nursery.cancel_scope.cancel()


def test_a_reading_that_raises_is_told_once_a_day() -> None:
    """To the unit's people; each kind of error for itself."""
    now, error = EPOCH, OSError("no answer")

    def read() -> float:
        raise error

    engine = PlainEngine(clock=lambda: now)
    engine.add_reading("pH", read)

    def told() -> list[str]:
        engine.read_tags()
        engine.read_tags()
        message = engine.create_error_log_msg()
        return [] if message is None else [entry.message for entry in message.log.entries]

    assert told() == ["The reading 'pH' raised OSError: no answer; it is left out"]
    assert told() == []
    error = ValueError()  # type: ignore[assignment]
    assert told() == ["The reading 'pH' raised ValueError; it is left out"]
    now += 86_401
    assert told() == ["The reading 'pH' raised ValueError; it is left out"]


def test_a_reading_that_raises_is_described_with_the_others() -> None:
    """It is a part of the unit, also while it cannot be read."""
    engine = PlainEngine(clock=lambda: EPOCH)
    engine.add_reading("pH", lambda: 1 / 0, "pH")
    info = engine.create_uod_info()
    assert [reading.tag_name for reading in info.readings] == ["Run Time", "pH"]
    defined = {tag.name: tag.unit for tag in info.uod_definition.tags}
    assert defined == {"pH": "pH", "System State": None, "Run Time": "s"}


def test_a_reading_may_end_the_program() -> None:
    """What is no `Exception` passes: an interrupt, a cancellation."""

    def read() -> float:
        raise KeyboardInterrupt

    engine = PlainEngine(clock=lambda: EPOCH)
    engine.add_reading("pH", read)
    with pytest.raises(KeyboardInterrupt):
        engine.read_tags()
