"""One HTTP request and its reply, over a byte stream that is already open.

We use httpcore2 because it accepts our own byte streams: the same code runs over TCP, through
proxies and over streams in memory.
"""

from contextlib import aclosing
from typing import Any

import httpcore2
import trio
from attrs import define, field, frozen

REPLY_BYTES_MAX = 64 * 1024
"""No reply of an aggregator's is longer (bytes); the rest of a longer one is not read."""


class NotHttp(Exception):
    """The peer does not speak HTTP. It does not quote the peer, which may echo our secret."""


class _Broke(Exception):
    """Carries an error through httpcore2, which would strip the error of its cause."""

    def __init__(self, error: trio.BrokenResourceError) -> None:
        super().__init__()
        self.error = error


class ClosedInReply(Exception):
    """The connection was closed before the reply was whole."""


@frozen
class Reply:
    """A reply; a body of more than `REPLY_BYTES_MAX` may be cut off."""

    status: int
    headers: list[tuple[bytes, bytes]]
    body: bytes

    def all_of(self, name: bytes) -> list[str]:
        """Return the values of all headers of a name, which is given in lower case."""
        return [value.decode("latin-1") for key, value in self.headers if key.lower() == name]

    def header(self, name: bytes) -> str:
        """Return the value of the first header of a name (in lower case), "" if there is none."""
        return next(iter(self.all_of(name)), "")

    @property
    def text(self) -> str:
        """The body as text, whatever it holds."""
        return self.body.decode(errors="replace")


async def exchange(
    stream: trio.abc.Stream,
    method: str,
    url: str,
    headers: list[tuple[str, str]],
    content: bytes = b"",
    extensions: dict[str, Any] | None = None,
) -> Reply:
    """Send a request and return the reply; if a CONNECT succeeds, only the reply's head.

    The stream stays open, even if this is cancelled. Raises NotHttp, ClosedInReply or
    trio.BrokenResourceError.
    """
    peer = _Stream(stream)
    try:
        async with (
            httpcore2.AsyncConnectionPool(network_backend=_Backend(peer)) as pool,
            pool.stream(
                method, url, headers=headers, content=content, extensions=extensions
            ) as response,
            aclosing(response.aiter_stream()) as chunks,
        ):
            body = b""
            async for chunk in chunks:
                body += chunk
                if len(body) > REPLY_BYTES_MAX:
                    break
            return Reply(response.status, response.headers, body)
    except _Broke as broke:
        raise broke.error from broke.error.__cause__
    except httpcore2.RemoteProtocolError as error:
        if peer.ended:
            raise ClosedInReply from error
        raise NotHttp from None


@define
class _Stream(httpcore2.AsyncNetworkStream):
    """A Trio stream as httpcore2 wants it, except that httpcore2 cannot close it or time it out."""

    _stream: trio.abc.Stream
    _began: bool = field(default=False, init=False)
    ended: bool = field(default=False, init=False)

    async def read(self, max_bytes: int, timeout: float | None = None) -> bytes:  # noqa: ASYNC109
        try:
            data = bytes(await self._stream.receive_some(max_bytes))
        except trio.BrokenResourceError as error:
            raise _Broke(error) from None
        if not self._began and not b"HTTP/".startswith(data[:5]):
            raise NotHttp  # at once, since a greeting may be all that the peer sends
        self._began = True
        self.ended = not data
        return data

    async def write(self, buffer: bytes, timeout: float | None = None) -> None:  # noqa: ASYNC109
        if buffer:
            try:
                await self._stream.send_all(buffer)
            except trio.BrokenResourceError as error:
                # httpcore2 ignores this, to read what the peer may have said before it closed.
                raise httpcore2.WriteError from error

    async def aclose(self) -> None:
        await trio.lowlevel.checkpoint()


@frozen
class _Backend(httpcore2.AsyncNetworkBackend):
    """Hands httpcore2 the stream that is already open."""

    _stream: _Stream

    async def connect_tcp(self, *_: Any, **__: Any) -> httpcore2.AsyncNetworkStream:
        await trio.lowlevel.checkpoint()
        return self._stream
