"""From an address to a session that is ready: register, open, upgrade, greet."""

import math
import socket
import ssl
from collections.abc import Callable, Iterator

import trio
import trio_websocket
import wsproto.utilities

from trio_runner._errors import (
    AggregatorUnreachable,
    LinkLost,
    NetworkError,
    NotAnAggregator,
)
from trio_runner._timing import Timing
from trio_runner.net._address import USER_AGENT, Address
from trio_runner.net._interfaces import Session
from trio_runner.net._registration import register
from trio_runner.net._session import Dispatch, RpcSession
from trio_runner.protocol import engine_messages as em

FRAME_BYTES_MAX = 16 * 1024 * 1024
"""The largest message taken from the aggregator (bytes); its own server takes as much from us."""

QUEUE_MAX = 64
"""Messages that trio-websocket holds for our reader; with few, a burst would starve its pings."""

_NETWORK_FAILURES = (
    NetworkError,
    trio.TooSlowError,
    OSError,
    ssl.SSLError,
    trio.BrokenResourceError,
    trio.ClosedResourceError,
    trio_websocket.ConnectionClosed,
    trio_websocket.HandshakeError,
    # Its reader lets these out when the peer breaks the protocol, or pings us behind our close.
    wsproto.utilities.ProtocolError,
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
    translate = _why_no_link
    try:
        with trio.CancelScope() as wire, trio.fail_after(timing.dial_s) as patience:
            engine_id = await register(address, registration)
            stream = await address.open()
            try:
                async with trio.open_nursery() as nursery:
                    websocket = await _upgrade(nursery, stream, address)
                    session = RpcSession(
                        websocket, engine_id, timing, dispatch, nursery.cancel_scope.cancel
                    )
                    nursery.start_soon(session.run)
                    await session.ready()
                    translate = _why_lost
                    patience.deadline = math.inf
                    wire.shield = True
                    task_status.started(session)
            finally:
                await trio.aclose_forcefully(stream)
    except BaseException as error:
        raise _network_error(error, address, timing, translate) from error


async def _upgrade(
    nursery: trio.Nursery, stream: trio.abc.Stream, address: Address
) -> trio_websocket.WebSocketConnection:
    # Typed for sockets, it takes any stream.
    return await trio_websocket.wrap_client_stream(
        nursery,
        stream,  # type: ignore[arg-type]
        address.authority,
        "/engine-rpc",
        extra_headers=[(b"User-Agent", USER_AGENT.encode())],
        message_queue_size=QUEUE_MAX,
        max_message_size=FRAME_BYTES_MAX,
    )


Translate = Callable[[Exception, Address, Timing], NetworkError]


def _network_error(
    error: BaseException, address: Address, timing: Timing, translate: Translate
) -> BaseException:
    """Return the one NetworkError that tells what happened to the link.

    What is more than the network's failure, a cancellation or a bug, comes back as it is.
    """
    failures, more = _split(error)
    if more is not None:
        return more
    for failure in failures:
        if isinstance(failure, NetworkError):
            return failure
    return translate(failures[0], address, timing)


def _split(error: BaseException) -> tuple[list[Exception], BaseException | None]:
    """Return the failures of the network in an exception or group, and the rest."""
    if isinstance(error, BaseExceptionGroup):
        network, more = error.split(_NETWORK_FAILURES)
        return (list(_leaves(network)) if network else []), more
    if isinstance(error, _NETWORK_FAILURES):
        return [error], None
    return [], error


def _leaves(error: BaseException) -> Iterator[Exception]:
    if isinstance(error, BaseExceptionGroup):
        for inner in error.exceptions:
            yield from _leaves(inner)
    elif isinstance(error, Exception):
        yield error


def _why_lost(failure: Exception, address: Address, timing: Timing) -> NetworkError:
    return LinkLost(f"The connection to {address} broke off: {failure!r:.200}")


def _why_no_link(failure: Exception, address: Address, timing: Timing) -> NetworkError:
    cause = failure.__cause__
    if isinstance(failure, trio.TooSlowError):
        return AggregatorUnreachable(
            f"{address} did not let us in within {timing.dial_s:g} s. Is the host up, and does no"
            " firewall stand between?"
        )
    if isinstance(failure, trio_websocket.ConnectionRejected):
        return NotAnAggregator(
            f"What answers at {address} is not an Open Pectus aggregator (HTTP status"
            f" {failure.status_code} for a websocket). Check host and port, and a proxy's settings."
        )
    if isinstance(cause, ssl.SSLCertVerificationError):
        return NotAnAggregator(
            f"The certificate of {address} is not trusted: {cause.verify_message}. If the"
            " aggregator has a certificate of your own authority, give its CA file."
        )
    if isinstance(cause, ssl.SSLError):
        return NotAnAggregator(
            f"What answers at {address} does not speak TLS ({cause.reason}). Check the port, or"
            " dial it without a secure connection."
        )
    if isinstance(failure, wsproto.utilities.ProtocolError):
        return NotAnAggregator(
            f"What answers at {address} does not speak websocket: {failure}. Check host and port."
        )
    if isinstance(failure, socket.gaierror):
        return AggregatorUnreachable(f"The host {address.host} is unknown. Is its name right?")
    if _is_refusal(failure):
        return AggregatorUnreachable(
            f"Nothing answers at {address}: connection refused. Is the aggregator running there?",
            refused=True,
        )
    return AggregatorUnreachable(f"The connection to {address} failed: {failure!r:.200}")


def _is_refusal(failure: Exception) -> bool:
    """Tell whether the host refused, at every address that its name has (Trio groups those)."""
    causes = list(_leaves(failure.__cause__)) if failure.__cause__ else [failure]
    return all(isinstance(cause, ConnectionRefusedError) for cause in causes)
