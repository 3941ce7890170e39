"""Handlers that misbehave: the runner, its link and its end go on without them."""

import logging
import threading
from collections.abc import Awaitable, Callable

import pytest
import trio
from trio.testing import MockClock

from tests.helpers.unit import Unit, World, world
from trio_runner.protocol import ErrorMessage, SuccessMessage
from trio_runner.protocol import aggregator_messages as am

CANCEL = am.CancelMsg(exec_id="1")
FORCE = am.ForceMsg(exec_id="1")
ENGINE = "host_Unit"
LATE = ErrorMessage(message="The engine did not carry this out within 1.5 s")


def only_on(name: str, misbehave: Callable[[], Awaitable[None]]) -> Unit:
    """Return a unit that misbehaves at one kind of command."""

    async def on_command(command: str) -> None:
        if command == name:
            await misbehave()

    return Unit(on_command=on_command)


class Stuck:
    """A handler that waits in its own thread and cannot be cancelled."""

    def __init__(self) -> None:
        self.release = threading.Event()

    async def __call__(self) -> None:
        await trio.to_thread.run_sync(self.release.wait)

    async def __aenter__(self) -> "Stuck":
        return self

    async def __aexit__(self, *_: object) -> None:
        self.release.set()


async def test_a_command_whose_handler_hangs_in_a_thread_is_answered_after_1_5_s(
    autojump_clock: MockClock,
) -> None:
    """The call is answered, the next one is carried out, and samples flow over the same link."""
    async with Stuck() as stuck, world(unit=only_on("cancel", stuck)) as w:
        await w.settled()
        start = trio.current_time()
        assert await w.aggregator.call(ENGINE, CANCEL) == LATE
        assert trio.current_time() - start == 1.5
        assert await w.aggregator.call(ENGINE, FORCE) == SuccessMessage()
        assert trio.current_time() - start == 1.5
        samples = len(w.counts())
        await trio.sleep(30)
        assert len(w.counts()) - samples == 100
        assert w.runner.statistics().links == 1


async def test_a_handler_that_hangs_holds_up_neither_a_new_link_nor_the_end(
    autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    """A lost link is replaced meanwhile; a shutdown takes 1 s more and names the handler.

    The handler ends with the runner's task, so no task stays in the caller's nursery.
    """
    async with Stuck() as stuck, world(unit=only_on("cancel", stuck)) as w:
        await w.settled()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(lost_call, w)
            await trio.sleep(0.5)
            await w.aggregator.restart()
            await w.until("Reconnected")
        await trio.sleep(10)
        start = trio.current_time()
        await w.runner.shutdown()
        assert trio.current_time() - start == 1
        await trio.testing.wait_all_tasks_blocked()
        # The remaining tasks are the aggregator's.
        assert not [task for task in w.nursery.child_tasks if "EngineRunner" in task.name]
    (left,) = [record for record in caplog.records if record.levelno == logging.ERROR]
    assert left.getMessage().startswith("The handler of CancelMsg has run for 1")
    assert left.getMessage().endswith("does not end although it was cancelled: it is left behind")


async def lost_call(w: World) -> None:
    """Call the engine over a link that is then lost."""
    with pytest.raises(Exception):  # noqa: B017, PT011 - however the stand-in says so
        await w.aggregator.call(ENGINE, CANCEL)


async def raise_in_clean_up() -> None:
    """Raise when cancelled."""
    try:
        await trio.sleep_forever()
    finally:
        raise LookupError("no such valve")


async def raise_beside_a_cancellation() -> None:
    """Raise in one task and be cancelled in another."""
    async with trio.open_nursery() as nursery:
        nursery.start_soon(raise_in_clean_up)
        nursery.start_soon(trio.sleep_forever)


async def exit_at_once() -> None:
    """End the process at once, as a handler might try to."""
    raise SystemExit(3)


async def exit_late() -> None:
    """End the process when cancelled."""
    try:
        await trio.sleep_forever()
    finally:
        raise SystemExit(3)


@pytest.mark.parametrize("misbehave", [raise_in_clean_up, raise_beside_a_cancellation, exit_late])
@pytest.mark.parametrize("link_drops", [False, True])
async def test_what_a_handler_raises_late_is_logged_and_the_runner_goes_on(
    misbehave: Callable[[], Awaitable[None]],
    link_drops: bool,
    autojump_clock: MockClock,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """This holds at the handler's deadline, with and without a link, and at the runner's end."""
    async with world(unit=only_on("cancel", misbehave)) as w:
        await w.settled()
        if link_drops:
            w.nursery.start_soon(lost_call, w)
            await trio.sleep(0.5)
            await w.aggregator.restart()
            await trio.sleep(10)
        else:
            assert await w.aggregator.call(ENGINE, CANCEL) == LATE
        raised = [record for record in caplog.records if record.exc_info]
        assert len(raised) == 1
        assert await w.aggregator.call(ENGINE, FORCE) == SuccessMessage()
        w.nursery.start_soon(lost_call, w)
        await trio.sleep(0.5)
        start = trio.current_time()
        await w.runner.shutdown()
        assert trio.current_time() == start
        assert len([record for record in caplog.records if record.exc_info]) == 2


async def test_a_handler_cannot_end_the_process(
    autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    """SystemExit is logged and answered like any other failure."""
    async with world(unit=only_on("cancel", exit_at_once)) as w:
        await w.settled()
        assert await w.aggregator.call(ENGINE, CANCEL) == ErrorMessage(
            message="The engine failed to handle CancelMsg", exception_message="3"
        )
        assert await w.aggregator.call(ENGINE, FORCE) == SuccessMessage()


async def test_the_number_of_unfinished_commands_is_bounded(autojump_clock: MockClock) -> None:
    """While 16 commands are unfinished, no other one begins until one of them has ended."""
    async with Stuck() as stuck, world(unit=only_on("cancel", stuck)) as w:
        await w.settled()
        for _ in range(16):
            assert await w.aggregator.call(ENGINE, CANCEL) == LATE
        assert await w.aggregator.call(ENGINE, FORCE) == ErrorMessage(
            message="The engine is still busy with 16 commands"
        )
        assert len(w.unit.commands) == 16
