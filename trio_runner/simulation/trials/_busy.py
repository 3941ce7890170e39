"""An engine that is busy: events from many tasks, runs that come and go, storms of tags."""

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
"""Lines of the run log that are kept, unless it is to be long."""

SCATTER = 0x9E3779B97F4A7C15
"""2**64 divided by the golden section: its multiples look like chance."""

MessageT = TypeVar("MessageT", bound=em.EngineMessage)


class EngineBug(Exception):
    """What a message builder with a bug raises."""


@frozen
class _Block:
    name: str


@define(eq=False, slots=False)
class BusyEngine(PlainEngine):
    """A unit whose every event and sample is one of a kind, so that each can be followed.

    `made` is called with each before it is handed over, `count` numbers them, over all processes.
    """

    made: Callable[[em.EngineMessage], None] = field(kw_only=True)
    count: Callable[[], int] = field(kw_only=True)
    rng: Random = field(kw_only=True)
    run_logs: RunLogTimes = field(kw_only=True)
    run_id: str | None = None
    storm: int = 0
    """Tags that every sample has besides the first."""
    bug_in: str = ""
    """Which message cannot be made."""
    marks_max: int = MARKS_MAX
    run_log_cost_s: float = 0.0
    """What it takes to make a run log (s)."""
    is_restless: bool = False
    """Whether the run log is another each time, as that of a method that runs is."""
    archive_bytes: int = 0
    """The size of what is archived of the next run that ends."""
    in_reading: Callable[[], None] | None = None
    """What happens while the tags are read the next time."""
    commands: int = field(default=0, init=False)
    mood: Callable[[], Awaitable[None]] | None = field(default=None, init=False)
    """What a command is carried out like; at first it is done at once."""
    _errors: list[mdl.ErrorLogEntry] = field(factory=list, init=False)
    _marks: list[mdl.RunLogLine] = field(factory=list, init=False)

    async def work(self, runner: EngineRunner) -> None:
        """Do what engines do, from several tasks, until cancelled."""
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
        """End the run that is on, or one that begins now, of which so much is archived."""
        self.begin_run(runner)
        self.archive_bytes = archive_bytes
        self.toggle_run(runner)

    def notify(self, runner: EngineRunner) -> None:
        """Tell people something, or that a block began."""
        if self.rng.random() < 0.5:
            runner.on_notify_command("Look")
        else:
            runner.on_block_start(_Block("Wash"))

    def burst(self, runner: EngineRunner, events: int) -> None:
        """Tell many things at once."""
        for _ in range(events):
            self.notify(runner)

    def log_error(self) -> None:
        """Log an error."""
        message = f"error {self.count()}"
        self._errors.append(
            mdl.ErrorLogEntry(message=message, created_time=self.clock(), severity=40)
        )

    def mark(self) -> None:
        """Let the run log grow."""
        number = self.count()
        line = mdl.RunLogLine(
            id=str(number),
            command_name=f"Mark: {number * SCATTER % 2**64:016x}",  # not to be compressed
            start=self.clock(),
            end=None,
            progress=None,
            start_values=[],
            end_values=[],
        )
        self._marks = [*self._marks, line][-self.marks_max :]

    # Messages

    def read_tags(self) -> list[mdl.TagValue]:
        """Return a number that no other sample has, and what a storm adds."""
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
        return self._sampled(em.TagsUpdatedMsg(tags=self.read_tags()))

    def _sampled(self, sample: em.TagsUpdatedMsg) -> em.TagsUpdatedMsg:
        """Return a sample; one that is of no run is not noted: it must not be sent."""
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
        """Return the last marks."""
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
        """Return that there is no method."""
        self._look_for_bug("method")
        return super().create_method_msg()

    def create_uod_info(self) -> em.UodInfoMsg:
        """Return what the unit has."""
        self._look_for_bug("unit")
        return super().create_uod_info()

    def _look_for_bug(self, message: str) -> None:
        if message == self.bug_in:
            raise EngineBug("a message builder that fails")

    def create_run_started_msg(self, run_id: str, tick_time: float) -> em.RunStartedMsg:
        """Return the word that a run began."""
        return self._noted(super().create_run_started_msg(run_id, tick_time))

    def create_run_stopped_msg(self, run_id: str) -> em.RunStoppedMsg:
        """Return the word that the run has ended."""
        message = super().create_run_stopped_msg(run_id)
        message = evolve(message, runlog=mdl.RunLog(lines=self._marks))
        if self.archive_bytes:
            sometimes("over 16 MiB", self.archive_bytes >= MESSAGE_BYTES_MAX)
            archive = self.rng.randbytes(self.archive_bytes // 2).hex()
            message = evolve(message, archive=archive, archive_filename="run.csv")
            self.archive_bytes = 0
        return self._noted(message)

    def create_notification(self, topic: NotificationTopic, text: str) -> em.WebPushNotificationMsg:
        """Return a notification that is like no other."""
        return self._noted(super().create_notification(topic, f"{text} {self.count()}"))

    def _noted(self, message: MessageT) -> MessageT:
        self.made(message)
        return message

    # Commands

    async def inject_code(self, pcode: str) -> None:
        """Count the command, and carry it out in the mood that the engine is in."""
        self.commands += 1
        if self.mood is not None:
            await self.mood()
