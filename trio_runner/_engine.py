"""What an engine provides to be run: its messages, events and commands, as typing Protocols.

The names are those of Open Pectus, so that people who know its engine know these. An engine in
Trio's thread and an engine in another thread are served alike. The runner calls the message builder
in Trio's thread, with one exception: the event methods build their messages at the moment of the
event, in the thread that calls them.
"""

from enum import StrEnum
from typing import Literal, Protocol

from trio_runner.protocol import engine_messages as em
from trio_runner.protocol import models as mdl

ConnectionStatus = Literal["Connected", "Disconnected"]
"""The state of the connection between the engine and its equipment."""


class RunStateChange(StrEnum):
    """A change within a run that listeners are told of."""

    PAUSE = "Pause"
    UNPAUSE = "Unpause"


class BlockInfo(Protocol):
    """A block of the method that has begun."""

    @property
    def name(self) -> str:
        """The name of the block, as in the method."""


class ScopeInfo(Protocol):
    """A part of the method that runs as a whole: the program, a block, a watch, an alarm."""

    @property
    def scope_type(self) -> str:
        """One of `Program`, `Block`, `Watch`, `Alarm`."""

    @property
    def argument(self) -> str:
        """What follows the scope's name: a block's name, a watch's condition."""


class EventListener(Protocol):
    """What listens to an engine, as `EngineRunner` does; any thread may call the methods."""

    def on_start(self, run_id: str) -> None:
        """Note that the run with this id has begun."""

    def on_stop(self) -> None:
        """Note that the run has ended."""

    def on_runstate_change(self, state_change: RunStateChange) -> None:
        """Note that the run was paused or goes on."""

    def on_block_start(self, block_info: BlockInfo) -> None:
        """Note that a block has begun."""

    def on_notify_command(self, argument: str) -> None:
        """Note that the method wants a person to be told something."""

    def on_scope_activate(self, scope_info: ScopeInfo) -> None:
        """Note that a scope's condition has come true."""

    def on_method_error(self, exception: Exception) -> None:
        """Note that the method failed; the run may have been paused by that."""

    def on_connection_status_change(self, status: ConnectionStatus) -> None:
        """Note that the equipment was lost or found again."""


class EventEmitter(Protocol):
    """Where listeners subscribe to an engine's events."""

    def add_listener(self, listener: EventListener) -> None:
        """Call the listener's methods from now on, for as long as the engine lives."""


class MessageBuilder(Protocol):
    """Makes the messages that tell what the engine is and does.

    The runner fills in `engine_id`, `sequence_number` and the `run_id` of tag messages. A method
    must return at once, since Trio's thread waits for it.

    If a method raises or returns anything else, the unit's people are told, and the runner goes on:
    with the last state that could be made, with the beginning or the end of a run as the runner
    knows it, or without the message. Only when the runner is made does an exception reach its
    maker.
    """

    def create_register_engine_msg(self) -> em.RegisterEngineMsg:
        """Return the engine's registration, with the aggregator's secret."""

    def create_uod_info(self) -> em.UodInfoMsg:
        """Return the description of the unit: readings, commands, plot."""

    def create_tag_updates_msg(self, run_id: str | None) -> em.TagsUpdatedMsg | None:
        """Return the tags that changed since the last call, or None if none did."""

    def create_tag_updates_snapshot_msg(self) -> em.TagsUpdatedMsg:
        """Return all tags, changed or not."""

    def create_runlog_msg(self, run_id: str) -> em.RunLogMsg:
        """Return the run log of the run that is on."""

    def create_queued_runlog_msg(self) -> em.QueuedRunLogMsg | None:
        """Return the commands that wait for a run to begin, or None if none do."""

    def create_error_log_msg(self) -> em.ErrorLogMsg | None:
        """Return the errors logged since the last call, or None if there are none."""

    def create_control_state_msg(self) -> em.ControlStateMsg:
        """Return whether a run is on, paused or held."""

    def create_method_state_msg(self) -> em.MethodStateMsg:
        """Return which lines of the method have run and which are running."""

    def create_method_msg(self) -> em.MethodMsg:
        """Return the method."""

    def create_run_started_msg(self, run_id: str, tick_time: float) -> em.RunStartedMsg:
        """Return the report that a run began at `tick_time` (seconds since the epoch)."""

    def create_run_stopped_msg(self, run_id: str) -> em.RunStoppedMsg:
        """Return the report that the run has ended, with its final run log, state and archive."""

    def create_wpn_run_started_msg(self) -> em.WebPushNotificationMsg:
        """Return the notification for people that a run began."""

    def create_wpn_run_stopped_msg(self) -> em.WebPushNotificationMsg:
        """Return the notification for people that the run has ended."""

    def create_wpn_run_paused_msg(self) -> em.WebPushNotificationMsg:
        """Return the notification for people that the run was paused."""

    def create_wpn_block_started_msg(self, block_name: str) -> em.WebPushNotificationMsg:
        """Return the notification for people that a block began."""

    def create_wpn_notify_command_msg(self, text: str) -> em.WebPushNotificationMsg:
        """Return the notification that the method itself asked for."""

    def create_wpn_watch_activated_msg(self, watch_argument: str) -> em.WebPushNotificationMsg:
        """Return the notification for people that a watch's condition came true."""

    def create_wpn_method_error_msg(self) -> em.WebPushNotificationMsg:
        """Return the notification for people that the method failed."""

    def create_wpn_network_error_msg(self) -> em.WebPushNotificationMsg:
        """Return the notification for people that the equipment was lost."""


class CommandHandlers(Protocol):
    """Carries out what people ask for at the aggregator's web page.

    A handler that returns has accepted the command. Raise `CommandError` to tell the person why it
    cannot be done. A handler has 1.5 s (`Timing.answer_s`); then it is cancelled and the person is
    told so. Hand longer work to one of the engine's own tasks.

    A handler runs on when the link is lost. Whatever it raises, at any time, is logged. One that
    does not end when cancelled holds up nobody, and is left behind at the runner's end, but counts
    among the 16 that may be under way. Only `trio.run` waits for it, at its own end: so wait in
    threads with `abandon_on_cancel=True`.
    """

    async def execute_control_command(self, name: str) -> None:
        """Carry out one of Start, Stop, Pause, Unpause, Hold, Unhold, Restart."""

    async def inject_code(self, pcode: str) -> None:
        """Run these lines of P-code alongside the method."""

    async def set_method(self, method: mdl.Method) -> None:
        """Take this method in place of the present one."""

    async def cancel(self, exec_id: str) -> None:
        """Cancel the instruction with this id in the run log."""

    async def force(self, exec_id: str) -> None:
        """End the wait of the instruction with this id in the run log."""
