"""When samples are taken."""

import json

import pytest
import trio
import trio.testing

from tests.helpers.unit import EPOCH, Unit, wall_clock, world
from trio_runner import MemoryOutbox, Timing
from trio_runner._intake import Intake
from trio_runner._ticker import Ticker
from trio_runner.protocol import engine_messages as em

Clock = trio.testing.MockClock


INTERVAL_S = 4.8
"""With this data-log interval an offline sample is taken every 5 s, which is two ticks more."""


class Watched(Unit):
    """A unit that notes when it is asked for its errors, which is once for each sample."""

    def __init__(self) -> None:
        super().__init__(clock=wall_clock, data_log_interval_s=INTERVAL_S)
        self.asked_at: list[float] = []

    def create_error_log_msg(self) -> em.ErrorLogMsg | None:
        self.asked_at.append(trio.current_time())
        return super().create_error_log_msg()


@pytest.mark.parametrize("attempt", range(10))  # which of two tasks runs first is chance
async def test_a_link_that_ends_as_a_sample_is_due_delays_no_other(
    attempt: int, autojump_clock: Clock
) -> None:
    """With a link one is taken every 0.3 s. The one due at its end is taken, the next 5 s later."""
    unit, outbox, began = Watched(), MemoryOutbox(), trio.current_time()

    def deliver() -> None:
        while outbox.head() is not None:
            outbox.delivered(outbox.take())

    ticker = Ticker(Intake(unit, outbox), Timing(), deliver)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(ticker.run)
        with ticker.linked():
            await trio.sleep_until(began + 7 * 0.1)
        await trio.sleep_until(began + 12)
        nursery.cancel_scope.cancel()
    # 0.1 + 0.3 = 0.4, + 0.3 = 0.7, + 5 = 5.7, + 5 = 10.7.
    assert unit.asked_at == pytest.approx([began + at for at in (0.1, 0.4, 0.7, 5.7, 10.7)])


async def test_a_link_that_was_silent_leaves_no_hole_when_it_ends(autojump_clock: Clock) -> None:
    """While samples wait one is taken every 5 s, even if the link ends between two."""
    outbox = MemoryOutbox()
    ticker = Ticker(Intake(Unit(data_log_interval_s=INTERVAL_S), outbox), Timing(), lambda: None)
    began = trio.current_time()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(ticker.run)
        with ticker.linked():
            await trio.sleep_until(began + 9)
        await trio.sleep_until(began + 21)
        nursery.cancel_scope.cancel()
    bodies = [json.loads(outbox.take().text) for _ in range(len(outbox))]
    times = [body["tags"][0]["tick_time"] - EPOCH for body in bodies]
    # 0.1, 0.4; then the last chance, every 0.3 s, within 5 s of the one before: 0.4 + 16 * 0.3 =
    # 5.2. The link ends at 9; 5.2 + 5 = 10.2, + 5 = 15.2, + 5 = 20.2.
    assert [at - began for at in times] == pytest.approx([0.1, 0.4, 5.2, 10.2, 15.2, 20.2])


async def test_samples_for_the_data_log_are_taken_before_the_first_link_too(
    autojump_clock: Clock,
) -> None:
    """The unit's interval is known from the start: 1 s gives a sample every 1.2 s from 0.1 s on.

    That makes 1 + (30 - 0.1) / 1.2 = 25 by 30 s.
    """
    async with world(up=False) as w:
        await trio.sleep(30)
        assert w.runner.statistics().outbox.samples_taken == 25


async def test_the_first_sample_and_the_first_of_each_link_hold_all_tags(
    autojump_clock: Clock,
) -> None:
    """The aggregator may know none of them. A link that begins at a tick has it at the next one."""

    class Whole(Unit):
        def create_tag_updates_snapshot_msg(self) -> em.TagsUpdatedMsg:
            wholes.append(round(trio.current_time() - began, 6))
            return super().create_tag_updates_snapshot_msg()

    wholes, began, outbox = list[float](), trio.current_time(), MemoryOutbox()

    def deliver() -> None:
        while outbox.head() is not None:
            outbox.delivered(outbox.take())

    ticker = Ticker(Intake(Whole(), outbox), Timing(), deliver)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(ticker.run)
        for at in (1, 10, 20):
            await trio.sleep_until(began + at)
            with ticker.linked():
                await trio.sleep(2)
        nursery.cancel_scope.cancel()
    assert wholes == [0.1, 1.1, 10.1, 20.1]
