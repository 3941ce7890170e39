"""The task tree of a runner, on one page.

    root
    ├ ticker      absolute deadlines; fills the outbox through the sampler
    └ connector   wait -> dial -> link -> again; empties the outbox over one link after another
        └ link    the session's task, and in the connector itself: introduce, drain, steady

Taking samples and sending them never wait for each other. A NetworkError ends a link and nothing
else; anything else ends the root.
"""

import logging
import math
import threading
from collections.abc import Awaitable, Callable, Generator
from contextlib import contextmanager

import trio
from attrs import define, evolve, field

from trio_runner._backoff import Backoff
from trio_runner._engine import MessageBuilder
from trio_runner._errors import NetworkError
from trio_runner._outbox import MemoryOutbox
from trio_runner._publish import Doorbell
from trio_runner._sender import Sender
from trio_runner._states import StateMachine
from trio_runner._timing import Timing
from trio_runner.net import Dialer, Session
from trio_runner.protocol import engine_messages as em
from trio_runner.protocol import models as mdl

logger = logging.getLogger(__name__)

HEALTHY_S = 60
"""A link that was in steady state for so long (s) was healthy: what ends it is news again."""


@define(eq=False)
class Sampler:
    """Asks the engine for messages and queues them, stamped with the run that they belong to.

    The run begins and ends in the engine's thread, samples are taken in Trio's. "Is it still the
    same run? Queue it" is one step under a lock, so that a sample stands on the right side of
    RunStarted and RunStopped. The engine is never asked under the lock: it may hold one of its own
    when it tells of a run.
    """

    _builder: MessageBuilder
    _outbox: MemoryOutbox
    run_id: str | None = field(default=None, init=False)
    _runs: int = field(default=0, init=False)
    """How often a run began or ended."""
    _lock: threading.Lock = field(factory=threading.Lock, init=False)
    _snapshot_is_due: bool = field(default=True, init=False)

    def post(self, message: em.EngineMessage) -> None:
        """Queue a message; the beginning and the end of a run move the samples to their side of it.

        Tags without a run belong to the one that is on.
        """
        with self._lock:
            if isinstance(message, em.TagsUpdatedMsg) and message.run_id is None:
                message = evolve(message, run_id=self.run_id)
            self._outbox.put(message)
            if isinstance(message, em.RunStartedMsg | em.RunStoppedMsg):
                self.run_id = message.run_id if isinstance(message, em.RunStartedMsg) else None
                self._runs += 1

    def request_snapshot(self) -> None:
        """Let the next sample hold all tags: the aggregator may know none."""
        self._snapshot_is_due = True

    def take_sample(self) -> None:
        """Queue the tags that changed (all, if requested) and the errors logged."""
        while not self._take_tags():
            self._snapshot_is_due = True  # what changed is spent, so all of them this time
        errors = self._builder.create_error_log_msg()
        if errors is not None:
            self._outbox.put(errors)

    def _take_tags(self) -> bool:
        """Queue the tags; return false if a run began or ended while the engine was asked."""
        run_id, runs = self.run_id, self._runs
        if self._snapshot_is_due:
            tags: em.TagsUpdatedMsg | None = self._builder.create_tag_updates_snapshot_msg()
        else:
            tags = self._builder.create_tag_updates_msg(run_id)
        with self._lock:
            if runs != self._runs:
                return False
            self._snapshot_is_due = False
            if tags is not None:
                self._outbox.put(tags if tags.run_id == run_id else evolve(tags, run_id=run_id))
            return True

    def take_states(self) -> None:
        """Queue the state messages that change while the engine works."""
        self._outbox.put(self._builder.create_method_msg())
        self._outbox.put(self._builder.create_control_state_msg())
        self._outbox.put(self._builder.create_method_state_msg())
        run_id, runs = self.run_id, self._runs
        log: em.EngineMessage | None
        if run_id is not None:
            log = self._builder.create_runlog_msg(run_id)
        else:
            # No queue is an empty queue: the page shall not show commands that have gone.
            log = self._builder.create_queued_runlog_msg()
            log = log or em.QueuedRunLogMsg(runlog=mdl.RunLog(lines=[]))
        with self._lock:
            if runs == self._runs:
                self._outbox.put(log)

    def introduce(self) -> em.UodInfoMsg:
        """Queue what a new link must tell, and return the description of the unit."""
        uod_info = self._builder.create_uod_info()
        self._outbox.put(uod_info)
        self.take_states()
        return uod_info


@define(eq=False)
class Ticker:
    """Samples the engine: at the steady rate within `linked`, at the offline rate otherwise.

    Its deadlines lie at whole ticks from its start: it does not drift, and ticks that were missed
    because something else took the thread are skipped, not made up for. It sleeps over the ticks at
    which nothing is due, seven of ten with a link: many engines in one process would feel them.
    """

    _sampler: Sampler
    _timing: Timing
    _bell: Doorbell
    _offline_s: float = field(init=False)
    _interval_ticks: int = field(init=False)
    _start: float = field(default=0.0, init=False)
    _due: float = field(default=-math.inf, init=False)
    """The tick of the next sample."""
    _last: float = field(default=-math.inf, init=False)
    _wait: trio.CancelScope = field(factory=trio.CancelScope, init=False)

    def __attrs_post_init__(self) -> None:
        self._offline_s = self._timing.offline_s
        self._interval_ticks = self._in_ticks(self._offline_s)

    def _in_ticks(self, interval_s: float) -> int:
        return max(1, round(interval_s / self._timing.tick_s))

    def set_data_log_interval(self, interval_s: float) -> None:
        """Sample as often as the unit's data log stores, if oftener, from the next outage on.

        The aggregator stores what is more than the interval newer than the last stored: of samples
        just one interval apart it would drop every other. So a whole number of samples is just
        over an interval: by two ticks, since the engine has ticks of its own.
        """
        if math.isfinite(interval_s):
            samples = max(1, math.ceil(interval_s / self._timing.offline_s))
            self._offline_s = interval_s / samples + 2 * self._timing.tick_s

    @contextmanager
    def linked(self) -> Generator[None, None, None]:
        """Sample at the steady rate for as long as there is a link."""
        self._sample_every(self._timing.steady_s)
        self._sampler.request_snapshot()
        try:
            yield
        finally:
            self._sample_every(self._offline_s)

    def _sample_every(self, interval_s: float) -> None:
        self._interval_ticks = self._in_ticks(interval_s)
        self._wait.deadline = self._next_deadline()

    def _passed(self) -> int:
        """Return how many ticks have passed."""
        return int((trio.current_time() - self._start) / self._timing.tick_s + 1e-6)

    def _next_deadline(self) -> float:
        self._due = max(self._passed() + 1, self._last + self._interval_ticks)
        return self._start + self._due * self._timing.tick_s

    async def run(self) -> None:
        """Sample until cancelled."""
        self._start = trio.current_time()
        while True:
            with trio.CancelScope(deadline=self._next_deadline()) as self._wait:
                await trio.sleep_forever()
            # It may be late, or have been due when a link changed what is due.
            self._last = min(self._due, self._passed())
            self._sample()

    def _sample(self) -> None:
        self._sampler.take_sample()
        self._sampler.take_states()  # offline too: the outbox needs the last ones after a crash
        self._bell.ring()


@define(eq=False)
class Connector:
    """Keeps a link, and delivers over it.

    The states' lifetimes are the blocks of `run`, `_first_link` and `_next_link`.
    """

    _dialer: Dialer
    _builder: MessageBuilder
    _outbox: MemoryOutbox
    _sampler: Sampler
    _ticker: Ticker
    _states: StateMachine
    _backoff: Backoff
    _bell: Doorbell
    _timing: Timing
    _on_steady: Callable[[], Awaitable[None]]
    engine_id: str | None = field(default=None, init=False)
    sender: Sender | None = field(default=None, init=False)
    last_failure: NetworkError | None = field(default=None, init=False)
    _told: set[str] = field(factory=set, init=False)
    """Failures since a link last was healthy, which are logged once each."""
    _steady_since: float = field(default=math.inf, init=False)
    dials: int = field(default=0, init=False)
    links: int = field(default=0, init=False)

    async def run(self) -> None:
        """Connect, deliver and reconnect until cancelled; then flush over the link there is."""
        failure = await self._until_lost(self._first_link)
        while True:
            async with self._states.alive("Failed"):
                self._note_failure(failure)
            async with self._states.alive("Disconnected"):
                await trio.sleep(self._backoff.wait_s(failure))
                failure = await self._until_lost(self._next_link)

    async def _first_link(self, sender: Sender) -> None:
        await self._introduce(sender)
        async with self._states.alive("Connected"):
            self._steady_since = trio.current_time()
            await self._on_steady()
            await sender.steady()

    async def _next_link(self, sender: Sender) -> None:
        async with self._states.alive("Reconnecting"):
            await self._introduce(sender)
        async with self._states.alive("CatchingUp"):
            await sender.drain()
        async with self._states.alive("Reconnected"):
            self._steady_since = trio.current_time()
            await self._on_steady()
            await sender.steady()

    async def _introduce(self, sender: Sender) -> None:
        self._ticker.set_data_log_interval(self._sampler.introduce().data_log_interval_seconds)
        await sender.introduce()
        self._backoff.reset()

    async def _until_lost(self, deliver: Callable[[Sender], Awaitable[None]]) -> NetworkError:
        """Dial and deliver over the link; return why it was lost or did not come about."""
        failure: BaseException | None = None
        try:
            async with trio.open_nursery() as link:
                self.dials += 1
                session: Session = await link.start(
                    self._dialer.dial, self._builder.create_register_engine_msg(), self._timing
                )
                await self._hold(link, session, deliver)
        except* NetworkError as group:
            failure = group
        while isinstance(failure, BaseExceptionGroup):
            failure = failure.exceptions[0]
        assert isinstance(failure, NetworkError), "a link ends by an error or a cancellation"
        return failure

    async def _hold(
        self,
        link: trio.Nursery,
        session: Session,
        deliver: Callable[[Sender], Awaitable[None]],
    ) -> None:
        self.links += 1
        self.engine_id = session.engine_id
        self.sender = sender = Sender(session, self._outbox, self._bell)
        try:
            with self._ticker.linked():
                await deliver(sender)
        except BaseException:
            if not link.cancel_scope.cancel_called:  # not the link: the root ends, or is to end
                # Shielded from the root for the last flush, but not from the end of the link.
                link.cancel_scope.shield = True
                await self._flush(sender, session)  # noqa: ASYNC102
            raise
        finally:
            link.cancel_scope.shield = False  # or the root's cancellation would end here
            self.sender = None
            session.abort()

    async def _flush(self, sender: Sender, session: Session) -> None:
        """Send what waits, for `flush_s` at most, or until the link is lost.

        In either case it returns: what began the flush must not be lost for a Cancelled.
        """
        try:
            with trio.move_on_after(self._timing.flush_s):
                async with self._states.alive("Stopped"):
                    await sender.drain()
                    await session.aclose()
        except* trio.Cancelled:  # noqa: ASYNC103 - its scope is the link's, which is cancelled
            pass

    def _note_failure(self, failure: NetworkError) -> None:
        # Once loudly; an aggregator that is away for a night shall not fill the log.
        if trio.current_time() - self._steady_since > HEALTHY_S:
            self._told.clear()
        self._steady_since = math.inf
        level = logging.DEBUG if str(failure) in self._told else logging.WARNING
        logger.log(level, "%s", failure)
        self._told.add(str(failure))
        self.last_failure = failure
