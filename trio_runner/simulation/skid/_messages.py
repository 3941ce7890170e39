"""The simulated engine's messages, each made from what the engine knows at that moment."""

from collections import deque
from datetime import UTC, datetime
from random import Random

from attrs import define, field

from trio_runner._plain_messages import PlainMessages
from trio_runner.protocol import engine_messages as em
from trio_runner.protocol import models as mdl
from trio_runner.protocol.models import NotificationTopic as Topic
from trio_runner.simulation.skid._archive import Archive
from trio_runner.simulation.skid._interpreter import Interpreter
from trio_runner.simulation.skid._method import Method
from trio_runner.simulation.skid._runlog import queued
from trio_runner.simulation.skid._skid import TAGS, Skid, uod_info
from trio_runner.simulation.skid._tags import Tags

ERROR_LOG_MAX = 1000
"""The most errors kept for the next message; the oldest go first."""


@define(eq=False)
class EngineRun:
    """A run. `run_s` counts while it is on, `method_s` while it is neither paused nor held."""

    id: str
    began: float  # seconds since the epoch
    interpreter: Interpreter
    archive: Archive
    is_paused: bool = False
    is_held: bool = False
    run_s: float = 0.0
    method_s: float = 0.0
    pause_until_s: float | None = None
    hold_until_s: float | None = None


@define(eq=False, kw_only=True)
class EngineMessages(PlainMessages):
    """What the engine knows, and the messages made from it (the Protocol `MessageBuilder`).

    `clock` gives seconds since the epoch. Runs, ids and noise follow from `seed` and `clock` alone.
    """

    name: str = field(default="Filtration Skid", kw_only=False)
    seed: int = 0
    location: str = "Simulated lab"
    author_name: str = "trio_runner"
    author_email: str = "trio_runner@example.org"
    data_log_interval_s: float = 1.0
    tags: Tags = field(init=False, factory=lambda: Tags(TAGS))
    skid: Skid = field(init=False)
    _tick_time: float = field(init=False)
    _method: Method = field(init=False, factory=Method)
    _waiting_code: list[str] = field(init=False, factory=list)
    _errors: deque[mdl.ErrorLogEntry] = field(
        init=False, factory=lambda: deque(maxlen=ERROR_LOG_MAX)
    )
    _run_count: int = field(init=False, default=0)
    _run: EngineRun | None = field(init=False, default=None)
    _last_run: EngineRun | None = field(init=False, default=None)  # the present or else last run

    def __attrs_post_init__(self) -> None:
        """Put the skid and its tags into their initial state."""
        self.skid = Skid(Random(self.seed))  # noqa: S311 - nothing secret
        self._tick_time = self.clock()
        self.tags.reset(self._tick_time)

    def create_uod_info(self) -> em.UodInfoMsg:
        """Return the description of the unit."""
        return uod_info(self.data_log_interval_s)

    def create_tag_updates_msg(self, run_id: str | None) -> em.TagsUpdatedMsg | None:
        """Return the tags that changed since the last call, or None if none did."""
        changed = self.tags.take_changed()
        return em.TagsUpdatedMsg(tags=changed, run_id=run_id) if changed else None

    def create_tag_updates_snapshot_msg(self) -> em.TagsUpdatedMsg:
        """Return all tags."""
        return em.TagsUpdatedMsg(tags=self.tags.take_all())

    def create_runlog_msg(self, run_id: str) -> em.RunLogMsg:
        """Return the run log of the run."""
        return em.RunLogMsg(id="", run_id=run_id, runlog=self._run_log(run_id))

    def create_queued_runlog_msg(self) -> em.QueuedRunLogMsg | None:
        """Return the injected code that waits, or None if none does."""
        waiting = self._waiting_code + (self._run.interpreter.waiting_code if self._run else [])
        lines = [line for code in waiting for line in code.splitlines()]
        return em.QueuedRunLogMsg(runlog=queued(lines)) if lines else None

    def create_error_log_msg(self) -> em.ErrorLogMsg | None:
        """Return the errors since the last call, or None if there are none."""
        if not self._errors:
            return None
        entries = list(self._errors)
        self._errors.clear()
        return em.ErrorLogMsg(log=mdl.ErrorLog(entries=entries))

    def create_control_state_msg(self) -> em.ControlStateMsg:
        """Return whether a run is on, paused or held."""
        state = mdl.ControlState(
            is_running=self._run is not None,
            is_holding=self._run is not None and self._run.is_held,
            is_paused=self._run is not None and self._run.is_paused,
        )
        return em.ControlStateMsg(control_state=state)

    def create_method_state_msg(self) -> em.MethodStateMsg:
        """Return which lines of the method have begun, ended or failed."""
        return em.MethodStateMsg(method_state=self._method.state())

    def create_method_msg(self) -> em.MethodMsg:
        """Return the method."""
        return em.MethodMsg(method=self._method.model)

    def create_run_stopped_msg(self, run_id: str) -> em.RunStoppedMsg:
        """Return the report that the run has ended, with its run log, method state and archive."""
        run = self._run_with(run_id)
        return em.RunStoppedMsg(
            run_id=run_id,
            runlog=self._run_log(run_id),
            method_state=self._method.state(),
            archive=run.archive.text(),
            archive_filename=run.archive.filename,
        )

    def create_wpn_run_started_msg(self) -> em.WebPushNotificationMsg:
        """Return the notification that a run began."""
        return self.create_notification(Topic.RUN_START, f"Run started {self._run_began()}.")

    def create_wpn_run_stopped_msg(self) -> em.WebPushNotificationMsg:
        """Return the notification that the run has ended."""
        text = f"Run which started {self._run_began()} has stopped."
        return self.create_notification(Topic.RUN_STOP, text)

    def _run_began(self) -> str:
        """Return when the present or else last run began, as hh:mm in UTC."""
        began = self._tick_time if self._last_run is None else self._last_run.began
        return datetime.fromtimestamp(began, UTC).strftime("%H:%M UTC")

    def _run_with(self, run_id: str) -> EngineRun:
        if self._last_run is None or self._last_run.id != run_id:
            raise LookupError(f"The engine has no run with id {run_id}")
        return self._last_run

    def _run_log(self, run_id: str) -> mdl.RunLog:
        return self._run_with(run_id).interpreter.run_log.as_model()
