"""What the aggregator stand-in keeps, for a test to look at."""

from collections.abc import Iterator
from typing import TypeVar

from attrs import define, field, frozen

from trio_runner.protocol import aggregator_messages as am
from trio_runner.protocol import engine_messages as em
from trio_runner.protocol import models as mdl

MessageT = TypeVar("MessageT", bound=em.EngineMessage)

NOT_RUNNING = mdl.ControlState(is_running=False, is_holding=False, is_paused=False)
NO_LINES = mdl.RunLog(lines=[])


@frozen
class Received:
    """A received message; `time_s` is on Trio's clock, `refused` says why it had no effect."""

    message: em.EngineMessage
    connection: int
    time_s: float
    refused: str | None

    @property
    def sequence_number(self) -> int:
        """The engine's number of the message, which is the same when a message is sent again."""
        return self.message.sequence_number


@frozen
class Registration:
    """A registration and its answer; `time_s` is on Trio's clock."""

    message: em.RegisterEngineMsg
    reply: am.RegisterEngineReplyMsg
    time_s: float


@define(eq=False)
class Connection:
    """A websocket; times are on Trio's clock, `engine_id` is None until the engine has said it."""

    number: int
    opened_s: float
    engine_id: str | None = None
    closed_s: float | None = None


@frozen
class Sample:
    """A stored value of a tag; `tick_time` is in seconds since the epoch."""

    tick_time: float
    value: float | int | str | None


@define(eq=False)
class Run:
    """The active run; times are in seconds since the epoch.

    `stored_until` is None before the first sample is stored.
    """

    run_id: str
    started_tick: float
    run_log: mdl.RunLog = NO_LINES
    stored_until: float | None = None


@define
class LoggedError:
    """An error, and how often it was logged in a row; `created_time` is the last time (s)."""

    message: str
    created_time: float
    severity: int
    occurrences: int = 1


@frozen
class RecentRun:
    """A run that has ended, as the page lists it."""

    engine_id: str
    run_id: str
    started_tick: float
    run_log: mdl.RunLog
    method: mdl.Method
    method_state: mdl.MethodState
    error_log: list[LoggedError]
    archive: str | None
    archive_filename: str | None


@define(eq=False)
class Unit:
    """What the aggregator knows of an engine; the next registration keeps nothing but the run."""

    run: Run | None = None
    uod_info: em.UodInfoMsg | None = None
    method: mdl.Method = field(factory=lambda: mdl.Method(version=0, lines=[]))
    control_state: mdl.ControlState = NOT_RUNNING
    method_state: mdl.MethodState = field(factory=mdl.MethodState.untouched)
    queued_run_log: mdl.RunLog = NO_LINES
    error_log: list[LoggedError] = field(factory=list)
    tags: dict[str, mdl.TagValue] = field(factory=dict)

    @property
    def plotted(self) -> set[str]:
        """The names of the tags whose samples are stored."""
        return set(_plotted(self.uod_info)) if self.uod_info else set()

    def end_run(self) -> None:
        """Forget what belongs to the run."""
        self.run = None
        self.control_state = NOT_RUNNING
        self.method_state = mdl.MethodState.untouched()
        self.error_log = []


@define(eq=False)
class EngineRecord:
    """Everything that one engine ever sent, and what the aggregator makes of it.

    `unit` is the aggregator's view. After a disconnect it stays as it was, until the engine
    registers again.
    """

    engine_id: str
    registered: bool = False
    unit: Unit = field(factory=Unit)
    received: list[Received] = field(factory=list)
    registrations: list[Registration] = field(factory=list)
    connections: list[Connection] = field(factory=list)
    notifications: list[em.WebPushNotificationMsg] = field(factory=list)

    def messages(self, kind: type[MessageT]) -> list[MessageT]:
        """Return the messages of one type in the order of arrival, including the refused ones."""
        return [item.message for item in self.received if isinstance(item.message, kind)]

    @property
    def refused(self) -> list[Received]:
        """The messages that had no effect."""
        return [item for item in self.received if item.refused is not None]


def _plotted(info: em.UodInfoMsg) -> Iterator[str]:
    for reading in info.readings:
        yield reading.tag_name
    plot = info.plot_configuration
    yield from plot.process_value_names_to_annotate
    for region in plot.color_regions:
        yield region.process_value_name
    for sub_plot in plot.sub_plots:
        for axis in sub_plot.axes:
            yield from axis.process_value_names
