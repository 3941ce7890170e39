"""Registration over HTTP, which gives the engine its id.

HTTP runs on httpcore2, since it takes the byte streams from us: the same code runs over TCP and
over streams in memory. It knows no proxies, and neither does the websocket.
"""

import logging
from contextlib import aclosing
from typing import Any

import httpcore2
import trio
from attrs import define, field, frozen

from trio_runner import protocol
from trio_runner._errors import (
    AggregatorUnreachable,
    AlreadyConnected,
    DialError,
    NotAnAggregator,
    SecretRefused,
    VersionRefused,
)
from trio_runner._printable import printable
from trio_runner.net._address import USER_AGENT, Address
from trio_runner.protocol import aggregator_messages as am
from trio_runner.protocol import engine_messages as em

logger = logging.getLogger(__name__)

REPLY_BYTES_MAX = 64 * 1024
"""More than any reply of an aggregator's has (bytes); a longer one is not an aggregator's."""

GATEWAY_STATUS = {502, 503, 504}
"""What a reverse proxy answers while the aggregator behind it is away."""


async def register(address: Address, message: em.RegisterEngineMsg) -> str:
    """Register with the aggregator and return the engine id.

    Raises DialError, its subclass telling why; OSError as `Address.open` does. If cancelled, the
    aggregator may know the engine, which is no harm.
    """
    logger.info("Registering for engine id at %s", address)
    status, content = await _post(address, protocol.encode_json(message).encode())
    if status in GATEWAY_STATUS:
        raise no_aggregator_behind(address, status)
    reply = _decode_reply(address, status, content)
    if reply.success and reply.engine_id:
        if reply.version_match is False:
            logger.warning(
                "The aggregator at %s is of version %s, this engine of %s: ignored, as it was told"
                " to. Install the same version on both sides.",
                address,
                printable(reply.aggregator_build_number),
                message.engine_version,
            )
        return reply.engine_id
    raise _refusal(address, message, reply)


def no_aggregator_behind(address: Address, status: int) -> AggregatorUnreachable:
    """Return the error that tells of a reverse proxy without its aggregator."""
    return AggregatorUnreachable(
        f"A proxy answers for the aggregator at {address} with HTTP status {status}."
        " Is the aggregator running?"
    )


def _decode_reply(address: Address, status: int, content: bytes) -> am.RegisterEngineReplyMsg:
    if status == 200:
        try:
            reply = protocol.decode_json(content.decode())
        except (protocol.DecodeError, UnicodeDecodeError):
            pass
        else:
            if isinstance(reply, am.RegisterEngineReplyMsg):
                return reply
    raise NotAnAggregator(
        f"What answers at {address} is not an Open Pectus aggregator (HTTP status {status} for a"
        " registration). Check host and port."
    )


def _refusal(
    address: Address, message: em.RegisterEngineMsg, reply: am.RegisterEngineReplyMsg
) -> DialError:
    if reply.secret_match is False:
        return SecretRefused(
            f"The aggregator at {address} refused the secret. Give this engine the secret that the"
            " aggregator was started with."
        )
    if reply.version_match is False:
        wanted = printable(reply.aggregator_build_number)
        return VersionRefused(
            f"The aggregator at {address} wants engines of version {wanted}, this one is"
            f" {message.engine_version}. Install that version, or let this engine ignore the"
            " version error.",
            wanted=wanted,
        )
    if reply.success:
        return NotAnAggregator(f"The aggregator at {address} gave this engine no id.")
    name = printable(reply.engine_id or message.uod_name)
    return AlreadyConnected(
        f"The aggregator at {address} still holds a connection of engine {name}. If no other engine"
        " of that name runs, it will drop the old connection within 40 s."
    )


async def _post(address: Address, content: bytes) -> tuple[int, bytes]:
    """Return status and body of the answer."""
    # Opened out here, since httpcore2 strips errors of their cause, which tells what to do.
    stream = await address.open()
    try:
        return await _exchange(address, content, _Stream(stream, address))
    finally:
        await trio.aclose_forcefully(stream)


async def _exchange(address: Address, content: bytes, stream: "_Stream") -> tuple[int, bytes]:
    # httpcore2's own Host header has an IPv6 address without brackets.
    host = address.authority.encode("idna").decode()
    headers = [("Host", host), ("Content-Type", "application/json"), ("User-Agent", USER_AGENT)]
    try:
        async with (
            httpcore2.AsyncConnectionPool(network_backend=_Backend(stream)) as pool,
            pool.stream(
                "POST", f"http://{host}/engine-rest", headers=headers, content=content
            ) as response,
            aclosing(response.aiter_stream()) as chunks,
        ):
            body = b""
            async for chunk in chunks:
                body += chunk
                if len(body) > REPLY_BYTES_MAX:
                    raise NotAnAggregator(f"What answers at {address} answers without end.")
            return response.status, body
    except httpcore2.RemoteProtocolError as error:
        if stream.ended:
            raise AggregatorUnreachable(
                f"The connection to {address} was closed during the registration. Is the aggregator"
                " just starting or stopping, or does it want a secure connection?"
            ) from error
        raise _no_http(address) from None  # its text quotes the peer, who may echo our secret


def _no_http(address: Address) -> NotAnAggregator:
    return NotAnAggregator(
        f"What answers at {address} does not speak HTTP as expected. Check host, port and whether"
        " it wants a secure connection."
    )


@define
class _Stream(httpcore2.AsyncNetworkStream):
    """A Trio stream as httpcore2 wants it; its end and its times are not httpcore2's to rule."""

    _stream: trio.abc.Stream
    _address: Address
    _began: bool = field(default=False, init=False)
    ended: bool = field(default=False, init=False)

    async def read(self, max_bytes: int, timeout: float | None = None) -> bytes:  # noqa: ASYNC109
        data = bytes(await self._stream.receive_some(max_bytes))
        if not self._began and not b"HTTP/".startswith(data[:5]):
            raise _no_http(self._address)  # at once: a greeting may be all that comes
        self._began = True
        self.ended = not data
        return data

    async def write(self, buffer: bytes, timeout: float | None = None) -> None:  # noqa: ASYNC109
        if buffer:
            try:
                await self._stream.send_all(buffer)
            except trio.BrokenResourceError as error:
                # httpcore2 masks it, to read what the peer may have said before it closed.
                raise httpcore2.WriteError from error

    async def aclose(self) -> None:
        await trio.lowlevel.checkpoint()


@frozen
class _Backend(httpcore2.AsyncNetworkBackend):
    """Hands httpcore2 the stream that is open already."""

    _stream: _Stream

    async def connect_tcp(self, *_: Any, **__: Any) -> httpcore2.AsyncNetworkStream:
        await trio.lowlevel.checkpoint()
        return self._stream
