"""The package's message builder, with the interface and the safety that the runner needs."""

import logging
import math
import sys
from collections.abc import Callable
from typing import Any, TypeVar

from attrs import evolve
from openpectus.engine.engine import Engine
from openpectus.engine.engine_message_builder import EngineMessageBuilder
from openpectus.protocol import engine_messages as package
from openpectus.protocol import models as package_models

from trio_runner._mistakes import FAILS
from trio_runner._plain_messages import PlainMessages
from trio_runner._say_once import SayOnce
from trio_runner.bridge._logging import with_own_error_log
from trio_runner.bridge._package import OPENPECTUS_VERSION
from trio_runner.bridge._run_log import RunLogs
from trio_runner.bridge._wire import to_ours
from trio_runner.protocol import MessageBase, encode, encode_body, foreign
from trio_runner.protocol import engine_messages as em
from trio_runner.protocol import models as mdl

logger = logging.getLogger(__name__)

M = TypeVar("M", bound=MessageBase)

TRIES = 3
"""How often to try to make a message: the engine's thread may change what we are reading."""


def again(create: Callable[..., Any], *arguments: object) -> Any:
    """Return the result of `create`, called up to `TRIES` times until it does not raise.

    Raises the exception of the last call.
    """
    for _ in range(TRIES - 1):
        try:
            return create(*arguments)
        except FAILS as error:
            logger.debug("Asking %s again after %r", create, error)
    return create(*arguments)


class _Builder(EngineMessageBuilder):  # type: ignore[misc]
    """The package's builder, changed where an aggregator needs it.

    A method without lines gets an empty line. Aggregators refuse a method without lines, and this
    would be an error in the log at every connection. After some errors in a method, the run log
    cannot be made. The last one is used then, so that the end of the run can still be told.
    """

    last: Any = None
    """The last run log that was made, as the package's message or as ours."""

    def __init__(self, *arguments: Any, **named: Any) -> None:
        super().__init__(*arguments, **named)
        self._say = SayOnce(logger)  # a run log that fails will fail until the run has ended

    def create_register_engine_msg(self) -> Any:
        return super().create_register_engine_msg(**self.engine.uod.options)

    def create_method_msg(self) -> Any:
        made = super().create_method_msg()
        if not made.method.lines:
            made.method.lines = [package_models.MethodLine(id="0", content="")]
        return made

    def create_runlog_msg(self, run_id: str) -> Any:
        try:
            made = again(super().create_runlog_msg, run_id)
        except FAILS as error:
            self._say(
                logging.ERROR, "The engine could not give its run log: %r", error, about="run log"
            )
            made = self.last  # read it only once: the engine's thread may be here too
            if made is None or made.run_id != run_id:
                return package.RunLogMsg(id="", run_id=run_id, runlog={"lines": []})
            if isinstance(made, em.RunLogMsg):
                made = package.RunLogMsg.model_validate_json(encode_body(made))
        self.last = made
        return made


class _Unable(PlainMessages):
    """Makes the messages that the engine cannot make and has never made before."""

    def __init__(self, engine: Any, secret: str, ignore_version_error: bool) -> None:
        super().__init__(
            str(engine.uod.instrument),
            secret=secret,
            version=OPENPECTUS_VERSION,
            ignore_version_error=ignore_version_error,
        )
        self._uod = engine.uod

    def read_tags(self) -> list[mdl.TagValue]:
        return []

    def create_uod_info(self) -> em.UodInfoMsg:
        # Even so, only people whom the definition allows may see the unit.
        roles = frozenset(self._uod.required_roles)
        return evolve(super().create_uod_info(), required_roles=roles)


class UodMessageBuilder:
    """Asks the package's builder; see `trio_runner.MessageBuilder` for what each method returns.

    The engine controls a process. So a message that cannot be made is logged once and does not end
    the runner. In place of a state message, the last one that could be made is sent again; in place
    of an event, one with what is known. Tags, errors and queued commands are left out. A message
    for which an older version of the package has no method is treated in the same way.
    """

    def __init__(self, engine: Engine, secret: str, ignore_version_error: bool) -> None:
        self._engine: Any = engine
        self._builder: Any = _Builder(engine, secret, ignore_version_error)
        self._run_logs = RunLogs(engine)
        self._unable = _Unable(engine, secret, ignore_version_error)
        self._last: dict[type[MessageBase], Any] = {}
        self._has_ticked = False
        self._tags_told = False
        self._say = SayOnce(logger)  # a message that fails is asked for several times a second

    # Identity

    def create_register_engine_msg(self) -> em.RegisterEngineMsg:
        """Return the registration of this engine."""
        return self._state(em.RegisterEngineMsg, "create_register_engine_msg")

    def create_uod_info(self) -> em.UodInfoMsg:
        """Return the description of the unit."""
        made = self._state(em.UodInfoMsg, "create_uod_info")
        interval_s = made.data_log_interval_seconds
        if interval_s is not None and math.isfinite(interval_s):
            return made
        # An infinite interval means that nothing is stored. JSON has no such number, and
        # aggregators refuse a description without the interval.
        return evolve(made, data_log_interval_seconds=sys.float_info.max)

    # Tags

    def create_tag_updates_msg(self, run_id: str | None) -> em.TagsUpdatedMsg | None:
        """Return the tags that changed, or None if none did.

        Before the engine's first tick, tags have no time and are not told. After it, the first
        message has all tags.
        """
        if not self._ticks():
            return None
        if not self._tags_told:
            return self.create_tag_updates_snapshot_msg()
        try:
            message = self._builder.create_tag_updates_msg(run_id)
            return None if message is None else to_ours(message, em.TagsUpdatedMsg)
        except FAILS as error:
            self._complain("the tags that changed", error)
            return self.create_tag_updates_snapshot_msg()  # which tags had changed is lost

    def create_tag_updates_snapshot_msg(self) -> em.TagsUpdatedMsg:
        """Return all tags, none before the engine's first tick."""
        nothing = em.TagsUpdatedMsg(tags=[])
        if not self._ticks():
            return nothing
        made = self._ask(em.TagsUpdatedMsg, "create_tag_updates_snapshot_msg")
        self._tags_told = made is not None
        return made or nothing

    def _ticks(self) -> bool:
        self._has_ticked = self._has_ticked or self._engine._tick_number >= 0
        return self._has_ticked

    # States

    def create_runlog_msg(self, run_id: str) -> em.RunLogMsg:
        """Return the current run's log; its progress may be a few seconds old, see `RunLogs`."""
        try:
            made = self._run_logs.create(run_id)
        except FAILS as error:
            logger.debug("Making the whole run log anew after %r", error)
            return self._whole_run_log(run_id)
        self._builder.last = made
        return made

    def _whole_run_log(self, run_id: str) -> em.RunLogMsg:
        return self._event(em.RunLogMsg, "create_runlog_msg", run_id)

    def create_queued_runlog_msg(self) -> em.QueuedRunLogMsg | None:
        """Return the commands that wait for a run to begin, None if none do."""
        return self._ask(em.QueuedRunLogMsg, "create_queued_runlog_msg")

    def create_error_log_msg(self) -> em.ErrorLogMsg | None:
        """Return what was logged for this unit's people since the last call, None if nothing."""
        return with_own_error_log(self, lambda: self._ask(em.ErrorLogMsg, "create_error_log_msg"))

    def create_control_state_msg(self) -> em.ControlStateMsg:
        """Return whether a run is on, paused or held."""
        return self._state(em.ControlStateMsg, "create_control_state_msg")

    def create_method_state_msg(self) -> em.MethodStateMsg:
        """Return which lines of the method have run and which are running."""
        return self._state(em.MethodStateMsg, "create_method_state_msg")

    def create_method_msg(self) -> em.MethodMsg:
        """Return the method; an empty one has an empty line."""
        return self._state(em.MethodMsg, "create_method_msg")

    # Runs

    def create_run_started_msg(self, run_id: str, tick_time: float) -> em.RunStartedMsg:
        """Return the event that a run began at `tick_time` (seconds since the epoch)."""
        return self._event(em.RunStartedMsg, "create_run_started_msg", run_id, tick_time)

    def create_run_stopped_msg(self, run_id: str) -> em.RunStoppedMsg:
        """Return the event that the run has ended; without the archive if that cannot be read."""
        made = self._ask(em.RunStoppedMsg, "create_run_stopped_msg", run_id)
        return made or self._without_archive(run_id)

    def _without_archive(self, run_id: str) -> em.RunStoppedMsg:
        obj = encode(self._unable.create_run_stopped_msg(run_id))
        obj["runlog"] = encode(self._whole_run_log(run_id))["runlog"]
        obj["method_state"] = encode(self.create_method_state_msg())["method_state"]
        return foreign(obj, em.RunStoppedMsg)

    # Notifications

    def create_wpn_run_started_msg(self) -> em.WebPushNotificationMsg:
        """Return the notification that a run began."""
        return self._notification("create_wpn_run_started_msg")

    def create_wpn_run_stopped_msg(self) -> em.WebPushNotificationMsg:
        """Return the notification that the run has ended."""
        return self._notification("create_wpn_run_stopped_msg")

    def create_wpn_run_paused_msg(self) -> em.WebPushNotificationMsg:
        """Return the notification that the run was paused."""
        return self._notification("create_wpn_run_paused_msg")

    def create_wpn_block_started_msg(self, block_name: str) -> em.WebPushNotificationMsg:
        """Return the notification that a block began."""
        return self._notification("create_wpn_block_started_msg", block_name)

    def create_wpn_notify_command_msg(self, text: str) -> em.WebPushNotificationMsg:
        """Return the notification that the method itself asked for."""
        return self._notification("create_wpn_notify_command_msg", text)

    def create_wpn_watch_activated_msg(self, watch_argument: str) -> em.WebPushNotificationMsg:
        """Return the notification that a watch's condition came true."""
        return self._notification("create_wpn_watch_activated_msg", watch_argument)

    def create_wpn_method_error_msg(self) -> em.WebPushNotificationMsg:
        """Return the notification that the method failed."""
        return self._notification("create_wpn_method_error_msg")

    def create_wpn_network_error_msg(self) -> em.WebPushNotificationMsg:
        """Return the notification that the equipment was lost."""
        return self._notification("create_wpn_network_error_msg")

    def _notification(self, name: str, *arguments: object) -> em.WebPushNotificationMsg:
        return self._event(em.WebPushNotificationMsg, name, *arguments)

    # How to ask the package's builder

    def _state(self, kind: type[M], name: str) -> M:
        """Return a message that describes a state; if it cannot be made, the last one."""
        made = self._ask(kind, name)
        if made is not None:
            self._last[kind] = made
        return self._last.get(kind) or self._of_the_unable(kind, name)

    def _event(self, kind: type[M], name: str, *arguments: object) -> M:
        """Return a message that tells of an event; if it cannot be made, one with what is known."""
        return self._ask(kind, name, *arguments) or self._of_the_unable(kind, name, *arguments)

    def _of_the_unable(self, kind: type[M], name: str, *arguments: object) -> M:
        message = getattr(self._unable, name)(*arguments)
        assert isinstance(message, kind)
        return message

    def _ask(self, kind: type[M], name: str, *arguments: object) -> M | None:
        """Return what the method `name` of the package's builder makes.

        Return None if there is nothing to tell, if the message cannot be made, or if the package is
        an older version without that method.
        """
        create = getattr(self._builder, name, None)
        if create is None:
            return None
        try:
            message = again(create, *arguments)
            return None if message is None else to_ours(message, kind)
        except FAILS as error:
            self._complain(f"its {kind.__name__}", error)
            return None

    def _complain(self, what: str, error: BaseException) -> None:
        self._say(
            logging.ERROR, "The engine could not give %s: %r", what, error, about=what, error=error
        )
