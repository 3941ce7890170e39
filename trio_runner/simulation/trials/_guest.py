"""Somebody's own engine, which a simulated world sees only by what it says.

Events and samples of such an engine may be equal, but the oracle follows each. So each gets a
number on its way to the runner, as water gets a dye: a sample in an extra tag, a notification or
an error at the end of its text. Everything else that the engine is, does and says stays the same.
"""

from collections.abc import Awaitable, Callable
from typing import Protocol, TypeVar

import trio
from attrs import define, evolve, field, frozen

from trio_runner._engine import CommandHandlers, EventEmitter, EventListener, MessageBuilder
from trio_runner._runner import EngineRunner
from trio_runner.protocol import OPENPECTUS_VERSION
from trio_runner.protocol import engine_messages as em
from trio_runner.protocol import models as mdl
from trio_runner.simulation.trials._hearing import Hearing
from trio_runner.simulation.trials._manners import Manners
from trio_runner.simulation.trials._stored import VALUE
from trio_runner.simulation.trials._thread_watch import HELD_S, held, held_s, moment

UNIT = "Unit"
"""The unit's name under which every guest is registered."""

FEW_TAGS = 5
"""A thin path need not carry samples with more tags."""

T = TypeVar("T")
MessageT = TypeVar("MessageT", bound=em.EngineMessage)


class Engine(MessageBuilder, EventEmitter, CommandHandlers, Protocol):
    """Everything that a runner needs of an engine, in one object."""


@frozen
class Invitation:
    """How to make somebody's own engine for each process, and what it does by itself."""

    make: Callable[[Callable[[], float]], Engine]
    run: Callable[[Engine], Awaitable[object]]
    tasks: dict[trio.lowlevel.Task, str] = field(factory=dict)
    """The tasks that are calling a part of the engine, and the name of that part."""
    errors: list[Exception] = field(factory=list)
    """The errors that the engine raised where it must not."""


@define(eq=False)
class Guest:
    """The message builder, emitter and handlers of a process, which wrap those of the engine.

    `made` is called with each event and sample before it is handed over. `count` numbers them.
    """

    engine: Engine
    invited: Invitation
    manners: Manners
    made: Callable[[em.EngineMessage], None]
    count: Callable[[], int]
    computer_name: str
    interval_s: float
    """The data-log interval (s)."""
    is_over: Callable[[], bool]
    """Whether the process counts as ended."""
    storm: int = field(default=0, init=False)
    """How many tags the last sample had above `FEW_TAGS`."""

    @property
    def run_id(self) -> str | None:
        """The run that the engine has begun and not ended, by what it told; None without one."""
        return self.manners.run_id

    async def work(self, runner: EngineRunner) -> None:
        """Let the engine do what it does by itself, until cancelled."""
        try:
            await self._call("run", self.invited.run, self.engine)
        except Exception as error:
            self._fail("run", error)
            raise

    def notify(self, runner: EngineRunner) -> None:
        """Send a notification."""
        runner.on_notify_command("The storm is over")

    def add_listener(self, listener: EventListener) -> None:
        """See `EventEmitter`. What the engine tells is checked before the listener hears it."""
        self.engine.add_listener(Hearing(listener, self.manners, self.is_over))

    async def _call(
        self, what: str, do: Callable[..., Awaitable[object]], *arguments: object
    ) -> None:
        """Call an async part of the engine, so that its steps are known as the engine's."""
        task = trio.lowlevel.current_task()
        self.invited.tasks[task] = what
        try:
            await trio.lowlevel.checkpoint()  # the present step began before the task was known
            await do(*arguments)
        finally:
            del self.invited.tasks[task]

    def _ask(self, make: Callable[..., T], *arguments: object) -> T:
        began = moment()
        try:
            return make(*arguments)
        except Exception as error:
            self._fail(make.__name__, error)
            raise
        finally:
            took_s = held_s(began)
            self.manners.expect(took_s < HELD_S, held(make.__name__, took_s))

    def _fail(self, what: str, error: Exception) -> None:
        self.invited.errors.append(error)
        self.manners.expect(False, f"the engine's {what} raised {error!r}")

    def _noted(self, message: MessageT) -> MessageT:
        self.made(message)
        return message

    # The registration and the unit

    def create_register_engine_msg(self) -> em.RegisterEngineMsg:
        """Return the engine's registration, under the names that this world gives it."""
        return evolve(
            self._ask(self.engine.create_register_engine_msg),
            computer_name=self.computer_name,
            uod_name=UNIT,
            engine_version=OPENPECTUS_VERSION,
            ignore_version_error=False,
            secret="",
        )

    def create_uod_info(self) -> em.UodInfoMsg:
        """Return the unit with a reading for the number and with this world's data-log interval."""
        info = self._ask(self.engine.create_uod_info)
        readings = [reading for reading in info.readings if reading.tag_name != VALUE]
        return evolve(info, readings=[*readings, NUMBER], data_log_interval_seconds=self.interval_s)

    # Samples

    def create_tag_updates_msg(self, run_id: str | None) -> em.TagsUpdatedMsg | None:
        """Return the tags that have changed, and a number, so that there is always a sample."""
        message = self._ask(self.engine.create_tag_updates_msg, run_id)
        return self._dyed(message or em.TagsUpdatedMsg(tags=[], run_id=run_id))

    def create_tag_updates_snapshot_msg(self) -> em.TagsUpdatedMsg:
        """Return all tags and a number."""
        return self._dyed(self._ask(self.engine.create_tag_updates_snapshot_msg))

    def _dyed(self, message: em.TagsUpdatedMsg) -> em.TagsUpdatedMsg:
        self.manners.check_tags(message.tags)
        now = self.manners.clock()
        number = mdl.TagValue(name=VALUE, tick_time=now, value=self.count(), value_unit="")
        tags = [tag for tag in message.tags if tag.name != VALUE]
        self.storm = max(len(tags) - FEW_TAGS, 0)
        return self._noted(evolve(message, tags=[number, *tags]))

    # Events

    def create_run_started_msg(self, run_id: str, tick_time: float) -> em.RunStartedMsg:
        """Return the event that a run has begun."""
        message = self._ask(self.engine.create_run_started_msg, run_id, tick_time)
        return self._noted(self._of_run(message, run_id))

    def create_run_stopped_msg(self, run_id: str) -> em.RunStoppedMsg:
        """Return the event that a run has ended."""
        message = self._ask(self.engine.create_run_stopped_msg, run_id)
        return self._noted(self._of_run(message, run_id))

    def _of_run(self, message: T, run_id: str) -> T:
        told = getattr(message, "run_id", None)
        what = type(message).__name__
        self.manners.expect(told == run_id, f"a {what} of run {run_id!r} has the run id {told!r}")
        return message

    def create_error_log_msg(self) -> em.ErrorLogMsg | None:
        """Return the errors that were logged, each with a number, or None without any."""
        message = self._ask(self.engine.create_error_log_msg)
        if message is None:
            return None
        has_some = bool(message.log.entries)
        self.manners.expect(
            has_some, "create_error_log_msg returned a log without entries instead of None"
        )
        entries = [evolve(e, message=f"{e.message} [{self.count()}]") for e in message.log.entries]
        return self._noted(evolve(message, log=evolve(message.log, entries=entries)))

    def _notification(
        self, make: Callable[..., em.WebPushNotificationMsg], *about: str
    ) -> em.WebPushNotificationMsg:
        message = self._ask(make, *about)
        body = f"{message.notification.body or ''} [{self.count()}]"
        return self._noted(evolve(message, notification=evolve(message.notification, body=body)))

    def create_wpn_run_started_msg(self) -> em.WebPushNotificationMsg:
        """Return a notification with a number, like all of these methods."""
        return self._notification(self.engine.create_wpn_run_started_msg)

    def create_wpn_run_stopped_msg(self) -> em.WebPushNotificationMsg:
        """See `create_wpn_run_started_msg`."""
        return self._notification(self.engine.create_wpn_run_stopped_msg)

    def create_wpn_run_paused_msg(self) -> em.WebPushNotificationMsg:
        """See `create_wpn_run_started_msg`."""
        return self._notification(self.engine.create_wpn_run_paused_msg)

    def create_wpn_block_started_msg(self, block_name: str) -> em.WebPushNotificationMsg:
        """See `create_wpn_run_started_msg`."""
        return self._notification(self.engine.create_wpn_block_started_msg, block_name)

    def create_wpn_notify_command_msg(self, text: str) -> em.WebPushNotificationMsg:
        """See `create_wpn_run_started_msg`."""
        return self._notification(self.engine.create_wpn_notify_command_msg, text)

    def create_wpn_watch_activated_msg(self, watch_argument: str) -> em.WebPushNotificationMsg:
        """See `create_wpn_run_started_msg`."""
        return self._notification(self.engine.create_wpn_watch_activated_msg, watch_argument)

    def create_wpn_method_error_msg(self) -> em.WebPushNotificationMsg:
        """See `create_wpn_run_started_msg`."""
        return self._notification(self.engine.create_wpn_method_error_msg)

    def create_wpn_network_error_msg(self) -> em.WebPushNotificationMsg:
        """See `create_wpn_run_started_msg`."""
        return self._notification(self.engine.create_wpn_network_error_msg)

    # States

    def create_runlog_msg(self, run_id: str) -> em.RunLogMsg:
        """Return the run log."""
        return self._of_run(self._ask(self.engine.create_runlog_msg, run_id), run_id)

    def create_queued_runlog_msg(self) -> em.QueuedRunLogMsg | None:
        """Return the queued commands."""
        return self._ask(self.engine.create_queued_runlog_msg)

    def create_control_state_msg(self) -> em.ControlStateMsg:
        """Return the control state, and check that it agrees with what was told of runs."""
        message = self._ask(self.engine.create_control_state_msg)
        self.manners.show(is_running=message.control_state.is_running)
        return message

    def create_method_state_msg(self) -> em.MethodStateMsg:
        """Return the method's state."""
        return self._ask(self.engine.create_method_state_msg)

    def create_method_msg(self) -> em.MethodMsg:
        """Return the method, and check that it has a line: the aggregator takes none without."""
        message = self._ask(self.engine.create_method_msg)
        self.manners.expect(message.method.lines, "the method has no lines: give it an empty one")
        return message

    # Commands

    async def execute_control_command(self, name: str) -> None:
        """Let the engine carry out the command, like all of these methods."""
        await self._call("execute_control_command", self.engine.execute_control_command, name)

    async def inject_code(self, pcode: str) -> None:
        """See `execute_control_command`."""
        await self._call("inject_code", self.engine.inject_code, pcode)

    async def set_method(self, method: mdl.Method) -> None:
        """See `execute_control_command`."""
        await self._call("set_method", self.engine.set_method, method)

    async def cancel(self, exec_id: str) -> None:
        """See `execute_control_command`."""
        await self._call("cancel", self.engine.cancel, exec_id)

    async def force(self, exec_id: str) -> None:
        """See `execute_control_command`."""
        await self._call("force", self.engine.force, exec_id)


NUMBER = mdl.ReadingInfo(
    discriminator="reading",
    tag_name=VALUE,
    valid_value_units=None,
    entry_data_type=None,
    commands=[],
    command_options=None,
)
"""A reading for the samples' number, so that it is plotted."""
