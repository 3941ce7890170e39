"""A small engine for tests of the runner, and a world to run it in.

The engine's one tag counts the samples taken. So a test sees at once which sample is missing,
doubled or out of order.
"""

from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from random import Random

import trio
import trio.testing
from attrs import define, field, frozen

from trio_runner import (
    CommandError,
    EngineDispatcher,
    EngineRunner,
    MemoryOutbox,
    PlainEngine,
    Timing,
)
from trio_runner.protocol import engine_messages as em
from trio_runner.protocol import models as mdl
from trio_runner.simulation import Aggregator, Network

EPOCH = 1_700_000_000.0
"""The wall clock's time at the virtual time 0 (s)."""


def wall_clock() -> float:
    """Return the seconds since the epoch, on Trio's clock."""
    return EPOCH + trio.current_time()


@frozen
class Named:
    """A block or a scope, as an engine passes it to its listener."""

    name: str = ""
    scope_type: str = "Watch"
    argument: str = ""


@define(eq=False)
class Unit(PlainEngine):
    """An engine with one tag, `Count`, which is one higher in every sample."""

    computer_name: str = "host"
    data_log_interval_s: float = 1.0
    clock: Callable[[], float] = wall_clock
    count: int = 0
    method: mdl.Method = field(
        factory=lambda: mdl.Method(version=0, lines=[mdl.MethodLine(id="0", content="")])
    )
    control: mdl.ControlState = field(
        default=mdl.ControlState(is_running=False, is_holding=False, is_paused=False)
    )
    run_log: list[mdl.RunLogLine] = field(factory=list)
    queued: list[mdl.RunLogLine] = field(factory=list)
    errors: list[mdl.ErrorLogEntry] = field(factory=list)
    commands: list[tuple[str, object]] = field(factory=list)
    on_command: Callable[[str], Awaitable[None]] | None = None

    def create_tag_updates_msg(self, run_id: str | None) -> em.TagsUpdatedMsg | None:
        self.count += 1
        return super().create_tag_updates_msg(run_id)

    def create_tag_updates_snapshot_msg(self) -> em.TagsUpdatedMsg:
        self.count += 1
        return super().create_tag_updates_snapshot_msg()

    def read_tags(self) -> list[mdl.TagValue]:
        return [mdl.TagValue(name="Count", tick_time=wall_clock(), value=self.count, value_unit="")]

    def create_runlog_msg(self, run_id: str) -> em.RunLogMsg:
        return em.RunLogMsg(id="", run_id=run_id, runlog=mdl.RunLog(lines=list(self.run_log)))

    def create_queued_runlog_msg(self) -> em.QueuedRunLogMsg | None:
        if not self.queued:
            return None
        return em.QueuedRunLogMsg(runlog=mdl.RunLog(lines=list(self.queued)))

    def create_error_log_msg(self) -> em.ErrorLogMsg | None:
        if not self.errors:
            return None
        entries, self.errors = self.errors, []
        return em.ErrorLogMsg(log=mdl.ErrorLog(entries=entries))

    def create_control_state_msg(self) -> em.ControlStateMsg:
        return em.ControlStateMsg(control_state=self.control)

    def create_method_msg(self) -> em.MethodMsg:
        return em.MethodMsg(method=self.method)

    # Commands

    async def _note(self, name: str, argument: object) -> None:
        self.commands.append((name, argument))
        if self.on_command is not None:
            await self.on_command(name)

    async def execute_control_command(self, name: str) -> None:
        if name == "Nonsense":
            raise CommandError("There is no command Nonsense")
        await self._note("control", name)

    async def inject_code(self, pcode: str) -> None:
        await self._note("inject", pcode)

    async def set_method(self, method: mdl.Method) -> None:
        self.method = method
        await self._note("method", method)

    async def cancel(self, exec_id: str) -> None:
        await self._note("cancel", exec_id)

    async def force(self, exec_id: str) -> None:
        await self._note("force", exec_id)


class Middle(Random):
    """A generator that draws the middle of every range, so that a comment can give exact waits.

    The shortest wait of a backoff is 3/8 of the longest, so the middle is 11/16 of the longest. The
    first wait is half of that for 2 s: 0.5 * 11/16 * 2 = 0.6875 s. The next have a longest of 2, 4,
    8 and then 10 s, which makes 1.375, 2.75, 5.5 and then 6.875 s. While dials are refused, a wait
    is 1.375 s in the first 30 s, then 11/16 of a fifteenth of the time away, and 6.875 s from 150 s
    on.
    """

    def uniform(self, a: float, b: float) -> float:
        """Return the middle of a and b."""
        return (a + b) / 2


@define(eq=False)
class World:
    """A unit, its runner and an aggregator, joined by a network in memory."""

    nursery: trio.Nursery
    unit: Unit
    aggregator: Aggregator
    runner: EngineRunner
    network: Network
    changes: list[tuple[float, str]] = field(factory=list)
    """Every change of state: its virtual time (s) and the new state."""

    async def note_change(self, before: str, after: str) -> None:
        """Record a change of state with its time."""
        self.changes.append((round(trio.current_time(), 6), after))

    async def until(self, state: str) -> None:
        """Wait until the runner is in a state; return at the same virtual time as the change."""
        with self.runner.state_changes() as changes:
            if self.runner.state == state:
                return
            async for change in changes:
                if change.after == state:
                    return
        raise AssertionError(f"ended as {self.runner.state}, never {state}")

    async def settled(self) -> None:
        """Wait until the runner is Connected and everything that it then sends is answered."""
        await self.until("Connected")
        await trio.testing.wait_all_tasks_blocked()

    def counts(self) -> list[int]:
        """Return the counts of the samples that arrived and were not refused, in order."""
        return [
            int(str(tag.value))
            for received in self.aggregator.engine().received
            if isinstance(received.message, em.TagsUpdatedMsg) and received.refused is None
            for tag in received.message.tags
        ]


@asynccontextmanager
async def world(
    *,
    up: bool = True,
    unit: Unit | None = None,
    aggregator: Aggregator | None = None,
    timing: Timing | None = None,
    outbox: MemoryOutbox | None = None,
    run: bool = True,
) -> AsyncGenerator[World, None]:
    """Run a runner and an aggregator while the block runs; both have ended after it."""
    unit, aggregator = unit or Unit(), aggregator or Aggregator()
    if not up:
        aggregator.down()
    async with trio.open_nursery() as nursery:
        network = Network(aggregator, nursery)
        dispatcher = EngineDispatcher(
            "aggregator.example", handlers=unit, open_stream=network.open_stream
        )
        runner = EngineRunner(
            dispatcher, unit, unit, timing=timing, outbox=outbox, rng=Middle(), clock=wall_clock
        )
        this = World(nursery, unit, aggregator, runner, network)
        runner.state_changing_callback = this.note_change
        if run:
            await nursery.start(runner.run)
        yield this
        await runner.shutdown()
        nursery.cancel_scope.cancel()
