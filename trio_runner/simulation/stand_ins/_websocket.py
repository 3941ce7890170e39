"""One of the aggregator stand-in's websockets, while it is open."""

from contextlib import suppress
from typing import Any, Protocol

import trio
import trio_websocket
from attrs import define, field

from trio_runner.net._deflating import Deflater, Inflater
from trio_runner.protocol import (
    DISPATCH,
    GET_ENGINE_ID,
    PING,
    DecodeError,
    MessageBase,
    ProtocolErrorMessage,
    Request,
    Response,
    decode,
    decode_frame,
    encode_json,
    encode_request,
    encode_response,
)
from trio_runner.simulation.stand_ins._change import Change
from trio_runner.simulation.stand_ins._records import Connection
from trio_runner.simulation.stand_ins._sometimes import sometimes

CALL_DEADLINE_S = 2.0
PING_INTERVAL_S = 20.0
PONG_DEADLINE_S = 20.0
HANDSHAKE_DEADLINE_S = 10.0
CLOSE_DEADLINE_S = 1.0
"""How long a peer may take to answer a close frame before the stream is closed anyway (s)."""

MESSAGE_BYTES_MAX = 16 * 1024 * 1024
MESSAGE_QUEUE_SIZE = 32  # lets the websocket's reader see pings while a message is handled


class Owner(Protocol):
    """What a websocket needs of its aggregator."""

    muted: bool
    mumbling: bool
    message_bytes_max: int
    bad_frames: list[str]
    _change: Change

    def connect(self, connection: Connection, engine_id: object) -> bool:
        """See `AggregatorRules.connect`."""

    async def _take_message(self, message: MessageBase, connection: Connection) -> MessageBase:
        """Handle a message that an engine dispatched; return the answer."""

    def note_no_pong(self) -> None:
        """Note that an engine has not answered a ping in time."""

    def _gone(self, link: "Websocket") -> None:
        """Note that a connection has ended; safe to call again."""


@define(eq=False)
class Websocket:
    """A websocket while it is open."""

    aggregator: Owner
    websocket: trio_websocket.WebSocketConnection
    connection: Connection
    _deflater: Deflater | None
    """None if messages are not compressed."""
    _inflater: Inflater = field(factory=lambda: Inflater(MESSAGE_BYTES_MAX), init=False)
    ended: trio.Event = field(factory=trio.Event, init=False)
    _open: trio.CancelScope = field(factory=trio.CancelScope, init=False)
    _close_code: int = field(default=1000, init=False)
    _calls_made: int = field(default=0, init=False)
    _identity_call: str = field(init=False)
    _waiting: dict[str | None, trio.MemorySendChannel[Response]] = field(factory=dict, init=False)

    def __attrs_post_init__(self) -> None:
        self._identity_call = self._new_call_id()

    def _new_call_id(self) -> str:
        self._calls_made += 1
        return f"{self._calls_made:032x}"  # the same in every replay

    async def run(self) -> None:
        """Serve the websocket until either side ends it, then close it."""
        try:
            with self._open:
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(self._ask_engine_id)
                    nursery.start_soon(self._keep_alive)
                    await self._receive()
                    self.close(1000)
            with trio.move_on_after(CLOSE_DEADLINE_S):
                await self.websocket.aclose(self._close_code)
        finally:
            self.ended.set()
            for waiting in self._waiting.values():
                waiting.close()

    def close(self, code: int) -> None:
        """Stop serving and close with this code; a call under way ends with an error.

        The engine counts as disconnected at once, since it may be back before the close is done.
        """
        if not self._open.cancel_called:
            self._close_code = code
            self._open.cancel()
            self.aggregator._gone(self)

    async def call(
        self, method: str, arguments: dict[str, Any], call_id: str | None = None
    ) -> Response:
        """Call the engine. Raises the same errors as `Aggregator.call`."""
        request = Request(method, arguments, call_id or self._new_call_id())
        answered, answer = trio.open_memory_channel[Response](1)
        self._waiting[request.call_id] = answered
        try:
            with trio.fail_after(CALL_DEADLINE_S):
                await self._send(encode_request(request))
                return await answer.receive()
        except trio.TooSlowError:
            self.close(1000)
            raise
        except (trio.EndOfChannel, trio_websocket.ConnectionClosed):
            raise trio.BrokenResourceError("the connection ended before the answer") from None
        finally:
            self._waiting.pop(request.call_id, None)

    async def _ask_engine_id(self) -> None:
        with suppress(trio.TooSlowError, trio.BrokenResourceError):
            await self.call(GET_ENGINE_ID, {}, self._identity_call)

    async def _keep_alive(self) -> None:
        with suppress(trio_websocket.ConnectionClosed):
            while True:
                await trio.sleep(PING_INTERVAL_S)
                with trio.move_on_after(PONG_DEADLINE_S) as pong:
                    await self.websocket.ping()
                if pong.cancelled_caught:
                    self.aggregator.note_no_pong()
                    self.close(1011)

    async def _receive(self) -> None:
        with suppress(trio_websocket.ConnectionClosed):
            while True:
                text = await self.websocket.get_message()
                if len(text) > self.aggregator.message_bytes_max:
                    sometimes("message over a size")
                    self.close(1009)
                    return
                if self._deflater is not None and isinstance(text, bytes):
                    try:
                        text = self._inflater.text(text)
                    except ValueError:
                        self.close(1009)
                        return
                try:
                    frame = decode_frame(text)
                except DecodeError as error:
                    self.aggregator.bad_frames.append(str(error))
                    continue
                if isinstance(frame, Request):
                    await self._take_request(frame)
                else:
                    self._take_response(frame)

    def _take_response(self, response: Response) -> None:
        waiting = self._waiting.pop(response.call_id, None)
        if waiting is None:
            return  # the answer is too late, or nobody asked for it
        waiting.send_nowait(response)
        # Do this at once, not in the task that asked: the next frame may already be a message.
        if response.call_id == self._identity_call:
            if not self.aggregator.connect(self.connection, response.result):
                self.close(1000)
            self.aggregator._change.notify()

    async def _take_request(self, request: Request) -> None:
        if request.method == PING:
            await self._answer(request, "pong")
        elif request.method == DISPATCH:
            answer = await self._dispatch(request.arguments)
            if not self.aggregator.muted:
                said = "..." if self.aggregator.mumbling else encode_json(answer)
                await self._answer(request, said)
        # The real aggregator does not answer a method that it does not have.

    async def _dispatch(self, arguments: dict[str, Any]) -> MessageBase:
        try:
            message = decode(arguments.get("message_json"))
        except DecodeError as error:
            self.aggregator.bad_frames.append(str(error))
            return ProtocolErrorMessage(protocol_msg="Message deserialization failed")
        return await self.aggregator._take_message(message, self.connection)

    async def _answer(self, request: Request, result: str) -> None:
        response = Response(result, "str", request.call_id)
        await self._send(encode_response(response))

    async def _send(self, text: str) -> None:
        deflater = self._deflater
        await self.websocket.send_message(text if deflater is None else deflater.message(text))


async def accept(
    nursery: trio.Nursery, stream: trio.abc.Stream, headers: list[tuple[bytes, bytes]]
) -> trio_websocket.WebSocketConnection | None:
    """Answer the upgrade, or return None if it is not one.

    trio-websocket would wait for the rest of the upgrade for ever; this waits for
    `HANDSHAKE_DEADLINE_S`.
    """
    with trio.move_on_after(HANDSHAKE_DEADLINE_S):
        proposal = await trio_websocket.wrap_server_stream(
            nursery, stream, MESSAGE_QUEUE_SIZE, MESSAGE_BYTES_MAX
        )
        return await proposal.accept(extra_headers=headers)
    return None


class Replay(trio.abc.ReceiveStream):
    """A stream whose beginning has been read already, and is read again."""

    def __init__(self, head: bytes, stream: trio.abc.Stream) -> None:
        self._head = head
        self._stream = stream

    async def receive_some(self, max_bytes: int | None = None) -> bytes | bytearray:
        if not self._head:
            return await self._stream.receive_some(max_bytes)
        await trio.lowlevel.checkpoint()
        size = max_bytes or len(self._head)
        data, self._head = self._head[:size], self._head[size:]
        return data

    async def aclose(self) -> None:
        await self._stream.aclose()
