"""The run log: what was carried out, when, and with which values of the readings."""

import uuid
from collections.abc import Callable
from random import Random

from attrs import define, field

from trio_runner._errors import CommandError
from trio_runner.protocol import models as mdl

QUEUED_ID = "QueuedCommand"
"""The id of lines that wait for a run, the same as in Open Pectus."""


@define(eq=False)
class RunLogEntry:
    """A line of the run log; start and end are in seconds since the epoch."""

    id: str
    command_name: str
    start: float
    start_values: list[mdl.TagValue]
    end: float | None = None
    end_values: list[mdl.TagValue] = field(factory=list)
    progress: float | None = None
    forcible: bool = False
    cancellable: bool = False
    forced: bool = False
    cancelled: bool = False
    failed: bool = False

    def line(self) -> mdl.RunLogLine:
        """Return the line for the aggregator."""
        return mdl.RunLogLine(
            id=self.id,
            command_name=self.command_name,
            start=self.start,
            end=self.end,
            progress=self.progress,
            start_values=self.start_values,
            end_values=self.end_values,
            forcible=self.forcible,
            cancellable=self.cancellable,
            forced=self.forced,
            cancelled=self.cancelled,
            failed=self.failed,
        )


@define
class RunLog:
    """The run log of one run.

    `now` gives the tick time, `readings` the values of the readings, `ids` the entries' ids.
    """

    _now: Callable[[], float]
    _readings: Callable[[], list[mdl.TagValue]]
    _ids: Random
    entries: list[RunLogEntry] = field(factory=list)

    def begin(self, command_name: str) -> RunLogEntry:
        """Add an entry for a command that has begun, and return it."""
        entry = RunLogEntry(make_uuid(self._ids), command_name, self._now(), self._readings())
        self.entries.append(entry)
        return entry

    def end(self, entry: RunLogEntry) -> None:
        """Note that the command has ended, for whatever reason."""
        entry.end, entry.end_values = self._now(), self._readings()
        entry.forcible = entry.cancellable = False

    def find(self, exec_id: str) -> RunLogEntry:
        """Return the entry with this id.

        Raises:
            CommandError: there is none.
        """
        for entry in self.entries:
            if entry.id == exec_id:
                return entry
        raise CommandError(f"The run log has no line with id '{exec_id}'")

    def as_model(self) -> mdl.RunLog:
        """Return the run log for the aggregator."""
        return mdl.RunLog(lines=[entry.line() for entry in self.entries])


def queued(command_names: list[str]) -> mdl.RunLog:
    """Return a run log of commands that wait."""
    return mdl.RunLog(
        lines=[
            mdl.RunLogLine(
                id=QUEUED_ID,
                command_name=name,
                start=0.0,
                end=None,
                progress=None,
                start_values=[],
                end_values=[],
            )
            for name in command_names
        ]
    )


def make_uuid(rng: Random) -> str:
    """Return a random UUID (version 4)."""
    return str(uuid.UUID(int=rng.getrandbits(128), version=4))
