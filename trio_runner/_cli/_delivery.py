"""Deliver the outbox of an engine that has ended, until it is empty or going on is useless."""

from collections.abc import Awaitable, Callable

import trio
from attrs import define, field

from trio_runner import (
    AlreadyConnected,
    EngineRunner,
    NetworkError,
    SecretRefused,
    Timing,
    VersionRefused,
)
from trio_runner._warnings import Warnings
from trio_runner.net import Dialer, Session
from trio_runner.protocol import engine_messages as em

TWIN_S = 60
"""How long the aggregator may say that an engine of that name is connected (s). It drops a dead
connection within 40 s, so after this time another engine really is connected."""

LOOK_S = 0.2
"""How often to look at what is left (s)."""


@define(eq=False)
class WatchedDialer:
    """A dialer that notices when only a person can help, so that dialling on is useless.

    It dials through another one, and raises what that raises.
    """

    _dialer: Dialer
    refusal: str | None = field(default=None, init=False)
    """Why the aggregator will not let us in, and what to do."""
    _refused: trio.Event = field(factory=trio.Event, init=False)
    _twin_since: float | None = field(default=None, init=False)

    async def dial(
        self,
        registration: em.RegisterEngineMsg,
        timing: Timing,
        *,
        task_status: trio.TaskStatus[Session] = trio.TASK_STATUS_IGNORED,
    ) -> None:
        """See `trio_runner.net.Dialer`."""
        try:
            await self._dialer.dial(registration, timing, task_status=task_status)
        except (SecretRefused, VersionRefused) as error:
            self._give_up(str(error))
            raise
        except AlreadyConnected as error:
            self._note_twin(error)
            raise
        except NetworkError:
            self._twin_since = None  # it was another failure: time a later twin afresh
            raise

    def warn_by(self, warnings: Warnings) -> None:
        """See `trio_runner.net.Dialer`."""
        self._dialer.warn_by(warnings)

    async def end_commands(self) -> None:
        """See `trio_runner.net.Dialer`."""
        await self._dialer.end_commands()

    async def refused(self) -> None:
        """Wait until dialling on is useless."""
        await self._refused.wait()

    def _note_twin(self, error: AlreadyConnected) -> None:
        now = trio.current_time()
        if self._twin_since is None:
            self._twin_since = now
        if now - self._twin_since >= TWIN_S:
            self._give_up(f"{error} It has not done so: stop that engine first.")

    def _give_up(self, why: str) -> None:
        self.refusal = why
        self._refused.set()


async def deliver(
    runner: EngineRunner,
    dialer: WatchedDialer,
    *,
    show: Callable[[int], None],
    stopped: trio.Event,
    give_up_after_s: float,
) -> None:
    """Run a runner until all is delivered, the aggregator refuses us, or it is time to give up.

    `dialer` is the one that `runner` dials with. `show` is called repeatedly with the number of
    messages that wait. `stopped` is set when a person wants to end this. `give_up_after_s` is the
    longest time for all of it, but for the runner's shutdown. What is not delivered stays in the
    outbox, also if this is cancelled.
    """
    async with trio.open_nursery() as nursery:
        await nursery.start(runner.run)
        with trio.move_on_after(give_up_after_s):
            async with trio.open_nursery() as waiting:
                for ending in (stopped.wait, dialer.refused):
                    waiting.start_soon(_cancel_after, ending, waiting.cancel_scope)
                while runner.buffer_size:
                    show(runner.buffer_size)
                    await trio.sleep(LOOK_S)
                waiting.cancel_scope.cancel()
        await runner.shutdown()
        nursery.cancel_scope.cancel()
    show(runner.buffer_size)


async def _cancel_after(ending: Callable[[], Awaitable[None]], scope: trio.CancelScope) -> None:
    await ending()
    scope.cancel()
