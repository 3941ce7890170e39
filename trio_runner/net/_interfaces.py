"""What the runner sees of the network: a dialer, which opens links, and the session on each."""

from collections.abc import Awaitable, Callable
from typing import Protocol

import trio

from trio_runner._timing import Timing
from trio_runner._warnings import Warnings
from trio_runner.protocol import engine_messages as em
from trio_runner.protocol import messages as m

StreamOpener = Callable[[str, int], Awaitable[trio.abc.Stream]]
"""Opens a byte stream to a host and port; raises OSError, or DialError with its own text.

`trio.open_tcp_stream` is an example."""

Answered = Callable[[m.MessageBase], None]
"""Called in Trio's thread with the answer to a message; may raise NetworkError to end the link."""


class Session(Protocol):
    """What speaks over one link with the aggregator, from "ready" to the link's end."""

    @property
    def engine_id(self) -> str:
        """The id that the aggregator gave this engine."""

    @property
    def bytes_sent(self) -> int:
        """How many bytes of websocket frames have been sent."""

    def send(
        self, sequence_number: int, packed: bytes, answered: Answered, *, patience: int = 1
    ) -> None:
        """Queue a message, packed by `protocol.pack`, for sending and return at once.

        The answer may take `patience` times `Timing.call_s`. Messages go out in the order of the
        calls. If the link ends before the answer, `answered` is never called and the outcome is
        unknown.
        """

    async def aclose(self) -> None:
        """Close the link properly, within 1 s; the session's task then ends without an error.

        If cancelled, the link is cut.
        """

    def abort(self) -> None:
        """Cut the link at once; the session's task then ends without an error."""


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

        Once started, the task is shielded from cancellation, so that a runner that is cancelled can
        still flush over the link. `Session.aclose` and `Session.abort` end it.

        Raises DialError if there is no link within `timing.dial_s`, and LinkLost if the link ends
        other than by our own close.
        """

    def warn_by(self, warnings: Warnings) -> None:
        """Set where to queue warnings about the unit's commands, for the unit's error log."""

    async def end_commands(self) -> None:
        """Cancel the aggregator's commands that are still being carried out.

        They live outside the links and the runner's tasks. Wait for them for at most 1 s; a command
        that cannot be cancelled is left behind and logged.
        """
