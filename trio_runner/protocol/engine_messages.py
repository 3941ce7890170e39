"""What an engine sends to the aggregator.

Instants are in seconds since the epoch, as floats. The `engine_id` and `sequence_number` of an
engine message are filled in when it is sent; leave them at their defaults.
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
    """The base of all messages that a registered engine sends.

    `sequence_number` counts the messages of one engine. It is -1 before a message is sent, and
    stays the same when the message is sent again. `engine_id` is the id from the registration.
    """

    sequence_number: int = -1
    engine_id: str = ""


@frozen(kw_only=True)
class EngineControlMessage(EngineMessage):
    """The base of messages about the connection."""


@frozen(kw_only=True)
class EngineDataMessage(EngineMessage):
    """The base of messages that carry data; so far no message derives from it."""


@frozen(kw_only=True)
class PingMsg(EngineControlMessage):
    """Says that the engine is there."""


@frozen(kw_only=True)
class RegisterEngineMsg(MessageBase):
    """An engine's request to connect; it is sent over HTTP, before there is an engine id.

    `engine_version` must be the aggregator's version unless `ignore_version_error` is true.
    `secret` must be the aggregator's; `repr` does not show it.
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
    """The description of the unit, the first message on every link.

    `data_log_interval_seconds` is the time between two stored samples of a tag, in seconds; it must
    be finite. A person needs one of the `required_roles` to see the unit; if there are none,
    everybody sees it.
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
    """Values of tags; `run_id` is the run in which they were sampled, or None outside a run."""

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
    """Which lines of the method have run and which are running."""

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

    `archive` is the text of the run's CSV file and `archive_filename` its name. Both are None if
    the engine keeps no archive.
    """

    run_id: str
    runlog: RunLog
    method_state: MethodState
    archive: str | None
    archive_filename: str | None


@frozen(kw_only=True)
class WebPushNotificationMsg(EngineMessage):
    """A notification for the people who subscribed to `topic`."""

    notification: WebPushNotification
    topic: NotificationTopic
