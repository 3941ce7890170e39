"""A simulated engine: what it does at a tick and at a command, and which events it reports."""

from collections.abc import Callable
from random import Random

import trio
from attrs import define, frozen

from trio_runner._engine import ConnectionStatus, EventListener, RunStateChange
from trio_runner._errors import CommandError
from trio_runner.protocol import models as mdl
from trio_runner.protocol.models import SystemStateEnum, SystemTagName
from trio_runner.simulation.skid import _pcode
from trio_runner.simulation.skid._archive import Archive, archive_filename
from trio_runner.simulation.skid._commands import check
from trio_runner.simulation.skid._interpreter import Interpreter
from trio_runner.simulation.skid._messages import EngineMessages, EngineRun
from trio_runner.simulation.skid._runlog import RunLog, make_uuid
from trio_runner.simulation.skid._skid import COMMANDS, READING_NAMES
from trio_runner.simulation.skid._tags import Value

TICK_S = 0.1
MAX_WAITING = 100
"""How many pieces of injected code may wait for a run to begin or to go on."""
_ROUNDING_S = 1e-6
_ERROR = 40
"""The severity of an error, as in Python's logging."""


@frozen
class _Block:
    name: str


@frozen
class _Watch:
    argument: str
    scope_type: str = "Watch"


@define(eq=False, kw_only=True)
class SimulatedEngine(EngineMessages):
    """A filtration skid with its engine, built as a real one would be.

    It is message builder, event emitter and command handlers in one, and its interpreter's host.
    `run` is its only task; every other method returns at once.
    """

    # The tick loop

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Tick every 0.1 s until cancelled.

        Ticks are due at fixed instants after the start; missed ones are left out. Cancellation
        leaves the engine as it was after the last tick: a run that is on stays on, and `run` may be
        called again.
        """
        start = last = trio.current_time()
        number = 0
        task_status.started()
        while True:
            number = max(number + 1, int((last - start) / TICK_S) + 1)
            await trio.sleep_until(start + number * TICK_S)
            now = trio.current_time()
            self._tick(now - last)
            last = now

    def _tick(self, dt_s: float) -> None:
        self._tick_time = self.clock()
        self.skid.tick(dt_s)
        if self.tags.value(SystemTagName.CONNECTION_STATUS) == "Connected":
            self._set_tags(self.skid.tag_values())
        if self._run is not None:
            self._tick_run(self._run, dt_s)

    def _tick_run(self, run: EngineRun, dt_s: float) -> None:
        run.run_s += dt_s
        if self.is_advancing:
            run.method_s += dt_s
        self._end_timed_pause_and_hold(run)
        self._set_run_tags(run)
        run.interpreter.tick()
        if self._run is run:
            self._set_run_tags(run)
            run.archive.sample(run.run_s, self._tick_time, self.tags)

    def _end_timed_pause_and_hold(self, run: EngineRun) -> None:
        if run.pause_until_s is not None and run.run_s >= run.pause_until_s - _ROUNDING_S:
            self.unpause()
        if run.hold_until_s is not None and run.run_s >= run.hold_until_s - _ROUNDING_S:
            self.unhold()

    def _set_run_tags(self, run: EngineRun) -> None:
        self._set_tags(
            {
                SystemTagName.CLOCK: self._tick_time,
                SystemTagName.RUN_TIME: run.run_s,
                SystemTagName.PROCESS_TIME: run.method_s,
                SystemTagName.BLOCK_TIME: run.interpreter.block_s,
            }
        )

    def _set_tags(self, values: dict[str, Value]) -> None:
        self.tags.set(values, self._tick_time)

    # Commands of people

    async def execute_control_command(self, name: str) -> None:
        """Carry out Start, Stop, Pause, Unpause, Hold, Unhold or Restart at once.

        Raises:
            CommandError: the command is another one, or is not possible now.
        """
        commands: dict[str, Callable[[], None]] = {
            "Start": self.start,
            "Stop": self.stop,
            "Pause": self.pause,
            "Unpause": self.unpause,
            "Hold": self.hold,
            "Unhold": self.unhold,
            "Restart": self.restart,
        }
        if name not in commands:
            self._log_error(f"Unknown command: '{name}'")
            raise CommandError(f"Unknown command '{name}'")
        self._tick_time = self.clock()
        commands[name]()

    async def inject_code(self, pcode: str) -> None:
        """Run these lines alongside the method, from the next tick of a run that advances.

        Raises:
            CommandError: there is no such command, its argument is wrong, or too much code waits.
        """
        lines = [mdl.MethodLine(id="", content=content) for content in pcode.splitlines()]
        for line in _pcode.walk(_pcode.parse(lines)):
            check(line, COMMANDS)
        waiting = self._waiting_code if self._run is None else self._run.interpreter.waiting_code
        if len(waiting) >= MAX_WAITING:
            raise CommandError(
                f"{MAX_WAITING} commands are already waiting: start the run, or stop it"
            )
        if self._run is None:
            self._waiting_code.append(pcode)
        else:
            self._run.interpreter.inject(pcode)

    async def set_method(self, method: mdl.Method) -> None:
        """Take this method; errors in its lines are found when the lines are carried out.

        An edit after an error counts as its correction: the run stays paused, and the line is tried
        again when the run goes on.

        Raises:
            CommandError: a run is on and the edit touches lines that have begun.
        """
        self._method.replace(method, in_run=self._run is not None)
        self._set_method_status(mdl.MethodStatusEnum.OK)

    async def cancel(self, exec_id: str) -> None:
        """Cancel the instruction with this id in the run log, or raise `CommandError`."""
        self._running().interpreter.cancel(exec_id)

    async def force(self, exec_id: str) -> None:
        """End the wait of the instruction with this id, or raise `CommandError`."""
        self._running().interpreter.force(exec_id)

    def start(self) -> None:
        """Begin a run. Raises CommandError if one is on."""
        if self._run is not None:
            raise CommandError("Start is not possible: a run is on")
        self._method.reset()
        run = self._run = self._last_run = self._new_run()
        for code in self._waiting_code:
            run.interpreter.inject(code)
        self._waiting_code.clear()
        self._set_tags(
            {
                SystemTagName.RUN_ID: run.id,
                SystemTagName.MARK: "",
                SystemTagName.ARCHIVER: run.archive.filename,
            }
        )
        self._set_method_status(mdl.MethodStatusEnum.OK)
        self._show_state()
        self._set_run_tags(run)
        self._emit(lambda listener: listener.on_start(run.id))

    def stop(self) -> None:
        """End the run and bring the skid into its safe state. Raises CommandError without a run."""
        run = self._running()
        run.interpreter.stop()
        self.skid.make_safe()
        self._set_method_status(mdl.MethodStatusEnum.OK)
        self._emit(lambda listener: listener.on_stop())
        self._run = None
        self._set_tags(
            {
                SystemTagName.RUN_ID: None,
                SystemTagName.BLOCK: None,
                SystemTagName.ARCHIVER: None,
            }
        )
        self._show_state()

    def restart(self) -> None:
        """End the run and begin another. Raises CommandError if no run is on."""
        self.stop()
        self.start()

    def pause(self, duration_s: float | None = None) -> None:
        """Bring the skid into its safe state and stop the method's time."""
        run = self._running()
        if run.is_paused:
            raise CommandError("Pause is not possible: the run is paused")
        run.pause_until_s = None if duration_s is None else run.run_s + duration_s
        self._set_paused(run, is_paused=True)
        self._emit(lambda listener: listener.on_runstate_change(RunStateChange.PAUSE))

    def unpause(self) -> None:
        """Give the skid its outputs back, and let the method go on unless the run is held."""
        run = self._running()
        if not run.is_paused:
            raise CommandError("Unpause is not possible: the run is not paused")
        run.pause_until_s = None
        self._set_method_status(mdl.MethodStatusEnum.OK)
        self._set_paused(run, is_paused=False)
        self._emit(lambda listener: listener.on_runstate_change(RunStateChange.UNPAUSE))

    def hold(self, duration_s: float | None = None) -> None:
        """Stop the method's time and leave the skid as it is."""
        run = self._running()
        if run.is_held:
            raise CommandError("Hold is not possible: the run is held")
        run.is_held = True
        run.hold_until_s = None if duration_s is None else run.run_s + duration_s
        self._show_state()

    def unhold(self) -> None:
        """Let the method go on, unless the run is paused."""
        run = self._running()
        if not run.is_held:
            raise CommandError("Unhold is not possible: the run is not held")
        run.is_held, run.hold_until_s = False, None
        self._show_state()

    def _running(self) -> EngineRun:
        if self._run is None:
            raise CommandError("This is not possible: no run is on")
        return self._run

    def _new_run(self) -> EngineRun:
        # Not from the seed alone: a second process with the same seed must not repeat a run's id.
        origin = f"{self.seed} {self.name} {self._tick_time} {self._run_count}"
        self._run_count += 1
        ids = Random(origin)  # noqa: S311 - nothing secret
        run_id = make_uuid(ids)
        run_log = RunLog(lambda: self._tick_time, lambda: self.tags.select(READING_NAMES), ids)
        filename = archive_filename(self._tick_time)
        return EngineRun(
            id=run_id,
            began=self._tick_time,
            interpreter=Interpreter(self, self._method, run_log),
            archive=Archive(filename, self.data_log_interval_s),
        )

    def _set_paused(self, run: EngineRun, *, is_paused: bool) -> None:
        run.is_paused = self.skid.is_safe = is_paused
        self._show_state()

    def _show_state(self) -> None:
        """Set the tags that follow from the run's state and from the outputs."""
        if self._run is None:
            state = SystemStateEnum.Stopped
        elif self._run.is_paused:
            state = SystemStateEnum.Paused
        elif self._run.is_held:
            state = SystemStateEnum.Holding
        else:
            state = SystemStateEnum.Running
        self._set_tags({SystemTagName.SYSTEM_STATE: state, **self.skid.output_values()})

    def _set_method_status(self, status: mdl.MethodStatusEnum) -> None:
        self._set_tags({SystemTagName.METHOD_STATUS: status})

    # What the interpreter asks for

    @property
    def is_advancing(self) -> bool:
        """Whether a run is on that is neither paused nor held."""
        return self._run is not None and not (self._run.is_paused or self._run.is_held)

    @property
    def method_s(self) -> float:
        """The time that the run has spent advancing (s), 0 without a run."""
        return 0.0 if self._run is None else self._run.method_s

    def read_tag(self, name: str) -> _pcode.TagReading:
        """Return a tag's value and unit, or raise `CommandError`."""
        return self.tags.read(name)

    def carry_out(self, name: str, argument: str) -> None:
        """Carry out a command that takes no time, or raise `CommandError`."""
        match name:
            case "Mark":
                self._set_tags({SystemTagName.MARK: argument})
            case "Notify":
                self._emit(lambda listener: listener.on_notify_command(argument))
            case "Increment run counter":
                count = self.tags.value(SystemTagName.RUN_COUNTER)
                self._set_tags({SystemTagName.RUN_COUNTER: int(count or 0) + 1})
            case _:
                self.skid.execute(name, argument)
                self._set_tags(self.skid.output_values())

    def on_block(self, name: str | None, *, has_begun: bool) -> None:
        """Show the method's innermost block, and report it if it has just begun."""
        self._set_tags({SystemTagName.BLOCK: name})
        if name is not None and has_begun:
            block = _Block(name)
            self._emit(lambda listener: listener.on_block_start(block))

    def on_watch(self, condition: str) -> None:
        """Report that a watch's condition has come true."""
        self._emit(lambda listener: listener.on_scope_activate(_Watch(condition)))

    def on_failure(self, error: CommandError, line: _pcode.Line) -> None:
        """Log the error. One in the method also pauses the run, but emits no pause event."""
        if self._method.is_injected(line):
            self._log_error(f"Error in injected code '{line.text}': {error.message}")
            return
        self._log_error(f"Error in method line '{line.text}': {error.message}")
        self._set_method_status(mdl.MethodStatusEnum.ERROR)
        self._set_paused(self._running(), is_paused=True)
        self._emit(lambda listener: listener.on_method_error(error))

    # Events

    def set_connection_status(self, status: ConnectionStatus) -> None:
        """Pretend that the equipment is lost or found; while lost, its readings stand still."""
        self._tick_time = self.clock()
        self._set_tags({SystemTagName.CONNECTION_STATUS: status})
        self._emit(lambda listener: listener.on_connection_status_change(status))

    def _emit(self, tell: Callable[[EventListener], None]) -> None:
        for listener in self.listeners:
            tell(listener)

    def _log_error(self, message: str) -> None:
        entry = mdl.ErrorLogEntry(message=message, created_time=self.clock(), severity=_ERROR)
        self._errors.append(entry)
