"""Delivers an outbox whose engine has ended, until all is delivered or there is no use in more."""

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
"""For how long an aggregator may say that an engine of that name is connected (s). A connection
that is dead it drops within 40 s."""

LOOK_S = 0.2
"""How often to look what is left (s)."""


@define(eq=False)
class Entrance:
    """A dialer that notices when there is no use in dialling on: only a person can change that."""

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
        except SecretRefused as error:
            self._give_up(f"{error} (--secret-file)")
            raise
        except VersionRefused as error:
            self._give_up(f"{error} (--ignore_version_error)")
            raise
        except AlreadyConnected as error:
            self._note_twin(error)
            raise
        except NetworkError:
            self._twin_since = None  # what is said after another link is of that one
            raise

    def warn_by(self, warnings: Warnings) -> None:
        """See `trio_runner.net.Dialer`."""
        self._dialer.warn_by(warnings)

    async def end_commands(self) -> None:
        """See `trio_runner.net.Dialer`."""
        await self._dialer.end_commands()

    async def refused(self) -> None:
        """Wait until there is no use in dialling on."""
        await self._refused.wait()

    def _note_twin(self, error: AlreadyConnected) -> None:
        now = trio.current_time()
        if self._twin_since is None:
            self._twin_since = now
        if now - self._twin_since >= TWIN_S:
            self._give_up(f"{error} It has not: stop that engine first.")

    def _give_up(self, why: str) -> None:
        self.refusal = why
        self._refused.set()


async def deliver(
    runner: EngineRunner,
    entrance: Entrance,
    *,
    show: Callable[[int], None],
    stopped: trio.Event,
    give_up_after_s: float,
) -> None:
    """Return when all is delivered, the aggregator refuses us, or it is time to give up.

    `show` is called again and again with how many messages wait. If cancelled, what is not
    delivered stays in the outbox.
    """
    async with trio.open_nursery() as nursery:
        await nursery.start(runner.run)
        with trio.move_on_after(give_up_after_s):
            async with trio.open_nursery() as waiting:
                for ending in (stopped.wait, entrance.refused):
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
