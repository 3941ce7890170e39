"""What the runner sees of the network: a dialer that opens links, a session that is one."""

from collections.abc import Awaitable, Callable
from typing import Protocol

import trio

from trio_runner._timing import Timing
from trio_runner._warnings import Warnings
from trio_runner.protocol import engine_messages as em
from trio_runner.protocol import messages as m

StreamOpener = Callable[[str, int], Awaitable[trio.abc.Stream]]
"""Opens a byte stream to a host and port; raises OSError, or DialError with a text of its own.

`trio.open_tcp_stream` is one."""

Answered = Callable[[m.MessageBase], None]
"""Called in Trio's thread with the answer to a message; a NetworkError from it ends the link."""


class Session(Protocol):
    """One link to the aggregator, from the moment when it is ready to its end."""

    @property
    def engine_id(self) -> str:
        """The id that the aggregator gave this engine."""

    @property
    def bytes_sent(self) -> int:
        """How many bytes of websocket frames have left."""

    def send(
        self, sequence_number: int, packed: bytes, answered: Answered, *, patience: int = 1
    ) -> None:
        """Hand over a message, as `protocol.pack` gave it, for sending.

        Its answer may take `patience` times `Timing.call_s`. Return at once; messages go out in the
        order of the calls. If the link ends before the answer, `answered` is never called and the
        outcome is unknown.
        """

    async def aclose(self) -> None:
        """Close in order, within 1 s; the session's task then ends without an error.

        If cancelled, the link is cut.
        """

    def abort(self) -> None:
        """Cut the link at once."""


class Dialer(Protocol):
    """Opens links to one aggregator."""

    async def dial(
        self,
        registration: em.RegisterEngineMsg,
        timing: Timing,
        *,
        task_status: trio.TaskStatus[Session] = trio.TASK_STATUS_IGNORED,
    ) -> None:
        """Open a link, hand its session to `task_status.started`, and run it until it ends.

        From then on the task is shielded from cancellation, so that a runner that is cancelled can
        still flush over it; `Session.aclose` and `Session.abort` end it.

        Raises DialError if no link comes about within `timing.dial_s`, LinkLost when it ends other
        than by our close.
        """

    def warn_by(self, warnings: Warnings) -> None:
        """Queue there what the unit's people are to know of how its commands are carried out."""

    async def end_commands(self) -> None:
        """Cancel the aggregator's commands that are still being carried out.

        They live outside the links and the runner's tasks. Wait for them 1 s at most: one that
        cannot be cancelled is left behind, and told of in the log.
        """
