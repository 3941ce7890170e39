"""The task tree of a runner: every nursery above the network is opened on this page.

    root nursery
    ├ ticker                        samples the engine into the outbox, link or no link
    ├ committer                     with a durable outbox
    └ connector                     wait, dial, link, again
        └ link nursery              lives exactly as long as one dial and its connection
            ├ session               dials; then frames in and out, pings, deadlines
            └ senders' nursery
                ├ buffer sender         introduces the engine, drains the outbox; ends by starting
                └ steady-state sender   the next one

Taking samples and sending them never wait for each other. The ticker puts into the outbox, a sender
takes out of it, and all that they tell each other is a ring of the doorbell, a memory channel.

What may cancel what, in this order, and what each cancellation leaves behind:

1. A NetworkError of the session cancels the link nursery and nothing else. Its senders, or the last
   flush, end where they wait. What they sent without an answer is in flight in the outbox, and the
   next link puts it back. The connector reports the error and goes on.
2. `shutdown()`, the caller, or a bug in any task cancels the root. The cancellation reaches the
   ticker, which takes a sample whole or not at all; the connector where it waits or dials, which
   leaves no stream open; and the senders, as above. It does not reach a session that is ready:
   that shields itself, or there would be no link to flush over.
3. When that has ended the senders, the connector flushes over their link. The flush is shielded
   from the root but not from its link, and has `flush_s`. Then the connector cuts the session, and
   the cancellation goes on to the root.
4. The aggregator's commands are carried out outside this tree, since nobody can promise that an
   engine's handler ends. At the end of the connector, after the flush, they are cancelled and
   waited for, 1 s at most.
5. The end of the connector cancels the committer, which is shielded until then because the power
   may fail during the last flush or while handlers end. A commit that has begun is not waited for.
   It goes on in its thread, which is left behind if the disk hangs. One more commit is tried at the
   end.
"""

import logging
import math
from collections.abc import Awaitable, Callable, Generator
from contextlib import contextmanager

import trio
from attrs import define, evolve, field, frozen

from trio_runner._again import Again
from trio_runner._away import Away
from trio_runner._backoff import Backoff, Turns
from trio_runner._engine import MessageBuilder
from trio_runner._errors import NetworkError
from trio_runner._groups import first
from trio_runner._histogram import Durations
from trio_runner._intake import Intake
from trio_runner._outbox import COMMIT_S, Outbox
from trio_runner._publish import Doorbell
from trio_runner._run_var import of_this_run
from trio_runner._sender import Sender
from trio_runner._states import RecoverState, StateMachine
from trio_runner._ticker import Ticker
from trio_runner._timing import Timing
from trio_runner.net import Dialer, Session
from trio_runner.protocol import engine_messages as em

logger = logging.getLogger(__name__)

LIVED_S = 10
"""A link is healthy if it served for so long (s) after its introduction, and delivered something if
anything waited. The next wait is then short again. Links that break at once, or deliver nothing,
are dialled ever more seldom."""

END_S = 1
"""How long each of the last steps may take (s): two changes of state and a commit."""

DESCRIBE_S = 1
"""The time between two tries to describe the unit (s), if the engine fails to."""

_turns: trio.lowlevel.RunVar[Turns] = trio.lowlevel.RunVar("turns")
"""Whose turn it is to dial, among all runners of a Trio run."""

Offload = Callable[[Callable[[], None]], Awaitable[None]]


async def offload_to_thread(work: Callable[[], None]) -> None:
    """Run work that may wait for a disk in a thread. If cancelled, abandon the thread."""
    await trio.to_thread.run_sync(work, abandon_on_cancel=True)


@frozen
class _Names:
    """The states that the steps of one attempt to have a link go through."""

    dial: RecoverState
    introduction: RecoverState
    backlog: RecoverState | None
    """None for the first link, where what waits goes out in steady state."""
    steady: RecoverState


FIRST = _Names("Started", "Started", None, "Connected")
LATER = _Names("Disconnected", "Reconnecting", "CatchingUp", "Reconnected")


@define(eq=False, kw_only=True)
class Tree:
    """The tasks of a runner, from the start to the end of `run`."""

    _dialer: Dialer
    _builder: MessageBuilder
    _outbox: Outbox
    _states: StateMachine
    _backoff: Backoff
    _timing: Timing
    _offload: Offload
    _on_steady: Callable[[], Awaitable[None]]
    _clock: Callable[[], float]
    intake: Intake = field(init=False)
    bell: Doorbell = field(factory=Doorbell, init=False)
    _commit_bell: Doorbell = field(factory=Doorbell, init=False)
    connector: "Connector" = field(init=False)
    ticker: Ticker = field(init=False)
    _committing: trio.CancelScope = field(factory=lambda: trio.CancelScope(shield=True), init=False)

    def __attrs_post_init__(self) -> None:
        self.intake = Intake(self._builder, self._outbox, self._clock)
        self.ticker = Ticker(self.intake, self._timing, self.bell.ring)
        self.connector = Connector(
            dialer=self._dialer,
            outbox=self._outbox,
            intake=self.intake,
            ticker=self.ticker,
            states=self._states,
            backoff=self._backoff,
            bell=self.bell,
            timing=self._timing,
            on_steady=self._on_steady,
        )

    async def run(self, started: Callable[[], None]) -> None:
        """Run until cancelled, flush, and go to ShutdownComplete.

        Call `started` when the tasks have been started. Raises what ended a task, in a group.
        """
        try:
            async with trio.open_nursery() as root:
                root.start_soon(self.ticker.run, name="ticker")
                root.start_soon(self._connect, root, name="connector")
                if self._outbox.is_durable:
                    self._outbox.commit_wanted = self._commit_bell.from_any_thread()
                    root.start_soon(self._keep_committing, name="committer")
                started()
        finally:
            await self._end()  # noqa: ASYNC102 - each step is shielded in there

    async def _connect(self, root: trio.Nursery) -> None:
        self.connector.stop = root.cancel_scope.cancel
        try:
            await self.connector.run()
        finally:
            root.cancel_scope.cancel()  # after a bug too, take no samples while handlers end
            try:
                await self._stop()  # noqa: ASYNC102 - each step is shielded in there
            finally:
                self._committing.cancel()

    async def _stop(self) -> None:
        """Go to Stopped, unless the flush has, and let the engine's handlers end."""
        self.connector.away.without_link()
        try:
            with trio.move_on_after(END_S, shield=True):
                await self._states.enter("Stopped")
        finally:
            with trio.CancelScope(shield=True):
                await self._dialer.end_commands()

    async def _keep_committing(self) -> None:
        """Commit every `COMMIT_S` and whenever something waits for it; then wake the sender."""
        due_at = trio.current_time() + COMMIT_S
        with self._committing:
            while True:
                with trio.move_on_at(due_at) as waiting:
                    await self._commit_bell.wait()
                if waiting.cancelled_caught:
                    due_at = trio.current_time() + COMMIT_S
                await self._offload(self._outbox.commit)
                self.bell.ring()

    async def _end(self) -> None:
        """Write what is not on the disk yet, and go to ShutdownComplete whatever callbacks do."""
        try:
            if self._outbox.is_durable:
                self._outbox.commit_wanted = None
                with trio.move_on_after(END_S, shield=True):
                    await self._offload(self._outbox.commit)
            self._tell_what_is_left()
        finally:
            with trio.move_on_after(END_S, shield=True):
                await self._states.enter("ShutdownComplete")

    def _tell_what_is_left(self) -> None:
        if not len(self._outbox):
            return
        text = "Stopped; messages not delivered: %d. They are %s"
        logger.warning(text, len(self._outbox), self._outbox.fate())


@define(eq=False, kw_only=True)
class Connector:
    """Keeps a link and delivers over it."""

    _dialer: Dialer
    _outbox: Outbox
    _intake: Intake
    _ticker: Ticker
    _states: StateMachine
    _backoff: Backoff
    _bell: Doorbell
    _timing: Timing
    _on_steady: Callable[[], Awaitable[None]]
    stop: Callable[[], None] = field(init=False)
    """Cancels the root."""
    registration: em.RegisterEngineMsg = field(init=False)
    """The last that the engine could make; the runner sets the first."""
    engine_id: str | None = field(default=None, init=False)
    sender: Sender | None = field(default=None, init=False)
    away: Away = field(init=False)
    answer_s: Durations = field(factory=Durations, init=False)
    """From the sending of a sample to its answer (s)."""
    _again: Again = field(init=False)
    """What is known of telling each kind of state, and the run that is on, over all links."""
    _serves_since: float = field(default=math.inf, init=False)
    _delivered_before: int = field(default=0, init=False)
    """How many messages had been delivered at that moment."""
    _left: int = field(default=0, init=False)
    """How many messages an earlier process has left in the outbox."""
    _last: int = field(default=0, init=False)
    """The number of the last of them."""
    turns: Turns | None = field(default=None, init=False)
    """None for the turns of this process. A simulation of many processes gives each its own."""
    dials: int = field(default=0, init=False)
    links: int = field(default=0, init=False)
    _bytes_sent: int = field(default=0, init=False)
    """By all links that have ended."""

    def __attrs_post_init__(self) -> None:
        self.away = Away(self._outbox)
        self._again = Again(self._outbox.warnings, self._timing.call_s)

    @property
    def bytes_sent(self) -> int:
        """How many bytes have left over all links."""
        return self._bytes_sent + (self.sender.bytes_sent if self.sender is not None else 0)

    async def run(self) -> None:
        """Connect, deliver and reconnect until cancelled; then flush over the link there is."""
        self.away.without_link()
        self._left, self._last = len(self._outbox), self._outbox.last_number
        await self._take_turn()
        failure = await self._until_lost(FIRST)
        while True:
            async with self._states.alive("Failed"):
                self._note_failure(failure)
            async with self._states.alive("Disconnected"):
                await trio.sleep(self._backoff.wait_s(failure, self.away.for_s()))
                await self._take_turn()
            failure = await self._until_lost(LATER)

    async def _take_turn(self) -> None:
        turns = self.turns or of_this_run(_turns, Turns)
        await trio.sleep_until(turns.take(trio.current_time()))

    async def _until_lost(self, names: _Names) -> NetworkError:
        """Dial, deliver over the link, and return why it was lost or did not come about."""
        failure: BaseException | None = None
        try:
            async with trio.open_nursery() as link:
                async with self._states.alive(names.dial):
                    session = await self._dial(link)
                await self._hold(link, session, names)
        except* NetworkError as group:
            failure = first(group)
        assert isinstance(failure, NetworkError), "a link ends by an error or a cancellation"
        return failure

    async def _dial(self, link: trio.Nursery) -> Session:
        self.dials += 1
        self.registration = self._intake.register() or self.registration
        timing = evolve(self._timing, dial_s=self._timing.dial_s * self._backoff.patience)
        began = trio.current_time()
        session: Session = await link.start(
            self._dialer.dial, self.registration, timing, name="session"
        )
        self._backoff.let_in(trio.current_time() - began)
        self.links += 1
        self.engine_id = session.engine_id
        return session

    async def _hold(self, link: trio.Nursery, session: Session, names: _Names) -> None:
        """Deliver until the link or the root is cancelled; see the rules above."""
        in_flight = self._outbox.in_flight
        self._outbox.rewind(beside=self._again.under_way > 0)
        self._again.rewind(alone=not in_flight)
        self.sender = sender = Sender(session, self._outbox, self._bell, self.answer_s, self._again)
        try:
            with self._ticker.linked():
                async with trio.open_nursery() as senders:
                    senders.start_soon(self._catch_up, sender, senders, names, name="buffer sender")
        except BaseException:
            if not link.cancel_scope.cancel_called:  # not the link: the root ends, or is to end
                with _shielded_from_the_root(link):
                    self.stop()
                    await self._flush(sender, session)  # noqa: ASYNC102
            raise
        finally:
            self._bytes_sent, self.sender = self.bytes_sent, None
            session.abort()

    async def _catch_up(self, sender: Sender, senders: trio.Nursery, names: _Names) -> None:
        """Be the buffer sender: introduce the engine, send what has waited, then hand over."""
        async with self._states.alive(names.introduction):
            await self._describe()
            await sender.introduce()
            self._serves_since = trio.current_time()
            self._delivered_before = self._outbox.statistics().delivered
            self.away.introduced()
        if names.backlog is not None:
            async with self._states.alive(names.backlog):
                await sender.drain()
        senders.start_soon(self._stay, sender, names.steady, name="steady-state sender")

    async def _describe(self) -> None:
        """Ask the engine what a new link must tell, until its unit has been described once.

        Without a description an aggregator throws samples away.
        """
        while (uod_info := self._intake.introduce()) is None:
            if self._outbox.state(em.UodInfoMsg) is not None:
                return
            await trio.sleep(DESCRIBE_S)
        self._ticker.set_data_log_interval(uod_info.data_log_interval_seconds)

    async def _stay(self, sender: Sender, state: RecoverState) -> None:
        """Be the steady-state sender: send messages as they come."""
        async with self._states.alive(state):
            self.away.over()
            await self._on_steady()
            if state == FIRST.steady and self._left:
                await sender.clear(self._last)
                text = "What waited from before the start is delivered; messages: %d"
                logger.info(text, self._left)
            await sender.steady()

    async def _flush(self, sender: Sender, session: Session) -> None:
        """Send what waits, for `flush_s` at most or until the link is lost.

        Always return, so that the exception which started the flush is the one that propagates.
        """
        try:
            with trio.move_on_after(self._timing.flush_s):
                async with self._states.alive("Stopped"):
                    await sender.drain()
                    await session.aclose()
        except* trio.Cancelled:  # noqa: ASYNC103 - its scope is the link's, which is cancelled
            pass

    def _note_failure(self, failure: NetworkError) -> None:
        outbox = self._outbox.statistics()
        has_delivered = outbox.delivered > self._delivered_before or not outbox.waiting
        if has_delivered and trio.current_time() - self._serves_since > LIVED_S:
            self._backoff.reset()
        self._serves_since = math.inf
        self.away.failed(failure)


@contextmanager
def _shielded_from_the_root(link: trio.Nursery) -> Generator[None, None, None]:
    """Let only the link's own end cancel the block.

    The shield goes down again at the end of the block. A scope that is still shielded would take a
    cancellation from outside for its own, and the root would go on.
    """
    link.cancel_scope.shield = True
    try:
        yield
    finally:
        link.cancel_scope.shield = False
