"""A run: its run log, and the states of the lines of its method."""

from uuid import uuid4

import trio
from attrs import define, field

from trio_runner._errors import CommandError
from trio_runner.protocol import models as mdl

LINES_MAX = 5000
"""The most lines of a run log; beyond that, the oldest ended lines are dropped."""


@define(eq=False)
class LogLine:
    """A line of the run log: a command that is being carried out or has ended."""

    command: str
    start: float
    start_values: list[mdl.TagValue]
    scope: trio.CancelScope = field(factory=trio.CancelScope)
    id: str = field(factory=lambda: str(uuid4()))
    end: float | None = None
    end_values: list[mdl.TagValue] = field(factory=list)
    failed: bool = False
    cancelled: bool = False
    waits: bool = False
    """Whether its function is async, so that it can be cancelled."""

    def cancel(self) -> bool:
        """Cancel the command if it is waiting; return whether it was."""
        if self.end is not None or not self.waits:
            return False
        self.cancelled = True
        self.scope.cancel()
        return True

    def model(self) -> mdl.RunLogLine:
        """Return the line for the aggregator."""
        return mdl.RunLogLine(
            id=self.id,
            command_name=self.command,
            start=self.start,
            end=self.end,
            progress=None,
            start_values=self.start_values,
            end_values=self.end_values,
            forcible=False,
            cancellable=self.end is None and self.waits,
            forced=False,
            cancelled=self.cancelled,
            failed=self.failed,
        )


@define(eq=False)
class PlainRun:
    """A run; after its end it no longer changes, but is still shown."""

    began: float
    id: str = field(factory=lambda: str(uuid4()))
    scope: trio.CancelScope = field(factory=trio.CancelScope)
    lines: list[LogLine] = field(factory=list)
    begun: list[str] = field(factory=list)
    """The ids of the method's lines, in the order in which they began."""
    done: list[str] = field(factory=list)
    failed: list[str] = field(factory=list)

    def log(self, line: LogLine) -> None:
        """Add a line to the run log."""
        self.lines.append(line)
        if len(self.lines) > LINES_MAX:
            self.lines.remove(next((old for old in self.lines if old.end is not None), line))

    def run_log(self) -> mdl.RunLog:
        """Return the run log for the aggregator."""
        return mdl.RunLog(lines=[line.model() for line in self.lines])

    def method_state(self) -> mdl.MethodState:
        """Return the states of the method's lines; lines that have begun are locked."""
        under_way = [id_ for id_ in self.begun if id_ not in self.done and id_ not in self.failed]
        return mdl.MethodState(
            started_line_ids=under_way,
            executed_line_ids=list(self.done),
            injected_line_ids=[],
            content_locked_line_ids=[],
            locked_line_ids=list(self.begun),
            failed_line_ids=list(self.failed),
        )

    def cancel(self, exec_id: str) -> None:
        """Cancel a command of the run log. Raises CommandError if it is not waiting."""
        if not any(line.cancel() for line in self.lines if line.id == exec_id):
            raise CommandError("It has ended")


def clock_text(seconds: float) -> str:
    """Return a time as hours, minutes and seconds."""
    minutes, rest = divmod(int(seconds), 60)
    return f"{minutes // 60:02}:{minutes % 60:02}:{rest:02}"
