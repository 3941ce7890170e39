"""An engine to build on: readings and commands from functions, a method of commands, runs."""

import inspect
import logging
from collections import deque
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import trio
from attrs import define, evolve, field

from trio_runner._engine import EventListener
from trio_runner._errors import CommandError
from trio_runner._mistakes import FAILS, Complaints, fault_of, said
from trio_runner._plain_commands import PlainCommand, Range, check_range
from trio_runner._plain_messages import PlainMessages
from trio_runner._plain_runs import LogLine, PlainRun, clock_text
from trio_runner._plain_unit import PlainReading, PlainUnit, Value
from trio_runner._warnings import Warnings
from trio_runner.protocol import engine_messages as em
from trio_runner.protocol import models as mdl
from trio_runner.protocol.models import SystemTagName as Name

logger = logging.getLogger(__name__)

ERRORS_MAX = 1000
"""How many errors are kept for the next message; beyond that, the oldest are dropped."""


@define(eq=False, slots=False)
class PlainEngine(PlainMessages):
    """A complete engine that is told what it reads and what it can do.

    Describe the unit by `add_reading`, `add_command` and `add_plot`, before it is run. A person
    starts a run, which carries out the method: one command per line, one after the other, without
    blocks, conditions or thresholds. That needs `run_commands` to be running. Commands that people
    enter are carried out at once. The engine keeps the run log, the colours of the method,
    `System State` and `Run Time`.

    Or derive from it and override what your engine does differently: `read_tags` alone makes one
    that only shows its tags. Call everything but `report_error` in Trio's thread.
    `data_log_interval_s` is the time between two stored samples (s), `clock` gives the seconds
    since the epoch.
    """

    # These names do not collide with those that an engine derived from this one may choose.
    _plain_unit: PlainUnit = field(factory=PlainUnit, init=False)
    _plain_method: mdl.Method = field(init=False)
    _plain_nursery: trio.Nursery | None = field(default=None, init=False)
    _plain_run: PlainRun | None = field(default=None, init=False)
    _plain_last_run: PlainRun | None = field(default=None, init=False)
    """The present or else the last run."""
    _plain_errors: deque[mdl.ErrorLogEntry] = field(
        factory=lambda: deque(maxlen=ERRORS_MAX), init=False
    )
    """Any thread may append; only Trio's takes from it."""
    _plain_warnings: Warnings = field(factory=Warnings, init=False)
    _plain_complaints: Complaints = field(init=False)

    def __attrs_post_init__(self) -> None:
        """Begin with an empty method."""
        self._plain_complaints = Complaints(lambda: self._plain_warnings)
        self._plain_method = super().create_method_msg().method

    # What the unit is

    def add_reading(
        self,
        name: str,
        read: Callable[[], Value],
        unit: str | None = None,
        *,
        digits: int | None = None,
        between: Range | None = None,
        choices: Sequence[str] = (),
        enter: Callable[[Any], object] | None = None,
    ) -> None:
        """Show what `read` returns, at every sample; `read` must return at once.

        If `read` raises an `Exception`, the reading is left out of that sample, and the others go
        out. The log says so once, with the traceback, and the unit's error log once a day.

        `digits` is how many digits the page shows after the point. It is without effect if a value
        may be entered, since the page shows such a reading in its own way. `between` is the range
        of the plot's axis. With `enter`, a person or a method may enter a value within that range,
        or one of the `choices`: `enter` is the function of a command of the same name
        (`add_command`).

        Raises ValueError if there is a reading or command of this name or the range is not one.
        Raises TypeError if `read` is not a function without parameters or is async, and if `enter`
        is not a function of one argument.
        """
        check_range(name, between)
        command = None
        if enter is not None:
            range_ = None if choices else between
            command = PlainCommand(name, enter, unit, range_, tuple(choices))
        self._plain_unit.add_reading(PlainReading(name, read, unit, digits, between, command))

    def add_command(
        self,
        name: str,
        function: Callable[..., object],
        unit: str | None = None,
        *,
        between: Range | None = None,
        choices: Sequence[str] = (),
    ) -> None:
        """Let methods and people call a function: `Stirrer: 300 rpm`, `Valve: Open`, `Rinse`.

        A function without parameters takes no argument. Any other takes one of `choices`, or a
        float in `unit` and within `between` if either is given, or else a text. An async function
        may take its time: the method waits, and Stop or a person may cancel it. Raise
        `CommandError` in it to fail with a text for people. The first line of its docstring
        explains it on the page.

        Raises ValueError if there is a command of this name or the range is not one, and TypeError
        if `function` is not a function, needs more than one argument, or takes none although a
        unit, a range or choices are given.
        """
        self._plain_unit.add_command(PlainCommand(name, function, unit, between, tuple(choices)))

    def add_plot(self, *names: str) -> None:
        """Plot these readings in one plot, below the plots added before.

        Raises ValueError if there is no reading of one of these names.
        """
        self._plain_unit.add_plot(names)

    # What it does

    @property
    def current_run_id(self) -> str | None:
        """The id of the run that is on, or None if none is."""
        return None if self._plain_run is None else self._plain_run.id

    async def run_commands(
        self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED
    ) -> None:
        """Carry out methods and commands until cancelled; cancellation leaves a run open."""
        try:
            async with trio.open_nursery() as self._plain_nursery:
                task_status.started()
                await trio.sleep_forever()
        finally:
            self._plain_nursery = None

    def start_run(self) -> None:
        """Begin a run and its method.

        Raises CommandError if a run is on, RuntimeError unless `run_commands` is running.
        """
        if self._plain_run is not None:
            raise CommandError("A run is already on")
        nursery = self._work()
        run = self._plain_run = self._plain_last_run = PlainRun(self.clock())
        self._tell(lambda listener: listener.on_start(run.id))
        nursery.start_soon(self._carry_out_method, run)

    def stop_run(self) -> None:
        """End the run and cancel what it does. Raises CommandError if no run is on."""
        if self._plain_run is None:
            raise CommandError("No run is on")
        self._plain_run.scope.cancel()
        for line in self._plain_run.lines:
            line.cancel()
            self._end(line)
        self._tell(lambda listener: listener.on_stop())
        self._plain_run = None

    def report_error(self, message: str, level: int = logging.ERROR) -> None:
        """Add a text to the unit's error log, from any thread; `level` is one of `logging`'s."""
        entry = mdl.ErrorLogEntry(message=message, created_time=self.clock(), severity=level)
        self._plain_errors.append(entry)

    def _tell(self, of: Callable[[EventListener], None]) -> None:
        for listener in self.listeners:
            of(listener)

    def _work(self) -> trio.Nursery:
        if self._plain_nursery is None:
            raise RuntimeError("this needs run_commands(): start it beside the runner")
        return self._plain_nursery

    async def _carry_out_method(self, run: PlainRun) -> None:
        with run.scope:
            for line in self._plain_method.lines:
                await trio.lowlevel.checkpoint()  # lets Stop end it between two commands too
                run.begun.append(line.id)
                failure = await self._carry_out(line.content, run)
                if failure is not None:
                    run.failed.append(line.id)
                    self._tell(partial(_tell_of_failure, failure))
                    return
                run.done.append(line.id)

    async def _carry_out_entered(self, lines: list[str], run: PlainRun | None) -> None:
        for line in lines:
            is_over = run is not None and run.scope.cancel_called
            if is_over or await self._carry_out(line, run) is not None:
                return

    async def _carry_out(self, text: str, run: PlainRun | None) -> Exception | None:
        """Carry out a line, with an entry in the run log; return why it failed, or None."""
        line = LogLine(text.strip(), self.clock(), self._values())
        try:
            parsed = self._plain_unit.parse(text)
            if parsed is None:
                return None
            if run is not None:
                run.log(line)
            command, arguments = parsed
            with line.scope:
                result = command.function(*arguments)
                if inspect.isawaitable(result):
                    line.waits = True
                    await result
        except FAILS as error:
            failure = error if isinstance(error, Exception) else CommandError(repr(error))
            self._fail(line, failure)
            return failure
        finally:
            self._end(line)
        return None

    def _fail(self, line: LogLine, error: Exception) -> None:
        line.failed = True
        if not isinstance(error, CommandError):
            logger.error("The command '%s' raised", line.command, exc_info=error)
        self.report_error(f"{line.command}: {said(error)}")

    def _end(self, line: LogLine) -> None:
        if line.end is None:
            line.end, line.end_values = self.clock(), self._values()

    def _values(self) -> list[mdl.TagValue]:
        return [tag for tag in self._read(self.clock()) if fault_of(tag) is None]

    def _read(self, now: float) -> list[mdl.TagValue]:
        """Return the readings as they are at `now`, without those that raise."""
        tags = []
        for reading in self._plain_unit.readings.values():
            try:
                tags.append(reading.tag(now))
            except FAILS as error:
                self._plain_complaints.note_reading(reading.name, error)
        return tags

    # Messages

    def read_tags(self) -> list[mdl.TagValue]:
        """Return the readings as they are now, and the tags that every unit has."""
        now, run = self.clock(), self._plain_run
        run_s = 0.0 if run is None else now - run.began
        state = mdl.SystemStateEnum.Stopped if run is None else mdl.SystemStateEnum.Running
        shared = mdl.TagValue(tick_time=now, value_unit=None)
        time = evolve(shared, name=Name.RUN_TIME.value, value=run_s, value_unit="s")
        return [
            *self._read(now),
            evolve(shared, name=Name.SYSTEM_STATE.value, value=state.value),
            evolve(time, value_formatted=clock_text(run_s)),
        ]

    def create_uod_info(self) -> em.UodInfoMsg:
        """Return the unit as described; without readings, one that shows all tags."""
        info, unit = super().create_uod_info(), self._plain_unit
        if not unit.readings:
            return info
        shown = [PlainReading(Name.RUN_TIME.value, lambda: None, "s"), *unit.readings.values()]
        commands = list(unit.commands.values())
        tags = {tag.name: tag for tag in info.uod_definition.tags}
        for reading in shown:  # also those that cannot be read now
            tags.setdefault(reading.name, mdl.TagDefinition(name=reading.name, unit=reading.unit))
        return evolve(
            info,
            readings=[reading.info() for reading in shown],
            commands=[command.info() for command in commands],
            uod_definition=evolve(
                info.uod_definition,
                commands=[command.definition() for command in commands],
                tags=list(tags.values()),
            ),
            plot_configuration=unit.plot_configuration(),
        )

    def create_runlog_msg(self, run_id: str) -> em.RunLogMsg:
        """Return the run log of a run; it is empty for any but the present or last one."""
        run = self._plain_last_run
        if run is None or run.id != run_id:
            return super().create_runlog_msg(run_id)
        return em.RunLogMsg(id="", run_id=run_id, runlog=run.run_log())

    def create_error_log_msg(self) -> em.ErrorLogMsg | None:
        """Return the errors since the last call, or None if there are none."""
        for told in self._plain_warnings.take(self.clock()):
            self.report_error(told.text, told.level)
        errors = [self._plain_errors.popleft() for _ in range(len(self._plain_errors))]
        return em.ErrorLogMsg(log=mdl.ErrorLog(entries=errors)) if errors else None

    def create_wpn_method_error_msg(self) -> em.WebPushNotificationMsg:
        """Return the notification that the method failed."""
        text = "Error in method, which has ended. The run goes on."
        return self.create_notification(mdl.NotificationTopic.METHOD_ERROR, text)

    def create_control_state_msg(self) -> em.ControlStateMsg:
        """Return whether a run is on."""
        is_on = self._plain_run is not None
        state = mdl.ControlState(is_running=is_on, is_holding=False, is_paused=False)
        return em.ControlStateMsg(control_state=state)

    def create_method_state_msg(self) -> em.MethodStateMsg:
        """Return which lines of the method are running, have ended or failed in the last run."""
        run = self._plain_last_run
        state = mdl.MethodState.untouched() if run is None else run.method_state()
        return em.MethodStateMsg(method_state=state)

    def create_method_msg(self) -> em.MethodMsg:
        """Return the method; an empty one has one empty line, as the aggregator requires."""
        return em.MethodMsg(method=self._plain_method)

    # Commands of people

    async def execute_control_command(self, name: str) -> None:
        """Carry out Start and Stop; raise CommandError for the others."""
        if name == "Start":
            self.start_run()
        elif name == "Stop":
            self.stop_run()
        else:
            raise CommandError(f"{self.name} has no command {name}")

    async def inject_code(self, pcode: str) -> None:
        """Begin to carry out these lines, one after the other, during a run or without one.

        Raises CommandError if there is no such command or an argument does not fit, and
        RuntimeError unless `run_commands` is running.
        """
        lines = pcode.splitlines()
        for line in lines:
            self._plain_unit.parse(line)
        self._work().start_soon(self._carry_out_entered, lines, self._plain_run)

    async def set_method(self, method: mdl.Method) -> None:
        """Take the method; ignore one without lines.

        Raises CommandError during a run, and if a line is not a command.
        """
        if self._plain_run is not None:
            raise CommandError("A run is on: stop it to change the method")
        for line in method.lines:
            self._plain_unit.parse(line.content)
        if method.lines:
            self._plain_method, self._plain_last_run = method, None

    async def cancel(self, exec_id: str) -> None:
        """Cancel a command of the run log. Raises CommandError if it cannot be cancelled."""
        if self._plain_run is None:
            raise CommandError("No run is on")
        self._plain_run.cancel(exec_id)


def _tell_of_failure(error: Exception, listener: EventListener) -> None:
    listener.on_method_error(error)
