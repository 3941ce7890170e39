"""A disk that withholds the next message when the runner ends."""

from collections.abc import Callable
from pathlib import Path
from random import Random

import pytest
import trio
import trio.testing

from tests.helpers.unit import Unit
from tests.test_outbox_slow_disk import notified, running
from tests.test_outbox_sqlite import rows
from trio_runner import DurableOutbox, EngineDispatcher, EngineRunner
from trio_runner.simulation import Aggregator, SimulatedDisk

Clock = trio.testing.MockClock


async def test_what_a_commit_releases_in_the_last_flush_is_sent_in_it(
    tmp_path: Path, autojump_clock: Clock
) -> None:
    """The commit of 0.4 s releases it at 3.41 s; by itself the flush would look at 3.51 s."""
    aggregator, unit, disk = Aggregator(), Unit(), SimulatedDisk(tmp_path, Random(1))
    async with running(disk, aggregator, unit) as runner:
        await trio.sleep(3.01)
        disk.commit_s = 0.4
        runner.on_notify_command("hello")
        async with trio.open_nursery() as nursery:
            nursery.start_soon(runner.shutdown)
            await aggregator.wait_until(lambda: notified(aggregator))
            assert trio.current_time() == pytest.approx(3.41)
            assert runner.state == "Stopped"
        assert runner.buffer_size == 0


async def test_the_last_flush_looks_again_while_a_disk_hangs(
    tmp_path: Path, autojump_clock: Clock
) -> None:
    """No bell rings. The flush looks every half second, and after 1 s nobody waits for the disk."""
    aggregator, unit, disk = Aggregator(), Unit(), SimulatedDisk(tmp_path, Random(1))
    async with running(disk, aggregator, unit) as runner:
        await trio.sleep(3.01)
        with disk.hanging():
            runner.on_notify_command("hello")
            async with trio.open_nursery() as nursery:
                nursery.start_soon(runner.shutdown)
                with trio.fail_after(5):
                    await aggregator.wait_until(lambda: notified(aggregator))
                assert 4.01 <= trio.current_time() <= 4.01 + 0.5
            assert runner.buffer_size == 0


async def test_the_end_of_a_run_is_flushed_through_a_slow_disk(
    tmp_path: Path, autojump_clock: Clock
) -> None:
    """No commit waits for the next half second. At 0.4 s each, the event goes out at 3.41 s.

    Its notification follows at 3.81 s, when the event is off the disk; the last commit ends at
    4.21 s.
    """
    aggregator, unit, disk = Aggregator(), Unit(), SimulatedDisk(tmp_path, Random(1))
    async with running(disk, aggregator, unit) as runner:
        await trio.sleep(2)
        runner.on_start("run-1")
        await trio.sleep(1.01)
        disk.commit_s = 0.4
        runner.on_stop()
        await runner.shutdown()
        assert runner.buffer_size == 0
        assert trio.current_time() == pytest.approx(4.21)
    assert [run.run_id for run in aggregator.recent_runs] == ["run-1"]
    assert notified(aggregator) == ["Run started.", "Run has stopped."]
    assert aggregator.engine().refused == []


def test_a_runner_that_has_ended_raises_nothing_in_an_engines_thread(path: Path) -> None:
    """It may have asked just before the end how to request a commit. The late event is kept."""
    unit, asked = Unit(clock=lambda: 0.0), list[Callable[[], None]]()
    with DurableOutbox(path) as outbox:

        async def life() -> None:
            aggregator = Aggregator()
            async with trio.open_nursery() as nursery:
                opener = aggregator.in_memory(nursery)
                dispatcher = EngineDispatcher("a.example", handlers=unit, open_stream=opener)
                runner = EngineRunner(dispatcher, unit, unit, outbox=outbox)
                await nursery.start(runner.run)
                assert outbox.commit_wanted is not None
                asked.append(outbox.commit_wanted)
                await runner.shutdown()
                nursery.cancel_scope.cancel()

        trio.run(life)
        asked[0]()
        left = rows(path)
        unit.listeners[0].on_notify_command("late")
        assert len(rows(path)) == len(left) + 1
