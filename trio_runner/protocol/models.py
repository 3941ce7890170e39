"""The records that messages consist of, named as in Open Pectus, as are members of enumerations.

Instants are in seconds since the epoch, as floats, unless an attribute says otherwise. Do not
change lists and dictionaries after you have put them into these records.
"""

import time
from enum import StrEnum
from typing import Literal

from attrs import field, frozen

EntryDataType = Literal["str", "int", "float", "auto"]
"""What a person may enter for a reading; with `auto`, the aggregator finds out the type."""


class NotificationTopic(StrEnum):
    """The topics that people can subscribe to."""

    RUN_START = "run_start"
    RUN_STOP = "run_stop"
    RUN_PAUSE = "run_pause"
    BLOCK_START = "block_start"
    NOTIFICATION_CMD = "notification_cmd"
    WATCH_TRIGGERED = "watch_triggered"
    NEW_CONTRIBUTOR = "new_contributor"
    METHOD_ERROR = "method_error"
    NETWORK_ERRORS = "network_errors"


class SystemStateEnum(StrEnum):
    """Values of the tag `System State`."""

    Running = "Running"
    Paused = "Paused"
    Holding = "Holding"
    Waiting = "Waiting"
    Stopped = "Stopped"
    Restarting = "Restarting"


class SystemTagName(StrEnum):
    """Names of the tags that the aggregator knows by name."""

    BASE = "Base"
    RUN_COUNTER = "Run Counter"
    BLOCK = "Block"
    BLOCK_TIME = "Block Time"
    SCOPE_TIME = "Scope Time"
    PROCESS_TIME = "Process Time"
    RUN_TIME = "Run Time"
    CLOCK = "Clock"
    SYSTEM_STATE = "System State"
    METHOD_STATUS = "Method Status"
    CONNECTION_STATUS = "Connection Status"
    RUN_ID = "Run Id"
    BATCH_NAME = "Batch Name"
    MARK = "Mark"
    ARCHIVER = "Archive filename"
    BLOCK_VOLUME = "Block Volume"
    ACCUMULATED_VOLUME = "Accumulated Volume"
    BLOCK_CV = "Block CV"
    ACCUMULATED_CV = "Accumulated CV"


class TagDirection(StrEnum):
    """Where a tag's value comes from: read from the equipment, written to it, or neither."""

    Input = "input"
    Output = "output"
    NA = "na"
    Unspecified = "unspecified"


class MethodStatusEnum(StrEnum):
    """Values of the tag `Method Status`."""

    OK = "OK"
    ERROR = "Error"


@frozen(kw_only=True)
class ProtocolModel:
    """The base of the records that messages consist of."""


@frozen(kw_only=True)
class ReadingCommand(ProtocolModel):
    """A command that the page offers at a reading.

    `command_id` is unique in the unit's description, and `command` is the P-code to run.
    `choice_names` are the keys of the reading's `command_options`, in the order of display.
    """

    command_id: str
    name: str
    command: str
    choice_names: list[str]


@frozen(kw_only=True)
class ReadingInfo(ProtocolModel):
    """A tag as the page shows it, with what a person may do there.

    `discriminator` is `reading`, `reading_with_entry` or `reading_with_choice`. A value may be
    entered in the `valid_value_units` (kg, bar, L/h). `command_options` maps the name of each
    choice to its P-code.
    """

    discriminator: str
    tag_name: str
    valid_value_units: list[str] | None
    entry_data_type: EntryDataType | None
    commands: list[ReadingCommand]
    command_options: dict[str, str] | None


@frozen(kw_only=True)
class CommandInfo(ProtocolModel):
    """A command of the unit and its documentation, which holds an example for the page."""

    name: str
    docstring: str | None


@frozen(kw_only=True)
class TagValue(ProtocolModel):
    """The value of a tag at an instant.

    `tick_time` is in seconds since the epoch. `value` is in `value_unit` (None: no unit); it is
    None if there is no value, and an int stays an int on the wire. `value_formatted` is for
    display.
    """

    name: str = ""
    tick_time: float
    value: float | int | str | None = None
    value_unit: str | None
    value_formatted: str | None = None
    direction: TagDirection = TagDirection.Unspecified
    simulated: bool | None = None


@frozen(kw_only=True)
class RunLogLine(ProtocolModel):
    """An instruction that was, is or will be carried out.

    `start` and `end` are in seconds since the epoch (`end` is None until it has ended). `progress`
    is from 0 to 1 (None: unknown). `start_values` and `end_values` are the tags at these instants.
    The flags say what a person may do to the instruction and what became of it.
    """

    id: str
    command_name: str
    start: float
    end: float | None
    progress: float | None
    start_values: list[TagValue]
    end_values: list[TagValue]
    forcible: bool | None = None
    cancellable: bool | None = None
    forced: bool | None = None
    cancelled: bool | None = None
    failed: bool | None = None


@frozen(kw_only=True)
class RunLog(ProtocolModel):
    """The instructions of a run in the order in which they began."""

    lines: list[RunLogLine]


@frozen(kw_only=True)
class MethodLine(ProtocolModel):
    """A line of P-code; it keeps its `id` when other lines are inserted before it."""

    id: str
    content: str


@frozen(kw_only=True)
class Method(ProtocolModel):
    """A method; `version` grows by one with every edit."""

    version: int
    lines: list[MethodLine]


@frozen(kw_only=True)
class MethodState(ProtocolModel):
    """The ids of the method's lines by state, so that the page can colour and lock them."""

    started_line_ids: list[str]
    executed_line_ids: list[str]
    injected_line_ids: list[str]
    content_locked_line_ids: list[str]
    locked_line_ids: list[str]
    failed_line_ids: list[str]

    @classmethod
    def untouched(cls) -> "MethodState":
        """Return the state of a method none of whose lines has run."""
        return cls(
            started_line_ids=[],
            executed_line_ids=[],
            injected_line_ids=[],
            content_locked_line_ids=[],
            locked_line_ids=[],
            failed_line_ids=[],
        )


@frozen(kw_only=True)
class ControlState(ProtocolModel):
    """Whether a run is on, and whether it is held or paused."""

    is_running: bool
    is_holding: bool
    is_paused: bool


@frozen(kw_only=True)
class PlotColorRegion(ProtocolModel):
    """The background colours of the plot, by the value of a tag.

    `value_color_map` maps a value, written as text, to a CSS colour.
    """

    process_value_name: str
    value_color_map: dict[str, str]


@frozen(kw_only=True)
class PlotAxis(ProtocolModel):
    """An axis; `y_min` and `y_max` are in the unit of its tags, `color` is a CSS colour."""

    label: str
    process_value_names: list[str]
    y_max: int | float
    y_min: int | float
    color: str


@frozen(kw_only=True)
class SubPlot(ProtocolModel):
    """One of several plots stacked above each other; `ratio` is its relative height."""

    axes: list[PlotAxis]
    ratio: int | float


@frozen(kw_only=True)
class PlotConfiguration(ProtocolModel):
    """How the page plots the unit's tags; the lists hold names of tags."""

    process_value_names_to_annotate: list[str]
    color_regions: list[PlotColorRegion]
    sub_plots: list[SubPlot]
    x_axis_process_value_names: list[str]


@frozen(kw_only=True)
class ErrorLogEntry(ProtocolModel):
    """An entry of the error log.

    `created_time` is in seconds since the epoch. `severity` is a level of Python's logging (30 is a
    warning, 40 an error).
    """

    message: str
    created_time: float
    severity: int


@frozen(kw_only=True)
class ErrorLog(ProtocolModel):
    """Entries of the error log, oldest first."""

    entries: list[ErrorLogEntry]


@frozen(kw_only=True)
class TagDefinition(ProtocolModel):
    """A tag that P-code may name; `unit` is None for a tag without a unit."""

    name: str
    unit: str | None = None


@frozen(kw_only=True)
class CommandDefinition(ProtocolModel):
    """A command that P-code may use.

    `validator` checks the argument; it is in Open Pectus's text form (None: no check). `docstring`
    is the documentation that the editor shows.
    """

    name: str
    validator: str | None
    docstring: str | None


@frozen(kw_only=True)
class UodDefinition(ProtocolModel):
    """What P-code for this unit may use: the unit's commands, the system commands, and its tags."""

    commands: list[CommandDefinition]
    system_commands: list[CommandDefinition]
    tags: list[TagDefinition]


@frozen(kw_only=True)
class WebPushAction(ProtocolModel):
    """A button of a notification; `icon` is a URL."""

    action: Literal["navigate"]
    title: str
    icon: str | None = None


@frozen(kw_only=True)
class WebPushData(ProtocolModel):
    """Where a click on a notification leads; the aggregator fills it in."""

    process_unit_id: str | None = None
    contributor_id: str | None = None


def _now_ms() -> int:
    """Return the time in milliseconds since the epoch."""
    return time.time_ns() // 1_000_000


@frozen(kw_only=True)
class WebPushNotification(ProtocolModel):
    """A notification in a browser, with the same fields as the browser's own.

    `timestamp` is in milliseconds since the epoch; the default is now. `vibrate` is a pattern of
    milliseconds on and off. Neither may be negative. `badge`, `icon` and `image` are URLs.
    `renotify` needs a `tag`.
    """

    actions: list[WebPushAction] = field(factory=list)
    badge: str | None = None
    body: str | None = None
    data: WebPushData = field(factory=WebPushData)
    icon: str | None = "/assets/icons/icon-192x192.png"
    image: str | None = None
    renotify: bool | None = None
    requireInteraction: bool | None = None  # noqa: N815 - the wire has the browsers' spelling
    silent: bool | None = None
    tag: str | None = None
    timestamp: int | None = field(factory=_now_ms)
    title: str
    vibrate: list[int] | None = None
