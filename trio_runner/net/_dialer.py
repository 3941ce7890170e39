"""From an address to a session that is ready: register, open, upgrade, greet."""

import math
import socket
import ssl

import h11
import trio
import trio_websocket
import wsproto.utilities
from attrs import define, evolve, field

from trio_runner._errors import (
    AggregatorUnreachable,
    LinkLost,
    NetworkError,
    NotAnAggregator,
)
from trio_runner._groups import leaves
from trio_runner._printable import printable
from trio_runner._timing import Timing
from trio_runner.net._address import USER_AGENT, Address, is_refusal
from trio_runner.net._commands import Dispatch
from trio_runner.net._deflating import OFFER, Deflating
from trio_runner.net._framed import FramedStream
from trio_runner.net._interfaces import Session
from trio_runner.net._registration import register
from trio_runner.net._session import FRAME_BYTES_MAX, RpcSession
from trio_runner.net._tls import why_no_tls
from trio_runner.net._upgrade import Upgrading
from trio_runner.protocol import engine_messages as em

QUEUE_MAX = 64
"""How many messages trio-websocket holds for our reader.

With a short queue, a burst of messages would starve its pings."""

_NO_WEBSOCKET = (wsproto.utilities.ProtocolError, h11.ProtocolError, UnicodeDecodeError)
"""What is raised if the answer to the upgrade is not HTTP, not ASCII or not a consent."""

_LINK_FAILURES = (
    NetworkError,
    trio.BrokenResourceError,
    trio.ClosedResourceError,
    trio_websocket.ConnectionClosed,
    # trio-websocket's reader lets these out, even when the peer pings us after our close.
    *_NO_WEBSOCKET,
)
"""How an established link fails. An OSError is then the engine's own, for example of its disk."""

_DIAL_FAILURES = (
    *_LINK_FAILURES,
    trio.TooSlowError,
    OSError,
    trio_websocket.HandshakeError,
    UnicodeError,  # a host name that cannot be one
)


async def dial(
    address: Address,
    registration: em.RegisterEngineMsg,
    dispatch: Dispatch,
    timing: Timing,
    *,
    task_status: trio.TaskStatus[Session] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Open a link and run it until it ends; see `Dialer.dial`."""
    link = _Link(address, timing)
    try:
        await link.run(registration, dispatch, task_status)
    except BaseException as error:  # noqa: ASYNC103
        failure = link.why_ended(error)
    else:
        return
    # Raise outside the `except`, so that the original group does not become `__context__`.
    if failure is not None:
        raise failure


@define(eq=False)
class _Link:
    """A link from the first byte of its dial to its end."""

    _address: Address
    _timing: Timing
    _session: RpcSession | None = field(default=None, init=False)
    """None until it is ready."""
    _is_taken: bool = field(default=False, init=False)
    """Whether the other side has taken a connection."""

    async def run(
        self,
        registration: em.RegisterEngineMsg,
        dispatch: Dispatch,
        task_status: trio.TaskStatus[Session],
    ) -> None:
        """Dial, then run the session until it ends.

        From `task_status.started` on it is shielded. Raises whatever ended the dial or the link;
        see `why_ended`. The stream is closed in any case.
        """
        address = evolve(self._address, open_stream=self._open_stream)
        with trio.CancelScope() as wire, trio.fail_after(self._timing.dial_s) as patience:
            engine_id = await register(address, registration)
            stream = FramedStream(await address.open())
            deflating = Deflating(Upgrading(stream, address))
            try:
                async with trio.open_nursery() as nursery:
                    websocket = await _upgrade(nursery, deflating, address)
                    session = RpcSession(
                        websocket=websocket,
                        engine_id=engine_id,
                        timing=self._timing,
                        dispatch=dispatch,
                        cut=nursery.cancel_scope.cancel,
                        stream=stream,
                        deflates=deflating.is_on,
                    )
                    nursery.start_soon(session.run)
                    await session.ready()
                    # If we were cancelled just now, `started()` would be lost but the shield would
                    # stay. Let the cancellation win.
                    await trio.lowlevel.checkpoint_if_cancelled()
                    self._session = session
                    patience.deadline = math.inf
                    wire.shield = True
                    task_status.started(session)
            finally:
                await trio.aclose_forcefully(stream)

    async def _open_stream(self, host: str, port: int) -> trio.abc.Stream:
        stream = await self._address.open_stream(host, port)
        self._is_taken = True
        return stream

    def why_ended(self, error: BaseException) -> BaseException | None:
        """Return what to raise for the exception that ended the link, None if we closed the link.

        A failure of the network, alone or in a group, becomes one NetworkError. Anything else, such
        as a cancellation or a bug, is returned unchanged.
        """
        expected = _DIAL_FAILURES if self._session is None else _LINK_FAILURES
        failures, more = _split(error, expected)
        if more is not None:
            return more
        if self._session is not None and self._session.is_ending:
            return None
        for failure in failures:
            if isinstance(failure, LinkLost) and self._session is None:
                return _caused(_why_no_link(failure, self._address), failure)
            if isinstance(failure, NetworkError):
                return failure
        if self._session is None and isinstance(failures[0], trio.TooSlowError):
            return _caused(self._why_not_in_time(), error)
        translate = _why_no_link if self._session is None else _why_lost
        return _caused(translate(failures[0], self._address), error)

    def _why_not_in_time(self) -> NetworkError:
        why = "Is the host up, and is there a firewall in between?"
        if self._is_taken:
            why = "It accepts connections: is it busy, or does it hang?"
        return AggregatorUnreachable(
            f"{self._address.way} did not let us in within {self._timing.dial_s:g} s. {why}",
            in_line=self._is_taken,
        )


async def _upgrade(
    nursery: trio.Nursery, stream: trio.abc.Stream, address: Address
) -> trio_websocket.WebSocketConnection:
    # The parameter is typed for sockets, but it takes any stream.
    return await trio_websocket.wrap_client_stream(
        nursery,
        stream,  # type: ignore[arg-type]
        address.authority,
        f"{address.path}/engine-rpc",
        extra_headers=[(b"User-Agent", USER_AGENT.encode()), OFFER],
        message_queue_size=QUEUE_MAX,
        max_message_size=FRAME_BYTES_MAX,
    )


def _split(
    error: BaseException, expected: tuple[type[Exception], ...]
) -> tuple[list[BaseException], BaseException | None]:
    """Return the single exceptions in an exception or group, and what in it is not expected.

    A lone unexpected exception is taken out of its group, so that a bug propagates as raised.
    """
    single = list(leaves(error))
    more = [leaf for leaf in single if not isinstance(leaf, expected)]
    if len(more) <= 1 or not isinstance(error, BaseExceptionGroup):
        return single, more[0] if more else None
    return single, error.split(expected)[1]


def _caused(error: NetworkError, cause: BaseException) -> NetworkError:
    error.__cause__ = cause
    return error


def _why_lost(failure: BaseException, address: Address) -> NetworkError:
    return LinkLost(f"The connection to {address} broke off: {printable(repr(failure))}")


def _why_no_link(failure: BaseException, address: Address) -> NetworkError:
    cause = failure.__cause__
    if isinstance(failure, LinkLost):
        return AggregatorUnreachable(
            f"The connection to {address.way} ended before the aggregator let us in. {failure}"
        )
    if isinstance(cause, ssl.SSLError):
        return why_no_tls(str(address), cause)
    if isinstance(failure, _NO_WEBSOCKET):
        return NotAnAggregator(
            f"What answers at {address} does not speak websocket: {printable(failure)}. Check host"
            " and port."
        )
    if isinstance(failure, socket.gaierror | UnicodeError):
        return AggregatorUnreachable(f"The host {address.host} is unknown. Is its name right?")
    if is_refusal(failure):
        return AggregatorUnreachable(
            f"Nothing answers at {address}: connection refused. Is the aggregator running there?",
            refused=True,
        )
    if isinstance(failure, trio.BrokenResourceError):
        wanted = "a client certificate (--client-cert FILE)"
        if not address.ssl_context:
            wanted = "a secure connection (--secure)"
        return AggregatorUnreachable(
            f"The connection to {address.way} broke off. Is the aggregator just starting or"
            f" stopping, or does it want {wanted}?"
        )
    return AggregatorUnreachable(
        f"The connection to {address.way} failed: {printable(repr(failure))}"
    )
