"""The answer to the upgrade, read below the websocket library, which understands only consent.

A refusal is read to its end here and reported with what its headers and body say. The library's
client would wait for ever if the stream ended before the answer did.
"""

import h11
import trio
from attrs import define, field

from trio_runner._errors import AggregatorUnreachable, NotAnAggregator
from trio_runner._printable import printable
from trio_runner.net._address import Address
from trio_runner.net._http import REPLY_BYTES_MAX, Reply
from trio_runner.net._replies import Asked, why_not


def _parser() -> h11.Connection:
    """Return a parser for the answer to the request that the websocket library sends."""
    parser = h11.Connection(h11.CLIENT)
    headers = [("Host", "aggregator"), ("Connection", "Upgrade"), ("Upgrade", "websocket")]
    parser.send(h11.Request(method="GET", target="/", headers=headers))
    parser.send(h11.EndOfMessage())
    return parser


@define(eq=False)
class Upgrading(trio.abc.Stream):
    """A stream below a client's websocket, on which the consent to the upgrade must come first.

    If any other answer comes, or if the stream ends first, `receive_some` raises DialError.
    """

    _stream: trio.abc.Stream
    _address: Address
    _answer: h11.Connection | None = field(factory=_parser, init=False)
    """None once the consent has passed."""

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        try:
            await self._stream.send_all(data)
        except trio.BrokenResourceError:
            # The library would end without a word. `receive_some` reports what the peer said before
            # it closed, and that it has closed.
            if self._answer is None:
                raise

    async def wait_send_all_might_not_block(self) -> None:
        await self._stream.wait_send_all_might_not_block()

    async def receive_some(self, max_bytes: int | None = None) -> bytes | bytearray:
        if self._answer is None:
            return await self._stream.receive_some(max_bytes)
        try:
            consent = await self._consent(self._answer)
        except h11.RemoteProtocolError as error:
            raise NotAnAggregator(
                f"What answers at {self._address} does not speak websocket: {printable(error)}."
                " Check host and port."
            ) from None
        self._answer = None
        return consent

    async def aclose(self) -> None:
        await self._stream.aclose()

    async def _consent(self, answer: h11.Connection) -> bytes:
        """Return the bytes of the answer if it is a consent.

        Raises DialError for any other answer or none, h11.RemoteProtocolError if it is not HTTP.
        """
        received = b""
        while True:
            event = answer.next_event()
            if event is h11.NEED_DATA:
                data = await self._receive()
                received += data
                if not data:
                    raise self._ended()
                answer.receive_data(data)
            elif isinstance(event, h11.InformationalResponse) and event.status_code == 101:
                return received
            elif isinstance(event, h11.Response):
                body = await self._body(answer)
                reply = Reply(event.status_code, list(event.headers), body)
                secure = self._address.ssl_context is not None
                raise why_not(Asked(str(self._address), secure, "websocket"), reply)

    async def _body(self, answer: h11.Connection) -> bytes:
        """Return the body of a refusal, or as much of it as comes."""
        body = b""
        while len(body) <= REPLY_BYTES_MAX:
            event = answer.next_event()
            if event is h11.NEED_DATA:
                data = await self._receive()
                if not data:
                    break
                answer.receive_data(data)
            elif isinstance(event, h11.Data):
                body += event.data
            else:
                break
        return body

    async def _receive(self) -> bytes:
        try:
            return bytes(await self._stream.receive_some())
        except trio.BrokenResourceError:
            return b""

    def _ended(self) -> AggregatorUnreachable:
        return AggregatorUnreachable(
            f"The connection to {self._address.way} was closed when this engine asked for a"
            " websocket. Is the aggregator just starting or stopping, or does a proxy or a"
            " firewall on the way block websockets?"
        )
