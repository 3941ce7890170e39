"""A test bench for the simulated engine: its method is text, its events a list, its time virtual.

Ticks are at 0.1 s, 0.2 s and so on; `until` returns half a tick later. The tick at 0.1 s sees what
is done at 0 s, and begins the method's first line.
"""

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

import trio
from attrs import define, field

from trio_runner._engine import BlockInfo, ConnectionStatus, RunStateChange, ScopeInfo
from trio_runner.protocol import models as mdl
from trio_runner.simulation.skid._engine import SimulatedEngine
from trio_runner.simulation.skid._messages import EngineRun

EPOCH = 1_700_000_000.0
"""The wall clock at virtual time 0: 2023-11-14 22:13:20 UTC."""


def wall_clock() -> float:
    """Return the seconds since the epoch, on Trio's clock."""
    return EPOCH + trio.current_time()


def method(text: str, version: int = 1) -> mdl.Method:
    """Return the text as a method; its lines have their numbers, from 0, as ids."""
    lines = [mdl.MethodLine(id=str(n), content=line) for n, line in enumerate(text.split("\n"))]
    return mdl.Method(version=version, lines=lines)


@define
class Bench:
    """An engine and the events that it has told; the bench is its `EventListener`."""

    engine: SimulatedEngine
    events: list[tuple[float, str, str]] = field(factory=list)
    last_run_id: str = ""

    async def command(self, name: str) -> None:
        """Press a button on the page."""
        await self.engine.execute_control_command(name)

    async def start(self, text: str = "") -> None:
        """Give the engine a method and start it."""
        await self.engine.set_method(method(text))
        await self.command("Start")

    def tag(self, name: str) -> object:
        """Return the value of a tag."""
        return self.engine.tags.value(name)

    @property
    def run(self) -> EngineRun:
        """The run that is on; there must be one."""
        assert self.engine._run is not None
        return self.engine._run

    def log(self) -> list[tuple[str, float, float | None]]:
        """Return the run log as command, start and end in seconds of virtual time."""
        return [
            (
                line.command_name,
                seconds(line.start),
                None if line.end is None else seconds(line.end),
            )
            for line in self.run_log_lines()
        ]

    def run_log_lines(self) -> list[mdl.RunLogLine]:
        """Return the lines of the last run's run log."""
        return self.engine.create_runlog_msg(self.last_run_id).runlog.lines

    def log_line(self, command_name: str) -> mdl.RunLogLine:
        """Return the last line of the run log with this text."""
        return [line for line in self.run_log_lines() if line.command_name == command_name][-1]

    def state(self) -> mdl.MethodState:
        """Return the method state."""
        return self.engine.create_method_state_msg().method_state

    def errors(self) -> list[str]:
        """Return the texts that were logged as errors since the last call."""
        message = self.engine.create_error_log_msg()
        return [] if message is None else [entry.message for entry in message.log.entries]

    def _note(self, event: str, detail: str = "") -> None:
        self.events.append((round(trio.current_time(), 3), event, detail))

    def on_start(self, run_id: str) -> None:
        """Note the start."""
        self.last_run_id = run_id
        self._note("start")

    def on_stop(self) -> None:
        """Note the stop."""
        self._note("stop")

    def on_runstate_change(self, state_change: RunStateChange) -> None:
        """Note the change."""
        self._note(state_change.value.lower())

    def on_block_start(self, block_info: BlockInfo) -> None:
        """Note the block."""
        self._note("block", block_info.name)

    def on_notify_command(self, argument: str) -> None:
        """Note the notification."""
        self._note("notify", argument)

    def on_scope_activate(self, scope_info: ScopeInfo) -> None:
        """Note the scope."""
        self._note(scope_info.scope_type.lower(), scope_info.argument)

    def on_method_error(self, exception: Exception) -> None:
        """Note the error."""
        self._note("error", str(exception))

    def on_connection_status_change(self, status: ConnectionStatus) -> None:
        """Note the status."""
        self._note("connection", status)


def seconds(tick_time: float) -> float:
    """Return the virtual time of a tick time (s), rounded to the millisecond."""
    return round(tick_time - EPOCH, 3)


async def until(time_s: float) -> None:
    """Wait until the tick at this virtual time (s) is over."""
    await trio.sleep_until(time_s + 0.05)


@asynccontextmanager
async def bench(seed: int = 0) -> AsyncGenerator[Bench]:
    """Run an engine while the block runs."""
    engine = SimulatedEngine(seed=seed, computer_name="host", clock=wall_clock)
    on_bench = Bench(engine)
    engine.add_listener(on_bench)
    async with trio.open_nursery() as nursery:
        await nursery.start(engine.run)
        yield on_bench
        nursery.cancel_scope.cancel()
