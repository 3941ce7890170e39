"""The aggregator stand-in: serves the protocol over any stream, and can be late, away or dead.

One task a connection reads frames and handles them one after the other, answers of the engine
included, as the real aggregator does: an answer waits behind the messages sent before it.
"""

import errno
import json
import ssl
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from http import HTTPStatus
from typing import Any, TypeAlias

import h11
import trio
import trio.testing
import trio_websocket
import wsproto.utilities
from attrs import define, evolve, field, frozen

from trio_runner.net._deflating import OFFER, Deflater, Deflating, Inflater
from trio_runner.protocol import (
    DISPATCH,
    GET_ENGINE_ID,
    PING,
    DecodeError,
    ErrorMessage,
    MessageBase,
    ProtocolErrorMessage,
    Request,
    Response,
    SuccessMessage,
    decode,
    decode_frame,
    decode_json,
    encode,
    encode_json,
    encode_request,
    encode_response,
)
from trio_runner.protocol import aggregator_messages as am
from trio_runner.protocol import engine_messages as em
from trio_runner.simulation.stand_ins._aggregator import AggregatorRules, Connection
from trio_runner.simulation.stand_ins._change import Change

CALL_DEADLINE_S = 2.0
PING_INTERVAL_S = 20.0
PONG_DEADLINE_S = 20.0
HANDSHAKE_DEADLINE_S = 10.0
CLOSE_DEADLINE_S = 1.0
"""How long a peer may take to answer a close frame before the stream is closed on it."""

MESSAGE_BYTES_MAX = 16 * 1024 * 1024
MESSAGE_QUEUE_SIZE = 32  # room for the websocket's reader to see pings while a message is handled

REGISTRATION_PATH, RPC_PATH = "/engine-rest", "/engine-rpc"

OpenStream: TypeAlias = Callable[[str, int], Awaitable[trio.abc.Stream]]
"""Opens a stream to a host and a port, as `trio.open_tcp_stream` does."""

OnMessage: TypeAlias = Callable[[em.EngineMessage], Awaitable[MessageBase | None]]


@frozen
class HttpRequest:
    """A request as it came in; names of headers are in lower case."""

    method: str
    path: str
    headers: dict[str, str]
    body: bytes = b""


@define(eq=False)
class Aggregator(AggregatorRules):
    """An Open Pectus aggregator in process.

    Six ways to make it misbehave, all off at first: `handling_time_s` is how long it takes over
    each message, `archiving_time_s` how long over the end of a run before it answers that; `muted`,
    it handles messages and never answers them, `mumbling`, what it answers cannot be read; a
    message over `message_bytes_max` on the wire ends its connection; `on_message` is awaited with
    each message before it is handled, and an answer that it returns is sent instead of handling it.
    """

    handling_time_s: float = 0.0
    archiving_time_s: float = 0.0
    muted: bool = False
    mumbling: bool = False
    message_bytes_max: int = MESSAGE_BYTES_MAX
    on_message: OnMessage | None = None
    requests: list[HttpRequest] = field(factory=list, init=False)
    bad_frames: list[str] = field(factory=list, init=False)
    _is_up: bool = field(default=True, init=False)
    _links: dict["_Websocket", None] = field(factory=dict, init=False)  # a set in a fixed order
    _serving: dict[trio.CancelScope, None] = field(factory=dict, init=False)
    _connections: int = field(default=0, init=False)
    _change: Change = field(factory=Change, init=False)

    async def run(
        self,
        *,
        host: str = "127.0.0.1",
        port: int = 0,
        ssl_context: ssl.SSLContext | None = None,
        task_status: trio.TaskStatus[int] = trio.TASK_STATUS_IGNORED,
    ) -> None:
        """Serve on TCP, with TLS given a context; started with the port number, runs for ever.

        The port is closed while the aggregator is down. Cancelling drops all connections.
        """
        async with trio.open_nursery() as connections:
            while True:
                listeners = await trio.open_tcp_listeners(port, host=host)
                port = listeners[0].socket.getsockname()[1]
                async with trio.open_nursery() as listening:
                    listening.start_soon(self._listen, listeners, ssl_context, connections)
                    task_status.started(port)
                    task_status = trio.TASK_STATUS_IGNORED
                    await self.wait_until(lambda: not self._is_up)
                    listening.cancel_scope.cancel()
                await self.wait_until(lambda: self._is_up)

    def in_memory(self, nursery: trio.Nursery) -> OpenStream:
        """Return what to dial with in place of `trio.open_tcp_stream`; serve in the nursery.

        It ignores host and port and raises `ConnectionRefusedError` while the aggregator is down.
        """

        async def open_stream(host: str, port: int) -> trio.abc.Stream:
            await trio.lowlevel.checkpoint()
            if not self._is_up:
                raise ConnectionRefusedError(errno.ECONNREFUSED, f"{host}:{port} refused")
            theirs, ours = trio.testing.memory_stream_pair()
            nursery.start_soon(self.serve, ours)
            return theirs

        return open_stream

    async def serve(self, stream: trio.abc.Stream) -> None:
        """Serve one connection, HTTP or websocket, until it ends; close the stream in any case."""
        with trio.CancelScope() as scope:
            self._serving[scope] = None
            try:
                await self._serve(stream)
            except (trio.BrokenResourceError, trio.ClosedResourceError, h11.RemoteProtocolError):
                pass  # the peer has gone, or speaks no HTTP
            finally:
                self._serving.pop(scope, None)
                await trio.aclose_forcefully(stream)

    async def call(self, engine_id: str, message: MessageBase) -> MessageBase:
        """Call an engine as the web page does and return its answer.

        Raises:
            trio.TooSlowError: no answer within 2 s; the connection is closed for it.
            trio.BrokenResourceError: the connection ended before the answer.
        """
        for link in self._links:
            if link.connection.engine_id == engine_id:
                break
        else:
            return ErrorMessage(message=f"Engine {engine_id} is not connected")
        response = await link.call(DISPATCH, {"message_json": encode(message)})
        try:
            answer = decode_json(str(response.result))
        except DecodeError as error:
            return ErrorMessage(message=f"The engine's answer cannot be read: {error}")
        if isinstance(message, am.MethodMsg) and isinstance(answer, SuccessMessage):
            self.engine(engine_id).unit.method = message.method
            self._change.notify()
        return answer

    async def wait_until(self, predicate: Callable[[], object]) -> None:
        """Wait until a predicate is true; it is asked again after each thing that happens here."""
        await self._change.wait_until(predicate)

    async def restart(self) -> None:
        """Stop in order (close frames with 1012, recent engines kept) and be back at once."""
        self.keep()
        links = list(self._links)
        self.close(1012)
        for link in links:
            await link.ended.wait()

    def close(self, code: int) -> None:
        """Close all connections with this close code; the aggregator lives on.

        Return at once: the engines count as disconnected, the close frames are on their way.
        """
        for link in list(self._links):
            link.close(code)

    def kill(self) -> None:
        """Die without a word, lose what was not stored, and be back at once."""
        self.forget()
        self.drop()

    def drop(self) -> None:
        """Break all connections without close frames; the aggregator lives on."""
        for scope in self._serving:
            scope.cancel()
        for link in list(self._links):
            self._gone(link)

    def down(self) -> None:
        """Refuse dials from now on; connections that are there stay."""
        self._is_up = False
        self._change.notify()

    @property
    def is_up(self) -> bool:
        """Whether dials are accepted."""
        return self._is_up

    def up(self) -> None:
        """Accept dials again."""
        self._is_up = True
        self._change.notify()

    @asynccontextmanager
    async def outage(self, *, kill: bool = False) -> AsyncGenerator[None, None]:
        """Stop in order, or die, and be away for as long as the block runs."""
        self.down()
        try:
            if kill:
                self.kill()
            else:
                await self.restart()
            yield
        finally:
            self.up()

    async def _listen(
        self,
        listeners: list[trio.SocketListener],
        ssl_context: ssl.SSLContext | None,
        connections: trio.Nursery,
    ) -> None:
        """Accept connections and serve them in a nursery of their own, which outlives this."""

        async def serve(stream: trio.SocketStream) -> None:
            if ssl_context is None:
                await self.serve(stream)
            else:
                context = ssl_context
                await self.serve(
                    trio.SSLStream(stream, context, server_side=True, https_compatible=True)
                )

        await trio.serve_listeners(serve, listeners, handler_nursery=connections)

    async def _serve(self, stream: trio.abc.Stream) -> None:
        received = await _receive_request(stream)
        if received is None:
            return
        request, raw = received
        self.requests.append(request)
        if request.path == RPC_PATH and request.headers.get("upgrade", "").lower() == "websocket":
            deflates = OFFER[1].decode() in request.headers.get(OFFER[0].decode().lower(), "")
            wire = Deflating(stream, is_on=True) if deflates else stream
            replayed = trio.StapledStream(wire, _Replay(raw, wire))
            await self._serve_websocket(replayed, deflates=deflates)
        else:
            await stream.send_all(_encode_http(*self._answer(request)))
        self._change.notify()

    def _answer(self, request: HttpRequest) -> tuple[int, str, str]:
        """Return the status, the type and the text of the answer to a plain request."""
        match request.method, request.path:
            case "GET", "/health":
                return 200, "text/plain", "healthy"
            case "GET", "/auth/config":
                return 200, "application/json", json.dumps({"use_auth": False})
            case "POST", path if path == REGISTRATION_PATH:
                return self._answer_registration(request)
            case _, path if path in ("/health", "/auth/config", REGISTRATION_PATH):
                return 405, "text/plain", "Method Not Allowed"
        return 404, "text/plain", "Not Found"

    def _answer_registration(self, request: HttpRequest) -> tuple[int, str, str]:
        try:
            message = decode_json(request.body.decode(errors="replace"))
        except DecodeError as error:
            self.bad_frames.append(str(error))
            return 500, "text/plain", "Internal Server Error"
        if not isinstance(message, em.RegisterEngineMsg):
            self.bad_frames.append(f"{type(message).__name__} is no registration")
            return 500, "text/plain", "Internal Server Error"
        reply = self.register(message, trio.current_time())
        return 200, "application/json", encode_json(reply)

    async def _serve_websocket(self, stream: trio.abc.Stream, *, deflates: bool) -> None:
        # trio-websocket's reader fails on a ping, or a second close, that follows our close frame.
        try:
            async with trio.open_nursery() as nursery:
                websocket = await _accept(nursery, stream, [OFFER] if deflates else [])
                if websocket is not None:
                    await self._run_link(websocket, deflates=deflates)
                nursery.cancel_scope.cancel()
        except* (wsproto.utilities.LocalProtocolError, trio_websocket.ConnectionClosed):
            pass

    async def _run_link(
        self, websocket: trio_websocket.WebSocketConnection, *, deflates: bool
    ) -> None:
        self._connections += 1
        connection = Connection(self._connections, trio.current_time())
        link = _Websocket(self, websocket, connection, Deflater() if deflates else None)
        self._links[link] = None
        try:
            await link.run()
        finally:
            self._gone(link)

    async def _take_message(self, message: MessageBase, connection: Connection) -> MessageBase:
        """Handle a message that an engine dispatched; return the answer."""
        answer = None
        if self.handling_time_s:
            await trio.sleep(self.handling_time_s)
        if self.on_message is not None and isinstance(message, em.EngineMessage):
            answer = await self.on_message(message)
        # Who has just been killed or restarted handles nothing more.
        await trio.lowlevel.checkpoint_if_cancelled()
        if answer is None:
            answer = self.handle(message, connection, trio.current_time())
        elif isinstance(message, em.EngineMessage):
            self.note(message, connection, trio.current_time(), "answered by on_message")
        self._change.notify()
        if isinstance(message, em.RunStoppedMsg) and self.archiving_time_s:
            # The run is listed whoever still waits for the answer, and an engine that has given up
            # the connection is taken for connected as long: nobody reads from it.
            await trio.sleep(self.archiving_time_s)
        return answer

    def _gone(self, link: "_Websocket") -> None:
        """Take note that a connection has ended; safe to call again."""
        self._links.pop(link, None)
        self.disconnect(link.connection, trio.current_time())
        self._change.notify()


@define(eq=False)
class _Websocket:
    """A websocket while it is open."""

    aggregator: Aggregator
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

        The engine counts as disconnected at once: it may be back before the close is through.
        """
        if not self._open.cancel_called:
            self._close_code = code
            self._open.cancel()
            self.aggregator._gone(self)

    async def call(
        self, method: str, arguments: dict[str, Any], call_id: str | None = None
    ) -> Response:
        """Call the engine; errors as for `Aggregator.call`."""
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
                    self.close(1011)

    async def _receive(self) -> None:
        with suppress(trio_websocket.ConnectionClosed):
            while True:
                text = await self.websocket.get_message()
                if len(text) > self.aggregator.message_bytes_max:
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
            return  # too late, or nobody asked
        waiting.send_nowait(response)
        # At once, not in the task that asked: the next frame may be a message already.
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
        # The real one does not answer a method that it does not have.

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


async def _accept(
    nursery: trio.Nursery, stream: trio.abc.Stream, headers: list[tuple[bytes, bytes]]
) -> trio_websocket.WebSocketConnection | None:
    """Answer the upgrade; None if it is none after all, which trio-websocket would wait on."""
    with trio.move_on_after(HANDSHAKE_DEADLINE_S):
        proposal = await trio_websocket.wrap_server_stream(
            nursery, stream, MESSAGE_QUEUE_SIZE, MESSAGE_BYTES_MAX
        )
        return await proposal.accept(extra_headers=headers)
    return None


class _Replay(trio.abc.ReceiveStream):
    """A stream of which the beginning has been read already."""

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


async def _receive_request(stream: trio.abc.Stream) -> tuple[HttpRequest, bytes] | None:
    """Read one request and return it with all bytes read; None if the peer went before one.

    Of an upgrade only the head is read: what follows is not HTTP.
    """
    parser = h11.Connection(h11.SERVER)
    request, raw = None, b""
    while True:
        event = parser.next_event()
        if event is h11.NEED_DATA:
            data = bytes(await stream.receive_some())
            raw += data
            parser.receive_data(data)
        elif isinstance(event, h11.Request):
            request = _head(event)
            if "upgrade" in request.headers:
                return request, raw
        elif isinstance(event, h11.Data) and request is not None:
            request = evolve(request, body=request.body + event.data)
        elif isinstance(event, h11.EndOfMessage) and request is not None:
            return request, raw
        else:
            return None


def _head(event: h11.Request) -> HttpRequest:
    headers = {name.decode(): value.decode() for name, value in event.headers}
    path, _, _ = event.target.decode().partition("?")
    return HttpRequest(event.method.decode(), path, headers)


def _encode_http(status: int, content_type: str, text: str) -> bytes:
    body = text.encode()
    head = (
        f"HTTP/1.1 {status} {HTTPStatus(status).phrase}\r\ncontent-type: {content_type}\r\n"
        f"content-length: {len(body)}\r\nconnection: close\r\n\r\n"
    )
    return head.encode() + body
