"""What the people of a unit see of its runner in the unit's own error log, in virtual time."""

import logging
import time
from pathlib import Path

import pytest
import trio
from trio.testing import MockClock as Clock

from tests.helpers.unit import EPOCH, Unit, World, world
from trio_runner import DurableOutbox, MemoryOutbox
from trio_runner._warnings import DAY_S, TOLD_MAX, Warnings
from trio_runner.protocol import ErrorMessage, MessageBase
from trio_runner.protocol import aggregator_messages as am
from trio_runner.protocol import engine_messages as em


def told(w: World) -> list[str]:
    """Return the unit's error log as the aggregator has it."""
    return [entry.message for entry in w.aggregator.engine().unit.error_log]


async def test_what_is_set_aside_is_told_once(autojump_clock: Clock) -> None:
    """It is told as an error, with the next sample, 0.3 s later at most."""
    async with world() as w:
        await w.settled()

        async def refuse(message: em.EngineMessage) -> MessageBase | None:
            is_one = isinstance(message, em.WebPushNotificationMsg)
            return ErrorMessage(message="never") if is_one else None

        w.aggregator.on_message = refuse
        await trio.sleep(1)
        w.runner.on_notify_command("Look")
        await trio.sleep(0.35)
        (entry,) = w.aggregator.engine().unit.error_log
        assert "is set aside: never" in entry.message
        assert "WebPushNotificationMsg" in entry.message
        assert entry.severity == logging.ERROR
        assert EPOCH + 1 <= entry.created_time < EPOCH + 1.35
        await trio.sleep(60)
        assert len(told(w)) == 1


async def test_setting_a_warning_aside_causes_no_other_warning(
    autojump_clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    """That is logged, and nothing else follows."""
    async with world() as w:
        await w.settled()
        arrived = 0

        async def refuse(message: em.EngineMessage) -> MessageBase | None:
            nonlocal arrived
            is_one = isinstance(message, em.WebPushNotificationMsg | em.ErrorLogMsg)
            arrived += isinstance(message, em.ErrorLogMsg)
            return ErrorMessage(message="never") if is_one else None

        w.aggregator.on_message = refuse
        w.runner.on_notify_command("Look")
        await trio.sleep(60)
        assert arrived == 1
        assert w.runner.statistics().outbox.set_aside == 2
        assert len([r for r in caplog.records if "is set aside" in r.message]) == 2


async def test_thinning_is_told_once_though_it_goes_on(autojump_clock: Clock) -> None:
    """3,000 samples of 590 bytes meet a bound of 50,000 bytes in an outage of an hour.

    Both warnings, about the bound and about the outage, wait and arrive as one message after it.
    """
    async with world(outbox=MemoryOutbox(bytes_max=50_000)) as w:
        await w.settled()
        async with w.aggregator.outage():
            await trio.sleep(3600)
        await w.until("Reconnected")
        await trio.sleep(1)
        bound, away = told(w)
        assert bound.startswith("The outbox has reached its bound of 50000 bytes: ")
        assert away.startswith("The aggregator is back after 60 min; messages caught up: ")
        assert away.endswith(f"; samples given up: {w.runner.statistics().outbox.thinned}")


def test_a_failing_disk_and_its_recovery_are_told(tmp_path: Path) -> None:
    """Each is told once, however often the disk is tried; it is tried at 30 and at 60 s."""
    now, path = 0.0, tmp_path / "unit.outbox"
    with DurableOutbox(path, clock=lambda: now) as outbox:
        moved = path.rename(path.with_name("moved"))
        path.mkdir()
        for now in (1, 31):  # noqa: B007 - the clock
            outbox.put(em.TagsUpdatedMsg(tags=[]))
            outbox.commit()
        path.rmdir()
        moved.rename(path)
        now = 61
        outbox.commit()
        failed, well = outbox.warnings.take(EPOCH)
    assert failed.level == logging.ERROR
    assert "cannot be written" in failed.text
    assert "tried again every 30 s" in failed.text
    assert well.text == "The outbox unit.outbox can be written again: all that waits is on disk"
    # The folders of the computer are nobody's business there.
    assert str(tmp_path) not in failed.text


async def test_a_short_outage_is_not_told(autojump_clock: Clock) -> None:
    """An outage under 10 min is only logged."""
    async with world() as w:
        await w.settled()
        async with w.aggregator.outage():
            await trio.sleep(590)
        await w.until("Reconnected")
        await trio.sleep(1)
        assert told(w) == []


async def test_a_handler_that_blocks_trios_thread_is_named(
    autojump_clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    """Its command is named once, in the log and on the page. A handler that awaits is not named.

    The clock is virtual, but the time for which the handler blocks the thread is real.
    """

    async def block(command: str) -> None:
        await trio.sleep(1)
        if command == "cancel":
            time.sleep(0.51)  # noqa: ASYNC251 - as a handler should not
        await trio.sleep(0.1)

    async with world(unit=Unit(on_command=block)) as w:
        await w.settled()
        for _ in range(2):
            await w.aggregator.call("host_Unit", am.CancelMsg(exec_id="1"))
            await w.aggregator.call("host_Unit", am.ForceMsg(exec_id="1"))
        await trio.sleep(1)
        (message,) = told(w)
        assert message.startswith("The handler of CancelMsg has blocked Trio's thread for 0.")
        named = [r for r in caplog.records if "has blocked" in r.message]
        assert [r.levelno for r in named] == [logging.WARNING]
        assert named[0].message == message


async def test_a_warning_reaches_the_unit_that_it_is_about(autojump_clock: Clock) -> None:
    """Of two units in one process, the other one hears nothing."""
    async with world() as one, world(unit=Unit("Other")) as other:
        await one.settled()
        await trio.sleep(1)
        one.runner._outbox.warnings.tell(logging.WARNING, "Look")
        await trio.sleep(1)
        assert told(one) == ["Look"]
        assert told(other) == []


def test_each_warning_is_told_once_a_day_and_their_number_is_bounded() -> None:
    """A peer may give each warning a new text. After 24 h all of them are news again."""
    warnings = Warnings()
    for number in range(2 * TOLD_MAX):
        warnings.tell(logging.WARNING, f"{number}")
        warnings.tell(logging.WARNING, f"{number}")
    assert [told.text for told in warnings.take(EPOCH)] == [f"{n}" for n in range(TOLD_MAX)]
    warnings.tell(logging.WARNING, "1")
    assert warnings.take(EPOCH + DAY_S - 1) == []
    warnings.tell(logging.WARNING, "1")
    warnings.tell(logging.WARNING, "another\n" + "x" * 1000, about="1")
    warnings.tell(logging.WARNING, "another\n" + "x" * 1000, about="2")
    first, second = warnings.take(EPOCH + DAY_S)
    assert first.text == "1"
    assert second.text.startswith("another\\nxx")
    assert len(second.text) == 500
