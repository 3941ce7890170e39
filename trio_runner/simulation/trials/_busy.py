"""A busy engine: events from many tasks, runs that come and go, storms of tags."""

from collections.abc import Awaitable, Callable
from random import Random
from typing import TypeVar

import trio
from attrs import define, evolve, field, frozen

from trio_runner._plain_engine import PlainEngine
from trio_runner._runner import EngineRunner
from trio_runner.protocol import engine_messages as em
from trio_runner.protocol import models as mdl
from trio_runner.protocol.models import NotificationTopic
from trio_runner.simulation.stand_ins._sometimes import sometimes
from trio_runner.simulation.stand_ins._websocket import MESSAGE_BYTES_MAX
from trio_runner.simulation.trials._thread import RunLogTimes

MARKS_MAX = 20
"""How many lines of the run log are kept, unless a fault makes it long."""

SCATTER = 0x9E3779B97F4A7C15
"""2**64 divided by the golden ratio: its multiples look random."""

MessageT = TypeVar("MessageT", bound=em.EngineMessage)


class EngineBug(Exception):
    """Raised by a callback with a bug, which ends the process."""


@frozen
class _Block:
    name: str


@define(eq=False, slots=False)
class BusyEngine(PlainEngine):
    """A unit whose every event and sample is unique, so that each can be followed.

    `made` is called with each before it is handed over. `count` numbers them over all processes.
    """

    made: Callable[[em.EngineMessage], None] = field(kw_only=True)
    count: Callable[[], int] = field(kw_only=True)
    rng: Random = field(kw_only=True)
    run_logs: RunLogTimes = field(kw_only=True)
    run_id: str | None = None
    storm: int = 0
    """How many tags every sample has besides the first."""
    bug_in: str = ""
    """The messages whose builder raises, if any."""
    marks_max: int = MARKS_MAX
    run_log_cost_s: float = 0.0
    """How long making a run log takes (s)."""
    is_restless: bool = False
    """Whether the run log differs each time, as it does while a method runs."""
    archive_bytes: int = 0
    """The size of the archive of the next run that ends (bytes)."""
    in_reading: Callable[[], None] | None = None
    """Called once, the next time that the tags are read."""
    commands: int = field(default=0, init=False)
    mood: Callable[[], Awaitable[None]] | None = field(default=None, init=False)
    """How a command is carried out; None does it at once."""
    _errors: list[mdl.ErrorLogEntry] = field(factory=list, init=False)
    _marks: list[mdl.RunLogLine] = field(factory=list, init=False)

    async def work(self, runner: EngineRunner) -> None:
        """Begin and end runs, notify, log and mark, from several tasks, until cancelled."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._now_and_then, 40, lambda: self.toggle_run(runner))
            for _ in range(2):
                nursery.start_soon(self._now_and_then, 30, lambda: self.notify(runner))
            nursery.start_soon(self._now_and_then, 30, self.log_error)
            nursery.start_soon(self._now_and_then, 10, self.mark)

    async def _now_and_then(self, every_s: float, do: Callable[[], None]) -> None:
        while True:
            await trio.sleep(self.rng.expovariate(1 / every_s))
            do()

    def begin_run(self, runner: EngineRunner) -> None:
        """Begin a run unless one is on."""
        if self.run_id is None:
            self.toggle_run(runner)

    def toggle_run(self, runner: EngineRunner) -> None:
        """Begin a run, or end the one that is on."""
        self.run_logs.change_run(ends=self.run_id is not None)
        if self.run_id is None:
            self.run_id = f"run-{self.count()}"
            self._marks.clear()
            runner.on_start(self.run_id)
        else:
            runner.on_stop()
            self.run_id = None

    def end_run(self, runner: EngineRunner, archive_bytes: int) -> None:
        """End the run that is on, or one that begins now, with an archive of so many bytes."""
        self.begin_run(runner)
        self.archive_bytes = archive_bytes
        self.toggle_run(runner)

    def notify(self, runner: EngineRunner) -> None:
        """Send a notification: a Notify command or the start of a block."""
        if self.rng.random() < 0.5:
            runner.on_notify_command("Look")
        else:
            runner.on_block_start(_Block("Wash"))

    def burst(self, runner: EngineRunner, events: int) -> None:
        """Send this many notifications at once."""
        for _ in range(events):
            self.notify(runner)

    def log_error(self) -> None:
        """Log an error."""
        message = f"error {self.count()}"
        self._errors.append(
            mdl.ErrorLogEntry(message=message, created_time=self.clock(), severity=40)
        )

    def mark(self) -> None:
        """Add a line to the run log, and drop the oldest above `marks_max`."""
        number = self.count()
        line = mdl.RunLogLine(
            id=str(number),
            command_name=f"Mark: {number * SCATTER % 2**64:016x}",  # must not compress well
            start=self.clock(),
            end=None,
            progress=None,
            start_values=[],
            end_values=[],
        )
        self._marks = [*self._marks, line][-self.marks_max :]

    # Messages

    def read_tags(self) -> list[mdl.TagValue]:
        """Return a number that no other sample has, and the tags of a storm."""
        now = self.clock()
        names = ["Count", *(f"Tag {n}" for n in range(self.storm))]
        values = [self.count(), *(self.rng.random() for _ in range(self.storm))]
        return [
            mdl.TagValue(name=name, tick_time=now, value=value, value_unit="")
            for name, value in zip(names, values, strict=True)
        ]

    def create_tag_updates_msg(self, run_id: str | None) -> em.TagsUpdatedMsg | None:
        """Return a sample."""
        self._look_for_bug("tags")
        return self._sampled(em.TagsUpdatedMsg(tags=self.read_tags(), run_id=run_id))

    def create_tag_updates_snapshot_msg(self) -> em.TagsUpdatedMsg:
        """Return a sample."""
        self._look_for_bug("tags")
        return self._sampled(em.TagsUpdatedMsg(tags=self.read_tags()))

    def _sampled(self, sample: em.TagsUpdatedMsg) -> em.TagsUpdatedMsg:
        """Return a sample. If a run began or ended in mid-reading, do not note it.

        Such a sample belongs to no run and must not be sent.
        """
        happens, self.in_reading = self.in_reading, None
        if happens is None:
            return self._noted(sample)
        happens()
        sometimes("run turns in reading")
        return sample

    def create_error_log_msg(self) -> em.ErrorLogMsg | None:
        """Return the errors logged since the last call."""
        self._look_for_bug("errors")
        if not self._errors:
            return None
        entries, self._errors = self._errors, []
        return self._noted(em.ErrorLogMsg(log=mdl.ErrorLog(entries=entries)))

    def create_runlog_msg(self, run_id: str) -> em.RunLogMsg:
        """Return the last marks, and take the time that they cost."""
        self.run_logs.make(self.run_log_cost_s)
        if self.is_restless:
            self.mark()
        return em.RunLogMsg(id="", run_id=run_id, runlog=mdl.RunLog(lines=self._marks))

    def create_control_state_msg(self) -> em.ControlStateMsg:
        """Return whether a run is on."""
        self._look_for_bug("control state")
        state = mdl.ControlState(
            is_running=self.run_id is not None, is_holding=False, is_paused=False
        )
        return em.ControlStateMsg(control_state=state)

    def create_method_msg(self) -> em.MethodMsg:
        """Return the method."""
        self._look_for_bug("method")
        return super().create_method_msg()

    def create_uod_info(self) -> em.UodInfoMsg:
        """Return the unit's description."""
        self._look_for_bug("unit")
        return super().create_uod_info()

    def _look_for_bug(self, message: str) -> None:
        if message == self.bug_in:
            sometimes("builder fails")
            raise ValueError("a message builder that fails")

    def create_run_started_msg(self, run_id: str, tick_time: float) -> em.RunStartedMsg:
        """Return the event that a run has begun."""
        return self._happened(super().create_run_started_msg(run_id, tick_time))

    def create_run_stopped_msg(self, run_id: str) -> em.RunStoppedMsg:
        """Return the event that the run has ended, with its marks and perhaps an archive."""
        message = super().create_run_stopped_msg(run_id)
        message = evolve(message, runlog=mdl.RunLog(lines=self._marks))
        if self.archive_bytes:
            sometimes("over 16 MiB", self.archive_bytes >= MESSAGE_BYTES_MAX)
            archive = self.rng.randbytes(self.archive_bytes // 2).hex()
            message = evolve(message, archive=archive, archive_filename="run.csv")
            self.archive_bytes = 0
        return self._happened(message)

    def _happened(self, message: MessageT) -> MessageT:
        """Note a run event, which is told even if its builder fails now."""
        self._noted(message)
        self._look_for_bug("events")
        return message

    def create_notification(self, topic: NotificationTopic, text: str) -> em.WebPushNotificationMsg:
        """Return a notification with a number, so that it is unique."""
        self._look_for_bug("events")
        return self._noted(super().create_notification(topic, f"{text} {self.count()}"))

    def _noted(self, message: MessageT) -> MessageT:
        self.made(message)
        return message

    # Commands

    async def inject_code(self, pcode: str) -> None:
        """Count the command, and carry it out as `mood` says."""
        self.commands += 1
        if self.mood is not None:
            await self.mood()
