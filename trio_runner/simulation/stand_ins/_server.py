"""The aggregator stand-in: serves the protocol over any stream, and can be late, away or dead.

One task per connection reads frames and handles them one after the other, the engine's answers
included, as the real aggregator does. So an answer waits until the messages sent before it are
handled.
"""

import errno
import json
import ssl
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import TypeAlias

import h11
import trio
import trio.testing
import trio_websocket
import wsproto.utilities
from attrs import define, field

from trio_runner.net._deflating import OFFER, Deflater, Deflating
from trio_runner.protocol import (
    DISPATCH,
    DecodeError,
    ErrorMessage,
    MessageBase,
    SuccessMessage,
    decode_json,
    encode,
    encode_json,
)
from trio_runner.protocol import aggregator_messages as am
from trio_runner.protocol import engine_messages as em
from trio_runner.simulation.stand_ins._aggregator import AggregatorRules
from trio_runner.simulation.stand_ins._change import Change
from trio_runner.simulation.stand_ins._http import HttpRequest, encode_http, receive_request
from trio_runner.simulation.stand_ins._records import Connection
from trio_runner.simulation.stand_ins._sometimes import sometimes
from trio_runner.simulation.stand_ins._websocket import (
    MESSAGE_BYTES_MAX,
    Replay,
    Websocket,
    accept,
)

REGISTRATION_PATH, RPC_PATH = "/engine-rest", "/engine-rpc"

OpenStream: TypeAlias = Callable[[str, int], Awaitable[trio.abc.Stream]]
"""Opens a stream to a host and a port, as `trio.open_tcp_stream` does."""

OnMessage: TypeAlias = Callable[[em.EngineMessage], Awaitable[MessageBase | None]]
"""Called with each message; returns an answer to send in place of the stand-in's, or None."""


@define(eq=False)
class Aggregator(AggregatorRules):
    """An Open Pectus aggregator in process.

    It can misbehave in six ways, all off at first:

    - `handling_time_s` is how long it takes over each message.
    - `archiving_time_s` is how long it takes over the end of a run before it answers that.
    - While `muted`, it handles messages but never answers them.
    - While `mumbling`, its answers cannot be read.
    - A message over `message_bytes_max` on the wire ends its connection.
    - `on_message` is awaited with each message before it is handled. If it returns an answer, that
      is sent instead of handling the message.
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
    _links: dict["Websocket", None] = field(factory=dict, init=False)  # a set in a fixed order
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
        """Serve on TCP, or on TLS given a context; started with the port number, runs for ever.

        The port is closed while the aggregator is down. Cancellation drops all connections.
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
        """Return a replacement for `trio.open_tcp_stream`, whose connections the nursery serves.

        It ignores host and port, and raises `ConnectionRefusedError` while the aggregator is down.
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
                pass  # the peer has gone, or does not speak HTTP
            finally:
                self._serving.pop(scope, None)
                await trio.aclose_forcefully(stream)

    async def call(self, engine_id: str, message: MessageBase) -> MessageBase:
        """Call an engine as the web page does, and return its answer.

        Raises:
            trio.TooSlowError: no answer came within 2 s; the connection is closed because of that.
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
        """Wait until a predicate is true; it is asked again after everything that happens here."""
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

        Returns at once: the engines count as disconnected, and the close frames are on their way.
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
        """Refuse dials from now on; present connections stay."""
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
        """Stop in order, or die, and stay away while the block runs."""
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
        """Accept connections and serve them in another nursery, which outlives this task."""

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
        received = await receive_request(stream)
        if received is None:
            return
        request, raw = received
        self.requests.append(request)
        if request.path == RPC_PATH and request.headers.get("upgrade", "").lower() == "websocket":
            deflates = OFFER[1].decode() in request.headers.get(OFFER[0].decode().lower(), "")
            wire = Deflating(stream, is_on=True) if deflates else stream
            replayed = trio.StapledStream(wire, Replay(raw, wire))
            await self._serve_websocket(replayed, deflates=deflates)
        else:
            await stream.send_all(encode_http(*self._answer(request)))
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
                websocket = await accept(nursery, stream, [OFFER] if deflates else [])
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
        link = Websocket(self, websocket, connection, Deflater() if deflates else None)
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
        # If the aggregator has just been killed or restarted, it handles nothing more.
        await trio.lowlevel.checkpoint_if_cancelled()
        if answer is None:
            answer = self.handle(message, connection, trio.current_time())
        elif isinstance(message, em.EngineMessage):
            self.note(message, connection, trio.current_time(), "answered by on_message")
        self._change.notify()
        if isinstance(message, em.RunStoppedMsg) and self.archiving_time_s:
            sometimes("long archiving")
            # The run is listed even if nobody waits for the answer any more. An engine that has
            # given up the connection counts as connected meanwhile, since nobody reads from it.
            await trio.sleep(self.archiving_time_s)
        return answer

    def note_no_pong(self) -> None:
        """Note that an engine has not answered a ping in time; its connection is closed then."""

    def _gone(self, link: "Websocket") -> None:
        """Note that a connection has ended; safe to call again."""
        self._links.pop(link, None)
        self.disconnect(link.connection, trio.current_time())
        self._change.notify()
