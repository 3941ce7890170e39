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
    """A message as it came in; `time_s` is trio's clock, `refused` is why it had no effect."""

    message: em.EngineMessage
    connection: int
    time_s: float
    refused: str | None

    @property
    def sequence_number(self) -> int:
        """Return the engine's count of its messages; the same when a message is sent again."""
        return self.message.sequence_number


@frozen
class Registration:
    """A registration and its answer; `time_s` is trio's clock."""

    message: em.RegisterEngineMsg
    reply: am.RegisterEngineReplyMsg
    time_s: float


@define(eq=False)
class Connection:
    """A websocket; times are trio's clock, `engine_id` is None until the engine has said it."""

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
    """The active run; times are in seconds since the epoch, `stored_until` None if none is."""

    run_id: str
    started_tick: float
    run_log: mdl.RunLog = NO_LINES
    stored_until: float | None = None


@define
class LoggedError:
    """An error that was logged, so often in a row; `created_time` is the last time (s)."""

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
    """What the aggregator knows of an engine; it knows nothing more after the next registration."""

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
        """Return the names of the tags of which samples are stored."""
        return set(_plotted(self.uod_info)) if self.uod_info else set()

    def end_run(self) -> None:
        """Forget what belongs to the run."""
        self.run = None
        self.control_state = NOT_RUNNING
        self.method_state = mdl.MethodState.untouched()
        self.error_log = []


@define(eq=False)
class EngineRecord:
    """All that one engine ever sent, and what the aggregator makes of it.

    `unit` is the aggregator's view; after a disconnect it stays as it was last, until the engine
    registers anew.
    """

    engine_id: str
    registered: bool = False
    unit: Unit = field(factory=Unit)
    received: list[Received] = field(factory=list)
    registrations: list[Registration] = field(factory=list)
    connections: list[Connection] = field(factory=list)
    notifications: list[em.WebPushNotificationMsg] = field(factory=list)

    def messages(self, kind: type[MessageT]) -> list[MessageT]:
        """Return the messages of one type in the order of arrival, the refused ones included."""
        return [item.message for item in self.received if isinstance(item.message, kind)]

    @property
    def refused(self) -> list[Received]:
        """Return what had no effect."""
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
