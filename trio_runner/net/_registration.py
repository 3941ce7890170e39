"""Registration over HTTP, which gives the engine its id.

HTTP runs on httpcore2, since it takes the byte streams from us: the same code runs over TCP and
over streams in memory. It knows no proxies, and neither does the websocket.
"""

import logging
from typing import Any

import httpcore2
import trio
from attrs import define, field, frozen

from trio_runner import protocol
from trio_runner._errors import (
    AggregatorUnreachable,
    AlreadyConnected,
    NotAnAggregator,
    RegistrationRefused,
    SecretRefused,
    VersionRefused,
)
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
    logger.info("Registering for engine id")
    status, content = await _post(address, protocol.encode_json(message).encode())
    if status in GATEWAY_STATUS:
        raise AggregatorUnreachable(
            f"A proxy answers for the aggregator at {address} with HTTP status {status}."
            " Is the aggregator running?"
        )
    reply = _decode_reply(address, status, content)
    if reply.success and reply.engine_id:
        return reply.engine_id
    raise _refusal(address, message, reply)


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
) -> RegistrationRefused | AlreadyConnected:
    if reply.secret_match is False:
        return SecretRefused(
            f"The aggregator at {address} refused the secret. Give this engine the secret that the"
            " aggregator was started with."
        )
    if reply.version_match is False:
        wanted = reply.aggregator_build_number
        return VersionRefused(
            f"The aggregator at {address} wants engines of version {wanted}, this one is"
            f" {message.engine_version}. Install that version, or let this engine ignore the"
            " version error.",
            wanted=wanted,
        )
    return AlreadyConnected(
        f"The aggregator at {address} still holds a connection of engine"
        f" {reply.engine_id or message.uod_name}. If no other engine of that name runs, it will"
        " drop the old connection within 40 s."
    )


async def _post(address: Address, content: bytes) -> tuple[int, bytes]:
    """Return status and body of the answer."""
    backend = _Backend(address)
    headers = [("Content-Type", "application/json"), ("User-Agent", USER_AGENT)]
    try:
        async with (
            httpcore2.AsyncConnectionPool(network_backend=backend) as pool,
            pool.stream(
                "POST", f"http://{address.authority}/engine-rest", headers=headers, content=content
            ) as response,
        ):
            body = b""
            async for chunk in response.aiter_stream():
                body += chunk
                if len(body) > REPLY_BYTES_MAX:
                    raise NotAnAggregator(f"What answers at {address} answers without end.")
            return response.status, body
    except httpcore2.RemoteProtocolError as error:
        if backend.stream_ended:
            raise AggregatorUnreachable(
                f"The connection to {address} was closed during the registration. Is the aggregator"
                " just starting or stopping, or does it want a secure connection?"
            ) from error
        raise NotAnAggregator(
            f"What answers at {address} does not speak HTTP as expected: {error}."
            " Check host, port and whether it wants a secure connection."
        ) from error


@define
class _Backend(httpcore2.AsyncNetworkBackend):
    """Lets httpcore2 open its connection as `Address.open` does, TLS included."""

    _address: Address
    stream_ended: bool = field(default=False, init=False)

    async def connect_tcp(
        self, host: str, port: int, *_: Any, **__: Any
    ) -> httpcore2.AsyncNetworkStream:
        return _Stream(await self._address.open(), self)


@frozen
class _Stream(httpcore2.AsyncNetworkStream):
    """A Trio stream as httpcore2 wants it; times are the dial's to limit, so none are kept here."""

    _stream: trio.abc.Stream
    _backend: _Backend

    async def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        data = bytes(await self._stream.receive_some(max_bytes))
        self._backend.stream_ended = not data
        return data

    async def write(self, buffer: bytes, timeout: float | None = None) -> None:
        if buffer:
            await self._stream.send_all(buffer)

    async def aclose(self) -> None:
        await self._stream.aclose()
