"""An engine that cannot make the messages that it is asked for."""

import logging
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Any

import pytest
import trio
import trio.testing
from attrs import evolve
from openpectus.engine.engine_message_builder import EngineMessageBuilder
from openpectus.protocol import models as package_models

from tests.helpers.unit import Middle
from trio_runner import EngineDispatcher, EngineRunner, PlainEngine
from trio_runner.bridge import OPENPECTUS_VERSION
from trio_runner.protocol import engine_messages as em
from trio_runner.protocol import kind_of
from trio_runner.simulation import Aggregator

from .units import Ticked, ticked_demo

Clock = trio.testing.MockClock

TOLD = "The engine could not give "

ZERO = ZeroDivisionError("of the engine")

NOT_TOLD = [
    "its ControlStateMsg",
    "its ErrorLogMsg",
    "its MethodMsg",
    "its MethodStateMsg",
    "its QueuedRunLogMsg",
    "its RegisterEngineMsg",
    "its RunStoppedMsg",
    "its TagsUpdatedMsg",
    "its UodInfoMsg",
    "its WebPushNotificationMsg",
    "its run log",
    "the tags that changed",
]

IS_OLDER = "locked_line_ids" not in package_models.MethodState.model_fields


@contextmanager
def unable(error: BaseException = ZERO) -> Iterator[None]:
    """Let every builder of the package raise while the block runs."""

    def fail(*_: object, **__: object) -> Any:
        raise error

    with pytest.MonkeyPatch.context() as patch:
        for name in dir(EngineMessageBuilder):
            if name.startswith("create_"):
                patch.setattr(EngineMessageBuilder, name, fail)
        yield


@asynccontextmanager
async def connected(unit: Ticked, aggregator: Aggregator) -> AsyncIterator[EngineRunner]:
    """Run the engine at a stand-in, and tick it in Trio's thread."""
    builder = unit.engine.builder
    async with trio.open_nursery() as nursery:
        dispatcher = EngineDispatcher(
            handlers=PlainEngine(), open_stream=aggregator.in_memory(nursery)
        )
        runner = EngineRunner(dispatcher, builder, unit.engine.emitter, rng=Middle())
        await nursery.start(runner.run)
        yield runner
        await runner.shutdown()
        nursery.cancel_scope.cancel()


def complaints(caplog: pytest.LogCaptureFixture) -> list[str]:
    """Return what the log says the engine cannot tell, each as often as the log says so."""
    loud = [record.message for record in caplog.records if record.levelno >= logging.ERROR]
    return sorted(m.removeprefix(TOLD).partition(":")[0] for m in loud if m.startswith(TOLD))


@pytest.mark.skipif(IS_OLDER, reason="the stand-in refuses its method states: they lack fields")
@pytest.mark.parametrize("error", [ZERO, SystemExit("of a driver")])
async def test_a_builder_that_raises_in_mid_run_ends_neither_the_runner_nor_the_run(
    error: BaseException, autojump_clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    """States stay the last ones, even on a new link, and the end of the run arrives with them."""
    aggregator = Aggregator(version=OPENPECTUS_VERSION)
    with ticked_demo() as unit:
        unit.set_method("Mark: A", "Wait: 10 min")
        async with connected(unit, aggregator) as runner:
            unit.press("Start")
            unit.tick(10)
            await trio.sleep(2)
            before = aggregator.engine().unit
            assert before.run is not None
            run_id = before.run.run_id
            caplog.clear()
            with unable(error):
                await trio.sleep(60)
                aggregator.kill()
                await trio.sleep(60)
                assert runner.state == "Reconnected"
                after = aggregator.engine().unit
                told_first, told_again = aggregator.messages(em.UodInfoMsg)
                assert evolve(told_again, sequence_number=told_first.sequence_number) == told_first
                assert after.method == before.method
                assert after.control_state == before.control_state
                unit.press("Stop")
                await trio.sleep(1)
                assert complaints(caplog) == NOT_TOLD
            (stopped,) = aggregator.messages(em.RunStoppedMsg)
            assert stopped.run_id == run_id
            assert "Mark: A" in [line.command_name for line in stopped.runlog.lines]
            assert stopped.method_state == before.method_state
            assert stopped.archive is None
            unit.press("Start")  # it can tell again
            unit.tick(3)
            await trio.sleep(1)
            assert aggregator.engine().unit.run is not None
            assert runner.statistics().outbox.set_aside == 0


async def test_an_engine_that_could_never_tell_anything_is_connected(
    autojump_clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    """Its registration and its runs are known without the builders; everything else is left out."""
    aggregator = Aggregator(version=OPENPECTUS_VERSION)
    with ticked_demo() as unit, unable():
        unit.inside.uod.required_roles = {"Operator"}
        async with connected(unit, aggregator) as runner:
            await trio.sleep(1)
            unit.press("Start")
            unit.press("Stop")
            await trio.sleep(1)
            assert runner.state == "Connected"
        (registration,) = aggregator.engine().registrations
        assert registration.message.uod_name == "DemoUod"
        (info,) = aggregator.messages(em.UodInfoMsg)
        assert info.required_roles == {"Operator"}
        kinds = [kind_of(r.message) for r in aggregator.engine().received]
        assert kinds.count(em.RunStartedMsg) == kinds.count(em.RunStoppedMsg) == 1
        topics = [n.topic.value for n in aggregator.engine().notifications]
        assert (topics[0], topics[-1]) == ("run_start", "run_stop")


def test_a_message_that_an_older_package_does_not_make_is_left_out(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """This is no error: there is no queue before 0.1.1564."""
    with ticked_demo() as unit:
        monkeypatch.delattr(EngineMessageBuilder, "create_queued_runlog_msg", raising=False)
        unit.inside.inject_code("Mark: waits for a run")
        unit.tick()
        assert unit.engine.builder.create_queued_runlog_msg() is None
    assert complaints(caplog) == []
