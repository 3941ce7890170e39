"""An engine that fails to make a message costs that message, and ends nothing."""

import logging
from collections.abc import Callable, Generator
from contextlib import contextmanager
from types import MethodType
from typing import Any

import pytest
import trio
from attrs import define, evolve
from trio.testing import MockClock as Clock

from tests.helpers.unit import EPOCH, Unit, wall_clock, world
from tests.test_outbox import LINE
from trio_runner.protocol import engine_messages as em
from trio_runner.protocol import models as mdl

WRONG: Any = {1, 2}


def line(*values: mdl.TagValue) -> mdl.RunLogLine:
    """Return a line of a run log."""
    return evolve(LINE, command_name="Pump", start=EPOCH, start_values=list(values))


@contextmanager
def failing(unit: Unit, name: str, error: BaseException) -> Generator[None, None, None]:
    """Let a builder fail after it has done its work."""
    make: Callable[..., object] = getattr(unit, name)

    def broken(self: Unit, *arguments: object) -> None:
        make(*arguments)
        raise error

    broken.__name__ = name
    setattr(unit, name, MethodType(broken, unit))
    yield
    delattr(unit, name)


@pytest.mark.parametrize("error", [KeyError("flow"), SystemExit(3)])
@pytest.mark.parametrize(
    "name",
    [
        "create_method_msg",
        "create_control_state_msg",
        "create_method_state_msg",
        "create_queued_runlog_msg",
        "create_error_log_msg",
    ],
)
async def test_a_builder_that_fails_is_told_once_and_ends_nothing(
    name: str, error: BaseException, autojump_clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    """The log has it once with its traceback, the unit's people read it, and samples flow on."""
    async with world() as w:
        await w.settled()
        before = len(w.counts())
        with failing(w.unit, name, error):
            await trio.sleep(6)
        # A sample every 0.3 s makes 20 in 6 s.
        assert len(w.counts()) - before == 20
        assert w.runner.state == "Connected"
        (record,) = [r for r in caplog.records if r.levelno == logging.ERROR]
        raised = "(KeyError: 'flow')" if isinstance(error, KeyError) else "(SystemExit: 3)"
        assert record.getMessage() == f"Unit.{name} failed {raised}; the runner goes on without it"
        assert record.exc_info is not None
        await trio.sleep(0.3)
        (entry,) = w.aggregator.engine().unit.error_log
        assert entry.message == record.getMessage()


class Mute(Exception):
    """An error that cannot even say what it is."""

    def __str__(self) -> str:
        raise ValueError("a bug in the bug")


async def test_an_error_that_cannot_be_shown_ends_nothing_either(
    autojump_clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    """It is told by the name of its class."""
    async with world() as w:
        await w.settled()
        with failing(w.unit, "create_method_msg", Mute()):
            await trio.sleep(1)
        assert w.runner.state == "Connected"
    assert "create_method_msg failed (Mute); the runner goes on without it" in caplog.text


async def test_a_builder_that_blocks_and_then_fails_is_told_as_both(
    autojump_clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    """So does a query that times out: that it fails costs a message, that it blocks costs links."""
    async with world() as w:
        await w.settled()

        def wait_in_vain() -> em.MethodMsg:
            autojump_clock.jump(2)
            raise TimeoutError

        w.unit.create_method_msg = wait_in_vain  # type: ignore[method-assign]
        await trio.sleep(3)
    assert "wait_in_vain failed (TimeoutError)" in caplog.text
    assert "wait_in_vain has blocked Trio's thread for 2.0 s" in caplog.text


@pytest.mark.parametrize(
    ("name", "made", "why"),
    [
        ("create_method_msg", None, "a MethodMsg, not a NoneType"),
        ("create_method_state_msg", em.TagsUpdatedMsg(), "a MethodStateMsg, not a trio_runner."),
        ("create_queued_runlog_msg", em.TagsUpdatedMsg(), "a QueuedRunLogMsg, not a trio_runner."),
        ("create_error_log_msg", False, "an ErrorLogMsg, not a bool"),
        ("create_tag_updates_msg", (), "a TagsUpdatedMsg, not a tuple"),
        ("create_register_engine_msg", None, "a RegisterEngineMsg, not a NoneType"),
        ("create_uod_info", None, "an UodInfoMsg, not a NoneType"),
    ],
)
async def test_a_builder_that_returns_something_else_fails(
    name: str, made: object, why: str, autojump_clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    """It holds up nothing, and its maker reads what it has to return."""
    async with world() as w:
        await w.settled()
        setattr(w.unit, name, lambda *_: made)
        await w.aggregator.restart()
        await w.until("Reconnected")
        await trio.sleep(2)
        assert w.runner.state == "Reconnected"
    assert f"<lambda> failed (TypeError: it has to return {why}" in caplog.text


async def test_a_builder_that_tells_of_something_else_does_not_cost_the_run(
    autojump_clock: Clock,
) -> None:
    """The runner begins and ends the run itself."""
    async with world() as w:
        await w.settled()
        notification = w.unit.create_wpn_run_started_msg()
        w.unit.create_run_started_msg = lambda *_: notification  # type: ignore
        w.unit.create_run_stopped_msg = lambda *_: notification  # type: ignore
        w.runner.on_start("run-1")
        w.runner.on_stop()
        await trio.sleep(1)
        assert [run.run_id for run in w.aggregator.recent_runs] == ["run-1"]


async def test_a_description_with_a_wrong_interval_ends_nothing(autojump_clock: Clock) -> None:
    """The aggregator refuses it, and says so."""
    unit = Unit()
    wrong: Any = "5"
    info = evolve(unit.create_uod_info(), data_log_interval_seconds=wrong)
    unit.create_uod_info = lambda: info  # type: ignore[method-assign]
    async with world(unit=unit) as w:
        await trio.sleep(3)
        assert w.runner.state == "Started"


async def test_a_registration_that_cannot_be_sent_is_refused_at_construction() -> None:
    """A dial would be too late: nobody waits for it."""
    unit = Unit()
    registration = evolve(unit.create_register_engine_msg(), secret=WRONG)
    unit.create_register_engine_msg = lambda: registration  # type: ignore[method-assign]
    refusal = pytest.RaisesExc(TypeError, match=r"\$\.secret is of the type set")
    with pytest.RaisesGroup(refusal):
        async with world(unit=unit):
            pass


async def test_a_state_that_cannot_be_made_is_told_as_it_was_last(autojump_clock: Clock) -> None:
    """A new link is told the last method, run log and description, and the run goes on."""
    async with world() as w:
        await w.settled()
        w.unit.run_log = [line()]
        w.runner.on_start("run-1")
        await trio.sleep(1)
        with (
            failing(w.unit, "create_register_engine_msg", KeyError()),
            failing(w.unit, "create_uod_info", KeyError()),
            failing(w.unit, "create_method_msg", KeyError()),
            failing(w.unit, "create_runlog_msg", KeyError()),
        ):
            await w.aggregator.restart()
            await w.until("Reconnected")
            await trio.sleep(1)
            heard = {type(r.message) for r in w.aggregator.engine().received if r.connection == 1}
        assert {em.UodInfoMsg, em.MethodMsg, em.RunLogMsg, em.RunStartedMsg} <= heard
        assert w.aggregator.engine().received[-1].refused is None


@define(eq=False)
class TwoTags(Unit):
    """A unit with a second tag, which changes once, at 1.5 s."""

    def read_tags(self) -> list[mdl.TagValue]:
        late = float(trio.current_time() > 1.5)
        tag = mdl.TagValue(name="Late", tick_time=wall_clock(), value=late, value_unit="")
        return [*super().read_tags(), tag]


async def test_after_samples_that_failed_comes_one_with_all_tags(autojump_clock: Clock) -> None:
    """The engine has told a change in a sample that failed, and will not tell it again."""
    async with world(unit=TwoTags()) as w:
        await trio.sleep(1.05)
        with (
            failing(w.unit, "create_tag_updates_msg", KeyError()),
            failing(w.unit, "create_tag_updates_snapshot_msg", KeyError()),
        ):
            await trio.sleep(1)
        await trio.sleep(1)
        samples = [
            {tag.name: tag.value for tag in message.tags}
            for message in w.aggregator.messages(em.TagsUpdatedMsg)
        ]
        # Samples come every 0.3 s from 0.1 s on, the first with all tags. Those at 1.3 to 1.9 s
        # fail; that at 2.2 s has all, and two follow.
        assert [len(sample) for sample in samples] == [2, 1, 1, 1, 2, 1, 1]
        assert samples[4]["Late"] == 1


async def test_while_a_snapshot_fails_tags_that_change_are_told(autojump_clock: Clock) -> None:
    """As soon as it succeeds a sample holds all tags, which the aggregator may not know yet."""
    async with world(unit=TwoTags()) as w:
        await trio.sleep(0.7)
        w.aggregator.drop()
        with failing(w.unit, "create_tag_updates_snapshot_msg", KeyError()):
            await w.until("Reconnected")
            await trio.sleep(3)
        sizes = [len(message.tags) for message in w.aggregator.messages(em.TagsUpdatedMsg)]
        # At 0.1 and 0.4 s; over the next link every 0.3 s from 1.4 to 4.1 s.
        assert sizes == [2, 1] + [1] * 10
        await trio.sleep(0.6)
        last = w.aggregator.messages(em.TagsUpdatedMsg)[-2:]
        assert [len(message.tags) for message in last] == [2, 1]


async def test_a_unit_is_introduced_as_soon_as_it_can_be_described(autojump_clock: Clock) -> None:
    """Without a description an aggregator throws samples away, so nothing goes out before it."""
    async with world(run=False) as w:
        with failing(w.unit, "create_uod_info", KeyError()):
            await w.nursery.start(w.runner.run)
            await trio.sleep(2.5)
            assert w.aggregator.messages(em.EngineMessage) == []
        await w.until("Connected")
        assert trio.current_time() == 3  # it is asked every second
        await trio.sleep(0.2)
        # The sample of 0 s is the only one: with two waiting none is taken for 1 s.
        assert w.counts() == list(range(1, w.unit.count + 1))


async def test_a_link_that_is_lost_before_the_unit_can_be_described_is_replaced(
    autojump_clock: Clock,
) -> None:
    """Asking again ends with the link, and the next link asks again."""
    async with world(run=False) as w:
        with failing(w.unit, "create_uod_info", KeyError()):
            await w.nursery.start(w.runner.run)
            await trio.sleep(2.5)
            w.aggregator.drop()
            # 0.6875 s later there is a link again. It asks every second, from 3.1875 s on.
            await trio.sleep(1)
            assert (w.runner.state, w.runner.statistics().links) == ("Reconnecting", 2)
        await w.until("Reconnected")
        assert trio.current_time() == 4.1875


async def test_the_events_of_a_run_do_not_depend_on_their_builders(
    autojump_clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    """A run begins and ends with what the runner knows of it; a notification is left out."""
    async with world() as w:
        await w.settled()
        with failing(w.unit, "create_run_started_msg", KeyError()):
            w.runner.on_start("run-1")
        w.unit.run_log = [line()]
        await trio.sleep(1)
        with (
            failing(w.unit, "create_run_stopped_msg", KeyError()),
            failing(w.unit, "create_wpn_run_stopped_msg", KeyError()),
        ):
            w.runner.on_stop()
        await trio.sleep(1)
        (run,) = w.aggregator.recent_runs
        assert (run.run_id, run.started_tick, run.archive) == ("run-1", EPOCH, None)
        assert [entry.command_name for entry in run.run_log.lines] == ["Pump"]
        told = [n.notification.body for n in w.aggregator.messages(em.WebPushNotificationMsg)]
        assert told == ["Run started."]
    assert len([r for r in caplog.records if r.levelno == logging.ERROR]) == 3


async def test_a_run_ends_though_its_end_cannot_be_encoded(
    autojump_clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    """A value that JSON does not have costs the run log, not the end of the run."""
    value = mdl.TagValue(name="Flow", tick_time=EPOCH, value=WRONG, value_unit=None)
    async with world() as w:
        await w.settled()
        w.runner.on_start("run-1")
        w.unit.run_log = [line(value)]
        w.runner.on_stop()
        await trio.sleep(1)
        (run,) = w.aggregator.recent_runs
        assert (run.run_id, run.run_log.lines) == ("run-1", [])
    assert "the type set, which JSON does not have); the runner goes on without it" in caplog.text
