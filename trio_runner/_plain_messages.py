"""The messages of an engine that shows its tags, has no run or method, and takes no commands."""

import socket
import time
from collections.abc import Callable

from attrs import define, field

from trio_runner._engine import EventListener
from trio_runner._errors import CommandError
from trio_runner.protocol import OPENPECTUS_VERSION
from trio_runner.protocol import engine_messages as em
from trio_runner.protocol import models as mdl
from trio_runner.protocol.models import NotificationTopic as Topic


@define(eq=False, slots=False)
class PlainMessages:
    """Message builder, event emitter and command handlers of an engine that only shows its tags."""

    name: str = "Unit"
    location: str = field(default="", kw_only=True)
    author_name: str = field(default="", kw_only=True)
    author_email: str = field(default="", kw_only=True)
    secret: str = field(default="", repr=False, kw_only=True)
    version: str = field(default=OPENPECTUS_VERSION, kw_only=True)
    ignore_version_error: bool = field(default=False, kw_only=True)
    computer_name: str = field(factory=socket.gethostname, kw_only=True)
    data_log_interval_s: float = field(default=5.0, kw_only=True)
    clock: Callable[[], float] = field(default=time.time, kw_only=True)
    listeners: list[EventListener] = field(factory=list, init=False)
    _told: dict[str, object] = field(factory=dict, init=False)

    def read_tags(self) -> list[mdl.TagValue]:
        """Return the tags as they are now. A derived engine must override this."""
        raise NotImplementedError("an engine must give its tags")

    # Events

    def add_listener(self, listener: EventListener) -> None:
        """See `EventEmitter`; the engine calls the methods of all `listeners`."""
        self.listeners.append(listener)

    # Messages

    def create_register_engine_msg(self) -> em.RegisterEngineMsg:
        """Return the engine's registration."""
        return em.RegisterEngineMsg(
            computer_name=self.computer_name,
            uod_name=self.name,
            uod_author_name=self.author_name,
            uod_author_email=self.author_email,
            uod_filename="",
            location=self.location,
            engine_version=self.version,
            secret=self.secret,
            ignore_version_error=self.ignore_version_error,
        )

    def create_uod_info(self) -> em.UodInfoMsg:
        """Return a unit that shows all its tags, has no commands and plots nothing."""
        tags = self.read_tags()
        return em.UodInfoMsg(
            readings=[_reading(tag) for tag in tags],
            commands=[],
            uod_definition=mdl.UodDefinition(
                commands=[],
                system_commands=[],
                tags=[mdl.TagDefinition(name=tag.name, unit=tag.value_unit) for tag in tags],
            ),
            plot_configuration=mdl.PlotConfiguration(
                process_value_names_to_annotate=[],
                color_regions=[],
                sub_plots=[],
                x_axis_process_value_names=[],
            ),
            hardware_str="",
            required_roles=frozenset(),
            data_log_interval_seconds=self.data_log_interval_s,
        )

    def create_tag_updates_msg(self, run_id: str | None) -> em.TagsUpdatedMsg | None:
        """Return the tags whose values changed since the last message, or None if none did."""
        tags = [tag for tag in self.read_tags() if self._told.get(tag.name, self) != tag.value]
        self._told.update((tag.name, tag.value) for tag in tags)
        return em.TagsUpdatedMsg(tags=tags, run_id=run_id) if tags else None

    def create_tag_updates_snapshot_msg(self) -> em.TagsUpdatedMsg:
        """Return all tags."""
        tags = self.read_tags()
        self._told.update((tag.name, tag.value) for tag in tags)
        return em.TagsUpdatedMsg(tags=tags)

    def create_runlog_msg(self, run_id: str) -> em.RunLogMsg:
        """Return an empty run log."""
        return em.RunLogMsg(id="", run_id=run_id, runlog=mdl.RunLog(lines=[]))

    def create_queued_runlog_msg(self) -> em.QueuedRunLogMsg | None:
        """Return None, since no command waits."""
        return None

    def create_error_log_msg(self) -> em.ErrorLogMsg | None:
        """Return None, since no error was logged."""
        return None

    def create_control_state_msg(self) -> em.ControlStateMsg:
        """Return that no run is on."""
        stopped = mdl.ControlState(is_running=False, is_holding=False, is_paused=False)
        return em.ControlStateMsg(control_state=stopped)

    def create_method_state_msg(self) -> em.MethodStateMsg:
        """Return that no line of the method has run."""
        return em.MethodStateMsg(method_state=mdl.MethodState.untouched())

    def create_method_msg(self) -> em.MethodMsg:
        """Return a method of one empty line, since the aggregator refuses one without lines."""
        lines = [mdl.MethodLine(id="0", content="")]
        return em.MethodMsg(method=mdl.Method(version=0, lines=lines))

    def create_run_started_msg(self, run_id: str, tick_time: float) -> em.RunStartedMsg:
        """Return the report that a run began at `tick_time` (seconds since the epoch)."""
        return em.RunStartedMsg(run_id=run_id, started_tick=tick_time)

    def create_run_stopped_msg(self, run_id: str) -> em.RunStoppedMsg:
        """Return the report that the run has ended, with run log and method state, no archive."""
        return em.RunStoppedMsg(
            run_id=run_id,
            runlog=self.create_runlog_msg(run_id).runlog,
            method_state=self.create_method_state_msg().method_state,
            archive=None,
            archive_filename=None,
        )

    # Notifications

    def create_wpn_run_started_msg(self) -> em.WebPushNotificationMsg:
        """Return the notification that a run began."""
        return self.create_notification(Topic.RUN_START, "Run started.")

    def create_wpn_run_stopped_msg(self) -> em.WebPushNotificationMsg:
        """Return the notification that the run has ended."""
        return self.create_notification(Topic.RUN_STOP, "Run has stopped.")

    def create_wpn_run_paused_msg(self) -> em.WebPushNotificationMsg:
        """Return the notification that the run was paused."""
        return self.create_notification(Topic.RUN_PAUSE, "Run has been paused.")

    def create_wpn_block_started_msg(self, block_name: str) -> em.WebPushNotificationMsg:
        """Return the notification that a block began."""
        return self.create_notification(Topic.BLOCK_START, f'Block "{block_name}" is now running.')

    def create_wpn_notify_command_msg(self, text: str) -> em.WebPushNotificationMsg:
        """Return the notification that the method asked for."""
        return self.create_notification(Topic.NOTIFICATION_CMD, text)

    def create_wpn_watch_activated_msg(self, watch_argument: str) -> em.WebPushNotificationMsg:
        """Return the notification that a watch's condition came true."""
        text = f"Watch condition triggered: {watch_argument}"
        return self.create_notification(Topic.WATCH_TRIGGERED, text)

    def create_wpn_method_error_msg(self) -> em.WebPushNotificationMsg:
        """Return the notification that the method failed."""
        return self.create_notification(Topic.METHOD_ERROR, "Error in method. Run paused.")

    def create_wpn_network_error_msg(self) -> em.WebPushNotificationMsg:
        """Return the notification that the equipment was lost."""
        text = "Connection between Open Pectus and equipment has been lost."
        return self.create_notification(Topic.NETWORK_ERRORS, text)

    def create_notification(self, topic: Topic, text: str) -> em.WebPushNotificationMsg:
        """Return a notification for the people who subscribed to a topic."""
        now_ms = int(self.clock() * 1000)
        return em.WebPushNotificationMsg(
            notification=mdl.WebPushNotification(title=self.name, body=text, timestamp=now_ms),
            topic=topic,
        )

    # Commands

    async def execute_control_command(self, name: str) -> None:
        """Raise CommandError: there are no commands."""
        raise CommandError(f"{self.name} has no command {name}")

    async def inject_code(self, pcode: str) -> None:
        """Raise CommandError: code is not run."""
        raise CommandError(f"{self.name} runs no code")

    async def set_method(self, method: mdl.Method) -> None:
        """Raise CommandError: methods are not run."""
        raise CommandError(f"{self.name} runs no method")

    async def cancel(self, exec_id: str) -> None:
        """Raise CommandError: nothing runs."""
        raise CommandError(f"{self.name} runs nothing that could be cancelled")

    async def force(self, exec_id: str) -> None:
        """Raise CommandError: nothing runs."""
        raise CommandError(f"{self.name} runs nothing that could be forced")


def _reading(tag: mdl.TagValue) -> mdl.ReadingInfo:
    return mdl.ReadingInfo(
        discriminator="reading",
        tag_name=tag.name,
        valid_value_units=None,
        entry_data_type=None,
        commands=[],
        command_options=None,
    )
