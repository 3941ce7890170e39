"""What an engine sends to the aggregator.

Instants are in seconds since the epoch, as floats. `engine_id` and `sequence_number` of an engine
message are filled in when it is sent: leave them at their defaults.
"""

from attrs import field, frozen

from trio_runner.protocol.messages import MessageBase
from trio_runner.protocol.models import (
    CommandInfo,
    ControlState,
    ErrorLog,
    Method,
    MethodState,
    NotificationTopic,
    PlotConfiguration,
    ReadingInfo,
    RunLog,
    TagValue,
    UodDefinition,
    WebPushNotification,
)


@frozen(kw_only=True)
class EngineMessage(MessageBase):
    """The base of what a registered engine sends.

    `sequence_number` counts the messages of one engine, -1 before it is sent; it stays the same
    when a message is sent again. `engine_id` is the id that the registration gave.
    """

    sequence_number: int = -1
    engine_id: str = ""


@frozen(kw_only=True)
class EngineControlMessage(EngineMessage):
    """The base of messages about the connection."""


@frozen(kw_only=True)
class EngineDataMessage(EngineMessage):
    """The base of messages that carry data; no message of today derives from it."""


@frozen(kw_only=True)
class PingMsg(EngineControlMessage):
    """Says that the engine is there."""


@frozen(kw_only=True)
class RegisterEngineMsg(MessageBase):
    """Who wants to connect; sent over HTTP, before there is an engine id.

    `engine_version` must be the aggregator's version unless `ignore_version_error` is true.
    `secret` must be the aggregator's and is left out of the representation.
    """

    computer_name: str
    uod_name: str
    uod_author_name: str
    uod_author_email: str
    uod_filename: str
    location: str
    engine_version: str
    secret: str = field(default="", repr=False)
    sequence_number: int = -2
    ignore_version_error: bool = False


@frozen(kw_only=True)
class UodInfoMsg(EngineMessage):
    """The description of the unit; first on every connection.

    `data_log_interval_seconds` is the time between two stored samples of a tag, in seconds; it
    must be finite. `required_roles` are the roles of which a person needs one to see the unit; all
    see it if there are none.
    """

    readings: list[ReadingInfo]
    commands: list[CommandInfo]
    uod_definition: UodDefinition
    plot_configuration: PlotConfiguration
    hardware_str: str
    required_roles: frozenset[str]
    data_log_interval_seconds: float


@frozen(kw_only=True)
class TagsUpdatedMsg(EngineMessage):
    """Values of tags; `run_id` is the run in which they were sampled, None outside a run."""

    tags: list[TagValue] = field(factory=list)
    run_id: str | None = None


@frozen(kw_only=True)
class TagsBufferedMsg(EngineMessage):
    """Values of tags sampled earlier, at `tick_time` (seconds since the epoch)."""

    tags: list[TagValue] = field(factory=list)
    tick_time: float


@frozen(kw_only=True)
class RunLogMsg(EngineMessage):
    """The whole run log of the run `run_id`; `id` is the id of the log itself."""

    id: str
    run_id: str
    runlog: RunLog


@frozen(kw_only=True)
class QueuedRunLogMsg(EngineMessage):
    """The commands that wait for a run to begin."""

    runlog: RunLog


@frozen(kw_only=True)
class ErrorLogMsg(EngineMessage):
    """The errors logged since the last such message."""

    log: ErrorLog


@frozen(kw_only=True)
class MethodMsg(EngineMessage):
    """The method as the engine has it."""

    method: Method


@frozen(kw_only=True)
class MethodStateMsg(EngineMessage):
    """Which lines of the method have run and run."""

    method_state: MethodState


@frozen(kw_only=True)
class ControlStateMsg(EngineMessage):
    """Whether a run is on, paused or held."""

    control_state: ControlState


@frozen(kw_only=True)
class RunStartedMsg(EngineMessage):
    """A run has begun, at `started_tick` (seconds since the epoch)."""

    run_id: str
    started_tick: float


@frozen(kw_only=True)
class RunStoppedMsg(EngineMessage):
    """A run has ended, with its final run log and method state.

    `archive` is the text of the run's CSV file, `archive_filename` its name; both are None where
    the engine keeps no archive.
    """

    run_id: str
    runlog: RunLog
    method_state: MethodState
    archive: str | None
    archive_filename: str | None


@frozen(kw_only=True)
class WebPushNotificationMsg(EngineMessage):
    """Tell people something, those who subscribed to `topic`."""

    notification: WebPushNotification
    topic: NotificationTopic
