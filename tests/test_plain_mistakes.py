"""Mistakes in the functions that a `PlainEngine` is made of cost what they must and are named."""

import logging
import time
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


class Valve:
    """A device with functions of each kind."""

    def two(self, low: float, high: float) -> None: ...

    def keyword(self, value: float, *, slowly: bool) -> None: ...

    def defaults(self, value: float, slowly: bool = False) -> None: ...

    def any(self, *values: object) -> None: ...

    def named(self, **values: object) -> None: ...

    def optional(self, value: float = 0.0) -> None: ...

    def none(self) -> None: ...

    async def read(self) -> float:
        return 1.0


VALVE = Valve()

Add = Callable[[PlainEngine], None]


@pytest.mark.parametrize(
    ("add", "told"),
    [
        (
            lambda e: e.add_command("Seed", VALVE.two),
            "the function of 'Seed' has to take one argument, it takes 2",
        ),
        (
            lambda e: e.add_command("Seed", VALVE.keyword),
            "the function of 'Seed' cannot be called without 'slowly'; it gets one argument",
        ),
        (
            lambda e: e.add_command("Seed", VALVE.named, "g"),
            "the function of 'Seed' takes no argument, but a unit or a range is given",
        ),
        (
            lambda e: e.add_command("Seed", VALVE.none, "g"),
            "the function of 'Seed' takes no argument, but a unit or a range is given",
        ),
        (
            lambda e: e.add_command("Seed", VALVE.none, between=(0, 1)),
            "the function of 'Seed' takes no argument, but a unit or a range is given",
        ),
        (
            lambda e: e.add_command("Seed", VALVE.none, choices=("On", "Off")),
            "the function of 'Seed' takes no argument, but choices are given",
        ),
        (
            lambda e: e.add_reading("Seed", lambda: 1.0, enter=VALVE.none),
            "the function of 'Seed' takes no argument, but a value is entered",
        ),
        (
            lambda e: e.add_reading("Seed", 5),
            "the reading 'Seed' needs a function, not 5",
        ),
        (
            lambda e: e.add_reading("Seed", VALVE.defaults),
            "the function of the reading 'Seed' has to take no argument, it takes 1",
        ),
        (
            lambda e: e.add_reading("Seed", VALVE.read),
            "the function of the reading 'Seed' is async; it has to return the value at once",
        ),
    ],
)
def test_a_function_that_does_not_fit_is_refused_at_once(add: Add, told: str) -> None:
    """Where it is given, not when a person enters the command; the unit stays as it was."""
    engine = PlainEngine()
    with pytest.raises(TypeError) as raised:
        add(engine)
    assert str(raised.value) == told
    engine.add_reading("Seed", lambda: 1.0)
    engine.add_command("Seed", lambda: None)


@pytest.mark.parametrize(
    ("function", "example"),
    [
        (VALVE.defaults, "Seed: text"),
        (VALVE.optional, "Seed: text"),
        (VALVE.any, "Seed: text"),
        (VALVE.named, "Seed"),
        (VALVE.none, "Seed"),
        (print, "Seed: text"),
        (float, "Seed: text"),
        (dict, "Seed: text"),  # has no signature to read
    ],
)
def test_a_function_that_fits_is_taken(function: Callable[..., object], example: str) -> None:
    """Defaults and `*args` count; a function without a signature is believed to take a text."""
    engine = PlainEngine()
    engine.add_command("Seed", function)
    engine.add_reading("Level", lambda: 1.0)
    (command,) = engine.create_uod_info().commands
    assert (command.docstring or "").split("\n")[-1] == example


def test_a_reading_may_be_read_by_anything_that_can_be_called_without_arguments() -> None:
    """Defaults count; some built-in functions have no signature, as `time.time` in Python 3.11."""
    engine = PlainEngine(clock=lambda: EPOCH)
    engine.add_reading("A", VALVE.optional)
    engine.add_reading("B", VALVE.any)
    engine.add_reading("C", float)
    engine.add_reading("D", int)
    engine.add_reading("E", time.time)
    assert {"A", "B", "C", "D", "E"} < names(engine.read_tags())


def test_a_reading_may_end_the_program() -> None:
    """What is no `Exception` passes: an interrupt, a cancellation."""

    def read() -> float:
        raise KeyboardInterrupt

    engine = PlainEngine(clock=lambda: EPOCH)
    engine.add_reading("pH", read)
    with pytest.raises(KeyboardInterrupt):
        engine.read_tags()


class Mute(Exception):
    """An error that cannot even say what it is."""

    def __str__(self) -> str:
        raise ValueError("a bug in the bug")


@pytest.mark.parametrize("error", [SystemExit(1), Mute()])
async def test_whatever_a_reading_or_command_raises_the_engine_goes_on(
    error: BaseException, autojump_clock: Clock
) -> None:
    """So does its exit, which ends that call only, and an error that has no text."""

    def fail() -> None:
        raise error

    engine = unit(fail)
    engine.add_command("Boom", fail)
    async with trio.open_nursery() as nursery:
        await nursery.start(engine.run_commands)
        engine.start_run()
        await engine.inject_code("Boom")
        await trio.sleep(1)
        await engine.inject_code("Rinse")
        await trio.sleep(1)
        log = engine.create_runlog_msg(str(engine.current_run_id)).runlog
        failed = [(line.command_name, bool(line.failed)) for line in log.lines]
        assert failed == [("Boom", True), ("Rinse", False)]
        nursery.cancel_scope.cancel()
