"""What a sample costs, counted in steps of tasks and passes of Trio's loop, not in seconds."""

from collections import Counter
from contextlib import AsyncExitStack

import pytest
import trio
from attrs import define, field
from trio.testing import MockClock as Clock

from tests.helpers.unit import world
from trio_runner import Timing

RUNNERS = {"ticker", "connector", "steady-state sender", "session"}
"""The tasks of a runner; some have further tasks below them."""


@define(eq=False)
class Steps(trio.abc.Instrument):
    """Counts the steps of a runner's tasks, by the last part of their names."""

    counts: Counter[str] = field(factory=Counter)

    def before_task_step(self, task: trio.lowlevel.Task) -> None:
        if is_a_runners(task):
            self.counts[task.name.rpartition(".")[2]] += 1


def is_a_runners(task: trio.lowlevel.Task | None) -> bool:
    """Tell whether a task belongs to a runner, and not to the aggregator or the test."""
    while task is not None and task.name not in RUNNERS:
        task = task.parent_nursery.parent_task if task.parent_nursery is not None else None
    return task is not None


async def test_a_sample_and_its_answer_take_seven_steps(autojump_clock: Clock) -> None:
    """The ticker wakes the sender, which wakes the writer; the answer wakes the session.

    In steady state ticker and sender take one step each: an answer that nothing waits for wakes no
    sender. The writer takes two, when it wakes and when the stream has taken the bytes. The
    websocket's reader takes two, when bytes come and when it hands a message on. The session's own
    reader takes one: 1 + 1 + 2 + 2 + 1 = 7. Over TCP the writer takes one, see `test_tcp.py`, which
    makes 6.
    """
    # Long enough that no ping and no check of a deadline falls into the count.
    timing = Timing(ping_s=100, call_s=100)
    async with world(timing=timing) as w:
        w.network.latency_s = 0.005
        await w.settled()
        await trio.sleep(0.95)
        steps, before = Steps(), w.runner.statistics().outbox.samples_taken
        trio.lowlevel.add_instrument(steps)
        await trio.sleep(15)  # too short for a ping of the aggregator
        trio.lowlevel.remove_instrument(steps)
        assert w.runner.statistics().outbox.samples_taken - before == 50
        assert steps.counts == {
            "ticker": 50,
            "steady-state sender": 50,
            "_writer": 100,
            "_reader_task": 100,  # the websocket's reader
            "run": 50,  # the session's reader
        }


@define(eq=False)
class Passes(trio.abc.Instrument):
    """Counts the passes of Trio's loop."""

    count: int = 0

    def before_io_wait(self, timeout: float) -> None:
        self.count += 1


@pytest.mark.parametrize("engines", [1, 2, 5])
async def test_several_engines_in_one_process_take_no_more_passes_than_one(
    engines: int, autojump_clock: Clock
) -> None:
    """Engines started 3.7 ms apart tick together, so all that follows from a tick comes together.

    A sample and its answer take 13 passes here: the wake-ups of the ticker, the sender, the writer,
    the network, the aggregator and so on. Each follows a jump of the clock or an earlier step.
    """
    timing = Timing(ping_s=100, call_s=100)
    async with AsyncExitStack() as stack:
        for _ in range(engines):
            w = await stack.enter_async_context(world(timing=timing))
            w.network.latency_s = 0.005
            await trio.sleep(0.0037)
        await trio.sleep_until(0.95)
        passes = Passes()
        trio.lowlevel.add_instrument(passes)
        await trio.sleep(15)
        trio.lowlevel.remove_instrument(passes)
    # 50 samples, and the beginning and the end of the sleep.
    assert passes.count == 50 * 13 + 2
