"""The package's message builder, as the runner asks it."""

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

from trio_runner import PlainEngine
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

FAILS = Exception, SystemExit
"""How code of an engine or of a definition may end: `sys.exit()` in it ends nothing but itself."""

TRIES = 3
"""How often a message is asked for: the engine's thread may change what is just being read."""


def again(create: Callable[..., Any], *arguments: object) -> Any:
    """Return what `create` does, asked again if it raises; raises what it does the last time."""
    for _ in range(TRIES - 1):
        try:
            return create(*arguments)
        except FAILS as error:
            logger.debug("%s is asked again: %r", create, error)
    return create(*arguments)


class _Builder(EngineMessageBuilder):  # type: ignore[misc]
    """The package's builder, with what an aggregator needs.

    A method without lines gets an empty one: aggregators take none without, which would be an error
    in the log at every connection. Where a run log cannot be made, as after some errors in a
    method, it is the last that could: the end of the run is to be told all the same.
    """

    last: Any = None
    """The last run log that was made, of the package's class or a message of ours."""

    def __init__(self, *arguments: Any, **named: Any) -> None:
        super().__init__(*arguments, **named)
        self._say = SayOnce(logger)  # it will fail again until the run has ended

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
                logging.ERROR, "The engine cannot tell its run log: %r", error, about="run log"
            )
            made = self.last  # once: the engine's thread may be here too
            if made is None or made.run_id != run_id:
                return package.RunLogMsg(id="", run_id=run_id, runlog={"lines": []})
            if isinstance(made, em.RunLogMsg):
                made = package.RunLogMsg.model_validate_json(encode_body(made))
        self.last = made
        return made


class _Unable(PlainEngine):
    """What is told of an engine that cannot tell it itself, and never could."""

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
        # Nobody shall see more of it than its definition allows.
        roles = frozenset(self._uod.required_roles)
        return evolve(super().create_uod_info(), required_roles=roles)


class UodMessageBuilder:
    """Asks the package's builder; see `trio_runner.MessageBuilder` for what each method gives.

    The engine controls a process, so what one message fails on is logged once and does not end the
    runner. Of a state the last one that could be made is told instead, of an event what is known;
    tags and errors are left out. What a package of an older version does not make is left out too.
    """

    def __init__(self, engine: Engine, secret: str, ignore_version_error: bool) -> None:
        self._engine: Any = engine
        self._builder: Any = _Builder(engine, secret, ignore_version_error)
        self._run_logs = RunLogs(engine)
        self._unable = _Unable(engine, secret, ignore_version_error)
        self._last: dict[type[MessageBase], Any] = {}
        self._has_ticked = False
        self._tags_told = False
        self._say = SayOnce(logger)  # what fails is asked for several times a second

    # Who and what the engine is

    def create_register_engine_msg(self) -> em.RegisterEngineMsg:
        """Return who this engine is."""
        return self._state(em.RegisterEngineMsg, "create_register_engine_msg")

    def create_uod_info(self) -> em.UodInfoMsg:
        """Return the description of the unit."""
        made = self._state(em.UodInfoMsg, "create_uod_info")
        interval_s = made.data_log_interval_seconds
        if interval_s is not None and math.isfinite(interval_s):
            return made
        # It is infinite, so as to store nothing. JSON has no such number, and aggregators refuse
        # a description without.
        return evolve(made, data_log_interval_seconds=sys.float_info.max)

    # Tags

    def create_tag_updates_msg(self, run_id: str | None) -> em.TagsUpdatedMsg | None:
        """Return the tags that changed, None if none did.

        Before the engine's first tick tags have no time and are not told; behind it, all are.
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
            return self.create_tag_updates_snapshot_msg()  # what had changed is spent

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
        """Return the run log of the run that is on; one whose progress alone differs may be old."""
        try:
            made = self._run_logs.create(run_id)
        except FAILS as error:
            logger.debug("The run log is made at one go: %r", error)
            return self._whole_run_log(run_id)
        self._builder.last = made
        return made

    def _whole_run_log(self, run_id: str) -> em.RunLogMsg:
        return self._event(em.RunLogMsg, "create_runlog_msg", run_id)

    def create_queued_runlog_msg(self) -> em.QueuedRunLogMsg | None:
        """Return the commands that wait for a run to begin, None if none do."""
        return self._ask(em.QueuedRunLogMsg, "create_queued_runlog_msg")

    def create_error_log_msg(self) -> em.ErrorLogMsg | None:
        """Return what this engine's unit logged for people since the last call, None if nothing."""
        return with_own_error_log(self, lambda: self._ask(em.ErrorLogMsg, "create_error_log_msg"))

    def create_control_state_msg(self) -> em.ControlStateMsg:
        """Return whether a run is on, paused or held."""
        return self._state(em.ControlStateMsg, "create_control_state_msg")

    def create_method_state_msg(self) -> em.MethodStateMsg:
        """Return which lines of the method have run and run."""
        return self._state(em.MethodStateMsg, "create_method_state_msg")

    def create_method_msg(self) -> em.MethodMsg:
        """Return the method; an empty one has an empty line."""
        return self._state(em.MethodMsg, "create_method_msg")

    # Runs

    def create_run_started_msg(self, run_id: str, tick_time: float) -> em.RunStartedMsg:
        """Return the word that a run began at tick_time (seconds since the epoch)."""
        return self._event(em.RunStartedMsg, "create_run_started_msg", run_id, tick_time)

    def create_run_stopped_msg(self, run_id: str) -> em.RunStoppedMsg:
        """Return the word that the run has ended; without its archive if that cannot be read."""
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

    # How it asks

    def _state(self, kind: type[M], name: str) -> M:
        """Return a message that describes what is; the last one where it cannot be made."""
        made = self._ask(kind, name)
        if made is not None:
            self._last[kind] = made
        return self._last.get(kind) or self._of_the_unable(kind, name)

    def _event(self, kind: type[M], name: str, *arguments: object) -> M:
        """Return a message that tells what the arguments say; the least of it if it must be."""
        return self._ask(kind, name, *arguments) or self._of_the_unable(kind, name, *arguments)

    def _of_the_unable(self, kind: type[M], name: str, *arguments: object) -> M:
        message = getattr(self._unable, name)(*arguments)
        assert isinstance(message, kind)
        return message

    def _ask(self, kind: type[M], name: str, *arguments: object) -> M | None:
        """Return what the package's builder of a name makes.

        It is None if there is nothing to tell, if it cannot be made, or if the package, being of an
        older version, has no such builder.
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
            logging.ERROR, "The engine cannot tell %s: %r", what, error, about=what, error=error
        )
