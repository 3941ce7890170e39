"""Mistakes in embedding an engine are named where they are made, and do little harm."""

import logging
from collections.abc import Callable
from decimal import Decimal
from typing import Any

import pytest
import trio
import trio.testing
from attrs import define, evolve
from trio.testing import MockClock as Clock

from tests.helpers.unit import EPOCH, Named, Unit, wall_clock, world
from tests.test_outbox import LINE
from trio_runner import EngineDispatcher, EngineRunner, MemoryOutbox, PlainEngine
from trio_runner.protocol import ErrorMessage, encode_body
from trio_runner.protocol import aggregator_messages as am
from trio_runner.protocol import engine_messages as em
from trio_runner.protocol import models as mdl

WRONG: Any = None


class Float32:
    """A number of another library that is no number of Python's, as `numpy.float32` is."""

    def __float__(self) -> float:
        return 1.5


def tag(name: Any = "Bad", **changed: Any) -> mdl.TagValue:
    given = {"name": name, "tick_time": wall_clock(), "value": 1.0, "value_unit": None}
    return mdl.TagValue(**{**given, **changed})


@define(eq=False)
class TwoTags(Unit):
    """A unit with a second tag, which is wrong."""

    bad: Callable[[], mdl.TagValue] = tag

    def read_tags(self) -> list[mdl.TagValue]:
        return [*super().read_tags(), self.bad()]


@pytest.mark.parametrize(
    ("bad", "told"),
    [
        (lambda: tag(value=Decimal("1.5")), "its value has to be a float, an int, a str or None,"),
        (lambda: tag(value=Decimal("1.5")), "not a decimal.Decimal"),
        (lambda: tag(value=Float32()), "not a tests.Float32"),
        (lambda: tag(value=[1.5, 2.5]), "not a list"),
        (lambda: tag(value=True), "not a bool"),
        (lambda: tag(tick_time=wall_clock() * 1000), "in seconds since the epoch, not 17000000"),
        (lambda: tag(tick_time="now"), "in seconds since the epoch, not a str"),
        (lambda: tag(value_formatted=1.5), "its value_formatted has to be a str or None,"),
        (lambda: tag(direction=WRONG), "its direction has to be a TagDirection, not a NoneType"),
        (lambda: tag(simulated="yes"), "its simulated has to be a bool or None, not a str"),
    ],
)
async def test_a_wrong_tag_costs_that_tag_only(
    bad: Callable[[], mdl.TagValue],
    told: str,
    autojump_clock: Clock,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """It is named once, on one line, in the log and to the unit's people; the other tags go out."""
    async with world(unit=TwoTags(bad=bad)) as w:
        await w.settled()
        await trio.sleep(5)
        samples = w.aggregator.messages(em.TagsUpdatedMsg)
        # There is a sample every 0.3 s: at least 16 in 5 s, each with the right tag.
        assert len(samples) >= 16
        assert {t.name for sample in samples for t in sample.tags} == {"Count"}
        (entry,) = w.aggregator.engine().unit.error_log
        assert told in entry.message
        (record,) = [r for r in caplog.records if r.levelno == logging.ERROR]
        assert record.getMessage() == entry.message
        assert record.exc_info is None
        assert w.runner.statistics().outbox.set_aside == 0


async def test_a_wrong_tag_that_is_posted_costs_that_tag_only(autojump_clock: Clock) -> None:
    """The same holds for tags that the engine posts."""
    no_tag: Any = Named("No tag")
    wrong = (tag("Bad", value=Decimal(1)), tag("No text", value_unit=7), tag(3), no_tag)
    async with world() as w:
        await w.settled()
        w.runner.post(em.TagsUpdatedMsg(tags=[tag("Good"), *wrong]))
        await trio.sleep(1)
        names = {t.name for s in w.aggregator.messages(em.TagsUpdatedMsg) for t in s.tags}
        assert names == {"Count", "Good"}


def test_a_value_that_json_cannot_hold_is_named_with_its_place() -> None:
    """The caller gets a TypeError, whatever the message."""
    line = evolve(
        LINE,
        command_name="Pump",
        start=EPOCH,
        start_values=[mdl.TagValue(name="Flow", tick_time=EPOCH, value=WRONG, value_unit=None)],
        end_values=[mdl.TagValue(name="F", tick_time=0, value=Decimal(1), value_unit=None)],  # type: ignore[arg-type]
    )
    message = em.RunLogMsg(id="", run_id="run", runlog=mdl.RunLog(lines=[line]))
    with pytest.raises(TypeError) as raised:
        encode_body(message)
    place = "$.runlog.lines[0].end_values[0].value"
    assert str(raised.value) == f"{place} is of the type Decimal, which JSON does not have"


async def test_a_run_that_is_on_cannot_begin_again(autojump_clock: Clock) -> None:
    """A second `on_start` raises in that call, and the first run goes on."""
    async with world() as w:
        await w.settled()
        w.runner.on_start("run-1")
        for run_id in ("run-1", "run-2"):
            with pytest.raises(RuntimeError, match=rf"on_start\('{run_id}'\) was called while the"):
                w.runner.on_start(run_id)
        await trio.sleep(1)
        assert len(w.aggregator.messages(em.RunStartedMsg)) == 1
        assert w.runner.statistics().run_id == "run-1"


async def test_a_run_cannot_begin_in_milliseconds(autojump_clock: Clock) -> None:
    """A start in milliseconds, by the clock or in a message, is refused, and no run is on then."""
    async with world() as w:
        await w.settled()
        dispatcher = EngineDispatcher(handlers=w.unit)
        runner = EngineRunner(dispatcher, w.unit, Unit(), clock=lambda: EPOCH * 1000)
        with pytest.raises(ValueError, match=r"clock\(\) is 1700000000000: it has to be"):
            runner.on_start("run-1")
        with pytest.raises(ValueError, match="started_tick of RunStartedMsg is 1700000000000"):
            w.runner.post(em.RunStartedMsg(run_id="run-1", started_tick=EPOCH * 1000))
        assert w.runner.statistics().run_id is None


class OneLacking(PlainEngine):
    """A builder that lacks or misspells a method."""

    create_uod_info: Any = None


Make = Callable[[Any, Any, Callable[..., object]], object]


@pytest.mark.parametrize(
    ("make", "told"),
    [
        (
            lambda e, d, runner: runner(e, d, e),
            "dispatcher has to be a Dialer; a tests.Unit has no dial(), warn_by(), end_commands()",
        ),
        (
            lambda e, d, runner: runner(d, d, e),
            (
                "message_builder has to be a MessageBuilder; a trio_runner.EngineDispatcher has no"
                " create_register_engine_msg(), create_uod_info(), create_tag_updates_msg()"
                " and 17 more"
            ),
        ),
        (
            lambda e, d, runner: runner(d, OneLacking(), e),
            (
                "message_builder has to be a MessageBuilder; a tests.OneLacking has no"
                " create_uod_info()"
            ),
        ),
        (
            lambda e, d, runner: runner(d, Unit, e),
            "message_builder has to be an instance, not the class tests.Unit",
        ),
        (
            lambda e, d, runner: runner(d, e, []),
            "emitter has to be an EventEmitter; a list has no add_listener()",
        ),
        (
            lambda e, d, runner: runner(d, e, e, outbox="skid.outbox"),
            "outbox has to be an Outbox, not a str",
        ),
        (
            lambda e, d, runner: runner(d, e, e, timing=0.3),
            "timing has to be a Timing, not a float",
        ),
    ],
)
def test_a_wrong_argument_of_the_runner_is_named_at_once(make: Make, told: str) -> None:
    """The constructor raises a TypeError that names the argument, what it is and what it lacks."""
    engine = Unit()
    with pytest.raises(TypeError) as raised:
        make(engine, EngineDispatcher(handlers=engine), EngineRunner)
    assert str(raised.value) == f"EngineRunner: {told}"


def test_wrong_arguments_of_the_dispatcher_are_named_at_once() -> None:
    """Handlers may lack commands, or host and port may be swapped."""
    dispatcher: Any = EngineDispatcher
    with pytest.raises(TypeError) as raised:
        dispatcher(handlers=MemoryOutbox())
    assert str(raised.value) == (
        "EngineDispatcher: handlers has to be a CommandHandlers; a trio_runner.MemoryOutbox has no"
        " execute_control_command(), inject_code(), set_method() and 2 more"
    )
    with pytest.raises(TypeError, match=r"a str and the port an int, not 9800, '127.0"):
        dispatcher(9800, "127.0.0.1", handlers=Unit())


@pytest.mark.parametrize(
    ("host", "told"),
    [
        ("http://a:9800", "give EngineDispatcher('a', 9800, ...)"),
        ("https://a/b/", "give EngineDispatcher('a', path='/b', secure=True, ...)"),
        ("a:9800", "give EngineDispatcher('a', 9800, ...)"),
    ],
)
def test_a_url_in_place_of_a_host_is_refused_with_the_right_spelling(host: str, told: str) -> None:
    """The constructor refuses it; an IPv6 address is accepted as a host."""
    with pytest.raises(ValueError, match="is not a host name") as raised:
        EngineDispatcher(host, handlers=Unit())
    assert told in str(raised.value)
    assert str(EngineDispatcher("::1", handlers=Unit())) == "http://[::1]:9800"


async def test_a_handler_that_is_not_async_is_named(
    autojump_clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    """The command fails, the log says what to write instead, and the link lives on."""

    class NotAsync(Unit):
        def inject_code(self, pcode: str) -> None:  # type: ignore[override]
            pass

    async with world(unit=NotAsync()) as w:
        await w.settled()
        answer = await w.aggregator.call("host_Unit", am.InjectCodeMsg(pcode="Pump: 1 %"))
        assert isinstance(answer, ErrorMessage)
        told = "the handler of the inject_code command has to be an async function"
        assert answer.exception_message == told
        assert w.runner.state == "Connected"


async def test_a_builder_that_blocks_trios_thread_is_named(
    autojump_clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    """`read_tags` blocks for 0.6 s. That is told once, in the unit's error log too."""

    class Slow(Unit):
        def read_tags(self) -> list[mdl.TagValue]:
            autojump_clock.jump(0.6)
            return super().read_tags()

    async with world(unit=Slow()) as w:
        await w.settled()
        await trio.sleep(30)
        told = [entry.message for entry in w.aggregator.engine().unit.error_log]
        named = "Slow.create_tag_updates_snapshot_msg has blocked Trio's thread for 0.6 s, and"
        assert any(text.startswith(named) for text in told)
        assert len(told) == len(set(told))
        assert [r.levelname for r in caplog.records if r.message.startswith(named)] == ["WARNING"]
