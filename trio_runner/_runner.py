"""`EngineRunner`: what an engine and its people see of the task tree."""

import logging
import threading
import time
from collections.abc import Awaitable, Callable, Mapping
from contextlib import AbstractContextManager, suppress
from random import Random
from typing import TypeVar

import trio
from attrs import frozen

from trio_runner._backoff import Backoff
from trio_runner._engine import (
    BlockInfo,
    ConnectionStatus,
    EventEmitter,
    MessageBuilder,
    RunStateChange,
    ScopeInfo,
)
from trio_runner._histogram import Histogram
from trio_runner._intake import sound_registration
from trio_runner._mistakes import require, require_kind, seconds
from trio_runner._outbox import MemoryOutbox, Outbox, OutboxStatistics
from trio_runner._publish import Broadcast
from trio_runner._states import RecoverState, StateMachine
from trio_runner._tasks import Offload, Tree, offload_to_thread
from trio_runner._timing import Timing
from trio_runner.net import Dialer
from trio_runner.protocol import engine_messages as em

logger = logging.getLogger(__name__)

MessageT = TypeVar("MessageT", bound=em.EngineMessage)
AsyncConnectionCallback = Callable[[], Awaitable[None]]
StateChangingCallback = Callable[[RecoverState, RecoverState], Awaitable[None]]


@frozen
class StateChange:
    """A change of state, as the subscription yields it."""

    before: RecoverState
    after: RecoverState


@frozen
class Statistics:
    """What a runner does and has done, at one moment."""

    unit: str
    """The unit's name, as it was registered."""
    state: RecoverState
    state_for_s: float
    """How long the runner has been in this state (s)."""
    away_for_s: float | None
    """How long ago the steady state ended, or the runner began (s); None in steady state."""
    engine_id: str | None
    """The id that the aggregator gave this engine at the last link, or None before the first."""
    run_id: str | None
    """The run that is on, or None."""
    dials: int
    links: int
    """How many dials led to a link."""
    failures: Mapping[str, int]
    """How many dials and links failed, by the class of the NetworkError."""
    bytes_sent: int
    """Bytes sent over all links, as websocket frames."""
    unanswered: int
    """How many messages are in flight over the link, not yet answered."""
    answer_s: Histogram
    """The times from the sending of a sample to its answer (s)."""
    sample_lag_s: Histogram
    """How late samples were taken (s)."""
    last_failure: str | None
    """Why the last link or dial failed, and what to do."""
    outbox: OutboxStatistics


class EngineRunner:
    """Keeps an engine connected to its aggregator and delivers what the engine reports.

    `dispatcher` reaches the aggregator (`EngineDispatcher`), `message_builder` makes the engine's
    messages, and `emitter` is where the runner listens to the engine. `timing` holds all times,
    `outbox` keeps what waits. `rng` draws the waits before a reconnect, and `clock` gives the
    seconds since the epoch with which a run's start is stamped. `offload` runs what waits for a
    disk; by default it does so in a thread, which is left behind if cancelled.

    If a run was on when the process before this one ended, the outbox knows it. The runner then
    ends that run for the aggregator, after everything that waits and before anything new can be
    queued. The end has the run's last run log and method state, but no archive and no notification.
    If `resume_run` is that run's id, the engine goes on with it instead. If the outbox does not
    know a run of that id, the run begins.

    Raises TypeError if an argument lacks methods that the runner calls, and names them; or if the
    registration cannot be sent. Raises what the message builder and a durable outbox raise, and
    ValueError if a run is resumed and its start is not in seconds.

    The callbacks are attributes, None or async functions, called

    - `state_changing_callback(before, after)` before every change of state,
    - `connected_callback()` at the first link, when the engine is introduced and samples begin to
      flow,
    - `failed_callback()` when a link is lost or a dial has failed,
    - `reconnecting_callback()` when there is a link again,
    - `catchingup_callback()` when the sending of what waited begins,
    - `reconnected_callback()` when all that waited is delivered,
    - `first_steady_state_callback()` after the first connected or reconnected callback: the time to
      start an engine. It is called once, unless the link is lost while it runs: then it is called
      again.

    The task tree waits for the callbacks, so they delay what comes after the state that they
    announce. A callback that still runs when its link is lost is cancelled. An exception in a
    callback ends `run()`. To follow the states without delaying anything, use `state_changes()`.
    """

    connected_callback: AsyncConnectionCallback | None = None
    failed_callback: AsyncConnectionCallback | None = None
    reconnecting_callback: AsyncConnectionCallback | None = None
    catchingup_callback: AsyncConnectionCallback | None = None
    reconnected_callback: AsyncConnectionCallback | None = None
    first_steady_state_callback: AsyncConnectionCallback | None = None
    state_changing_callback: StateChangingCallback | None = None

    def __init__(
        self,
        dispatcher: Dialer,
        message_builder: MessageBuilder,
        emitter: EventEmitter,
        *,
        timing: Timing | None = None,
        outbox: Outbox | None = None,
        resume_run: str | None = None,
        offload: Offload = offload_to_thread,
        rng: Random | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        require("EngineRunner", "dispatcher", dispatcher, Dialer)
        require("EngineRunner", "message_builder", message_builder, MessageBuilder)
        require("EngineRunner", "emitter", emitter, EventEmitter)
        if timing is not None:
            require_kind("EngineRunner", "timing", timing, Timing)
        if outbox is not None:
            require_kind("EngineRunner", "outbox", outbox, Outbox)
        self._dispatcher = dispatcher
        self._builder = message_builder
        self._clock = clock
        self._outbox = outbox if outbox is not None else MemoryOutbox()
        self._changes = Broadcast[StateChange]()
        self._states = StateMachine(self._before_change, self._publish_change, self._after_change)
        self._tree = Tree(
            dialer=dispatcher,
            builder=message_builder,
            outbox=self._outbox,
            states=self._states,
            backoff=Backoff(rng or Random()),  # noqa: S311
            timing=timing or Timing(),
            offload=offload,
            on_steady=self._announce_first_steady_state,
            clock=clock,
        )
        self._scope = trio.CancelScope()
        self._thread: int | None = None
        self._token: trio.lowlevel.TrioToken | None = None
        self._run_clock: trio.abc.Clock | None = None
        self._state_since = 0.0
        self._ended = trio.Event()
        self._steady = trio.Event()
        dispatcher.warn_by(self._outbox.warnings)
        self._recover(resume_run)
        emitter.add_listener(self)

    def _recover(self, resume_run: str | None) -> None:
        outbox, builder = self._outbox, self._builder
        register = sound_registration(builder.create_register_engine_msg())
        self._unit = register.uod_name
        self._tree.connector.registration = register
        if outbox.is_durable:
            outbox.claim(f"{register.computer_name}_{register.uod_name}", register)
        if resume_run is not None and resume_run == outbox.run_id:
            self._tree.intake.run_id = resume_run
            return
        outbox.close_run()
        if resume_run is not None:
            logger.warning(
                "The engine goes on with run %s, which the outbox does not know", resume_run
            )
            self._tree.intake.post(builder.create_run_started_msg(resume_run, self._clock()))

    def __str__(self) -> str:
        return (
            f"EngineRunner({self._dispatcher}, state={self.state},"
            f" run_id={self._tree.intake.run_id}, buffer_size={self.buffer_size})"
        )

    # Life

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Run until `shutdown()` or cancellation; started when the runner accepts messages.

        At the end, whatever its cause, flush what waits if there is a link, for `flush_s` at most.
        After that nothing is left running. Messages that are not delivered stay in the outbox.

        Raises what a callback raised, in an exception group; never a NetworkError. Raises
        RuntimeError when called a second time.
        """
        if self._token is not None:
            raise RuntimeError("an EngineRunner can run only once: make a new one")
        self._token = trio.lowlevel.current_trio_token()
        self._thread = threading.get_ident()
        self._run_clock = trio.lowlevel.current_clock()
        self._state_since = self._now()
        try:
            with self._scope:
                await self._tree.run(task_status.started)
        finally:
            self._changes.close()
            self._ended.set()

    async def shutdown(self) -> None:
        """Stop the runner and wait until it has ended; see `run` for what it still does.

        May be called again, and from a callback, which this then cancels. The callbacks of Stopped
        and ShutdownComplete must not wait for it. If this is cancelled, the runner stops all the
        same.
        """
        self._scope.cancel()
        if self._token is not None:
            await self._ended.wait()

    # What can be seen

    @property
    def state(self) -> RecoverState:
        """The present state of the runner."""
        return self._states.current

    @property
    def buffer_size(self) -> int:
        """How many events and samples the aggregator has not yet said it has."""
        return len(self._outbox)

    def statistics(self) -> Statistics:
        """Return a snapshot of what the runner does and has done. Any thread may call it."""
        connector, away = self._tree.connector, self._tree.connector.away
        sender, failure = connector.sender, away.last_failure
        state_since, away_since = self._state_since, away.since
        now = self._now()  # read after these two, which another thread may be changing just now
        return Statistics(
            unit=self._unit,
            state=self.state,
            state_for_s=now - state_since,
            away_for_s=now - away_since if away_since is not None else None,
            engine_id=connector.engine_id,
            run_id=self._tree.intake.run_id,
            dials=connector.dials,
            links=connector.links,
            failures=dict(away.failures),
            bytes_sent=connector.bytes_sent,
            answer_s=connector.answer_s.histogram(),
            sample_lag_s=self._tree.ticker.lag_s.histogram(),
            unanswered=sender.unanswered if sender is not None else 0,
            last_failure=str(failure) if failure is not None else None,
            outbox=self._outbox.statistics(),
        )

    def _now(self) -> float:
        """Return the time on Trio's clock (s), in any thread; 0 before the start."""
        return self._run_clock.current_time() if self._run_clock is not None else 0.0

    def state_changes(self) -> AbstractContextManager[trio.MemoryReceiveChannel[StateChange]]:
        """Subscribe to the changes of state: all of them from now on, in order.

        Use it as `with runner.state_changes() as changes: async for change in changes: ...`; the
        loop ends after the change to ShutdownComplete.
        """
        return self._changes.subscribe()

    # Messages and events, from any thread

    def post(self, message: em.EngineMessage) -> None:
        """Queue a message; it is delivered by the rule of its type.

        RunStarted and RunStopped move the samples that follow to their side of the run. Tags
        without a run id get that of the run that is on. Any thread may call this, before, during
        and after `run()`. Raises TypeError for a type that a runner does not send, and ValueError
        for a RunStarted whose start is not in seconds.
        """
        self._tree.intake.post(message)
        self._wake_sender()

    def on_start(self, run_id: str) -> None:
        """Queue RunStarted and its notification; samples belong to the run from here on.

        Raises RuntimeError if a run is on, ValueError if the clock does not give seconds.
        """
        if self._tree.intake.run_id is not None:
            on = self._tree.intake.run_id
            raise RuntimeError(f"on_start({run_id!r}) was called while the run {on!r} is on")
        began = seconds("clock()", self._clock())
        if not self._tell(em.RunStartedMsg, self._builder.create_run_started_msg, run_id, began):
            self.post(em.RunStartedMsg(run_id=run_id, started_tick=began))
        self._notify(self._builder.create_wpn_run_started_msg)

    def on_stop(self) -> None:
        """Queue RunStopped for the run that is on, and its notification.

        Raises RuntimeError if no run is on.
        """
        run_id = self._tree.intake.run_id
        if run_id is None:
            raise RuntimeError("on_stop() was called while no run is on")
        is_told = self._tell(em.RunStoppedMsg, self._builder.create_run_stopped_msg, run_id)
        if not is_told and self._outbox.run_id == run_id:
            self.post(self._outbox.end_of_run())
        self._notify(self._builder.create_wpn_run_stopped_msg)

    def on_runstate_change(self, state_change: RunStateChange) -> None:
        """Queue the notification that the run was paused; there is none when it goes on."""
        if state_change == RunStateChange.PAUSE:
            self._notify(self._builder.create_wpn_run_paused_msg)

    def on_block_start(self, block_info: BlockInfo) -> None:
        """Queue the notification that a block began."""
        self._notify(self._builder.create_wpn_block_started_msg, block_info.name)

    def on_notify_command(self, argument: str) -> None:
        """Queue the notification that the method asked for."""
        self._notify(self._builder.create_wpn_notify_command_msg, argument)

    def on_scope_activate(self, scope_info: ScopeInfo) -> None:
        """Queue the notification that a watch's condition came true; other scopes have none."""
        if scope_info.scope_type == "Watch":
            self._notify(self._builder.create_wpn_watch_activated_msg, scope_info.argument)

    def on_method_error(self, exception: Exception) -> None:
        """Queue the notification that the method failed."""
        self._notify(self._builder.create_wpn_method_error_msg)

    def on_connection_status_change(self, status: ConnectionStatus) -> None:
        """Queue the notification that the equipment was lost; there is none for its return."""
        if status == "Disconnected":
            self._notify(self._builder.create_wpn_network_error_msg)

    def _notify(self, create: Callable[..., em.WebPushNotificationMsg], *arguments: object) -> None:
        self._tell(em.WebPushNotificationMsg, create, *arguments)

    def _tell(
        self, kind: type[MessageT], create: Callable[..., MessageT], *arguments: object
    ) -> bool:
        """Queue what the builder makes; return False if it fails, which its people are told."""
        is_told = self._tree.intake.tell(kind, create, *arguments)
        self._wake_sender()
        return is_told

    def _wake_sender(self) -> None:
        if self._token is None:
            return  # the sender looks into the outbox when it begins
        if threading.get_ident() == self._thread:
            self._tree.bell.ring()
            return
        # An engine's thread may outlive this Trio run; the outbox keeps the message.
        with suppress(trio.RunFinishedError):
            self._token.run_sync_soon(self._tree.bell.ring, idempotent=True)

    # Callbacks

    async def _before_change(self, before: RecoverState, after: RecoverState) -> None:
        if self.state_changing_callback is not None:
            await self.state_changing_callback(before, after)

    def _publish_change(self, before: RecoverState, after: RecoverState) -> None:
        self._state_since = self._now()
        self._changes.publish(StateChange(before, after))

    async def _after_change(self, state: RecoverState) -> None:
        callback = {
            "Connected": self.connected_callback,
            "Failed": self.failed_callback,
            "Reconnecting": self.reconnecting_callback,
            "CatchingUp": self.catchingup_callback,
            "Reconnected": self.reconnected_callback,
        }.get(state)
        if callback is not None:
            await callback()

    async def _announce_first_steady_state(self) -> None:
        if self._steady.is_set():
            return
        if self.first_steady_state_callback is not None:
            logger.info("Starting engine on first steady-state")
            await self.first_steady_state_callback()
        self._steady.set()
