"""A peer at the other end of a stream in memory; its script says what it does, right or wrong."""

from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager

import trio
import wsproto
import wsproto.events as ws
from attrs import define, field
from trio.testing import memory_stream_pair
from wsproto.extensions import Extension

from tests.helpers.unit import Unit
from trio_runner import EngineDispatcher, Timing
from trio_runner.net import Session, StreamOpener
from trio_runner.protocol import (
    DISPATCH,
    GET_ENGINE_ID,
    PING,
    MessageBase,
    Request,
    Response,
    SuccessMessage,
    decode_frame,
    encode,
    encode_json,
    encode_request,
    encode_response,
    pack,
)
from trio_runner.protocol import aggregator_messages as am

ENGINE_ID = "host_Unit"
IDENTITY_CALL = "1d" * 16
BODY = pack('{"_type":"PingMsg","_ns":"openpectus.protocol.engine_messages","version":0}')
SUCCESS = encode_json(SuccessMessage())


class PeerGone(Exception):
    """Raised when the engine's side has closed the stream."""


@define(eq=False)
class Peer:
    """A stream, seen from the aggregator's end."""

    stream: trio.abc.Stream
    answers_pings: bool = True
    pings: list[float] = field(factory=list)
    """When websocket pings arrived (s)."""
    close_code: int | None = None
    """The code with which the engine closed, None while it has not."""
    _websocket: wsproto.WSConnection = field(
        factory=lambda: wsproto.WSConnection(wsproto.ConnectionType.SERVER)
    )
    _frames: list[Request | Response] = field(factory=list)
    _text: list[str] = field(factory=list)
    """The pieces of a message that is not complete yet."""

    async def send_raw(self, data: bytes) -> None:
        """Send bytes as they are."""
        await self.stream.send_all(data)

    async def send_event(self, event: ws.Event) -> None:
        """Send a websocket event."""
        await self.stream.send_all(self._websocket.send(event))

    async def send_text(self, text: str) -> None:
        """Send a text frame."""
        await self.send_event(ws.TextMessage(data=text))

    async def http_request(self) -> bytes:
        """Return a whole HTTP request with its body, as it arrived."""
        received = b""
        while True:
            head, end, body = received.partition(b"\r\n\r\n")
            if end and len(body) >= _content_length(head):
                return received
            received += await self._receive()

    async def reply(self, status: int, body: str, content_type: str = "application/json") -> None:
        """Read a request and answer it."""
        await self.http_request()
        await self.send_raw(http_response(status, body, content_type))

    async def register(self) -> None:
        """Accept the engine's registration."""
        reply = am.RegisterEngineReplyMsg(success=True, engine_id=ENGINE_ID)
        await self.reply(200, encode_json(reply))

    async def upgrade(self, extensions: Sequence[Extension] = ()) -> None:
        """Accept the websocket, and those of these extensions that the engine offers."""
        self._websocket.receive_data(await self.http_request())
        for event in self._websocket.events():
            assert isinstance(event, ws.Request)
        await self.send_event(ws.AcceptConnection(extensions=list(extensions)))

    async def open(self, extensions: Sequence[Extension] = ()) -> None:
        """Accept the websocket, answer the ping and ask for the engine id."""
        await self.upgrade(extensions)
        ping = await self.request()
        assert ping.method == PING
        await self.answer(ping, "pong")
        await self.call(GET_ENGINE_ID, {}, IDENTITY_CALL)
        assert await self.response() == Response(ENGINE_ID, "str", IDENTITY_CALL)

    async def frame(self) -> Request | Response:
        """Return the next call or answer. Raises PeerGone at the end of the stream."""
        while not self._frames:
            self._websocket.receive_data(await self._receive())
            for event in self._websocket.events():
                await self._take(event)
        return self._frames.pop(0)

    async def _take(self, event: ws.Event) -> None:
        if isinstance(event, ws.TextMessage):
            self._text.append(event.data)
            if event.message_finished:
                self._frames.append(decode_frame("".join(self._text)))
                self._text.clear()
        elif isinstance(event, ws.Ping):
            self.pings.append(trio.current_time())
            if self.answers_pings:
                await self.send_event(event.response())
        elif isinstance(event, ws.CloseConnection):
            self.close_code = event.code
            raise PeerGone

    async def _receive(self) -> bytes:
        data = bytes(await self.stream.receive_some())
        if not data:
            raise PeerGone
        return data

    async def request(self) -> Request:
        """Return the next frame, which must be a call."""
        frame = await self.frame()
        assert isinstance(frame, Request), frame
        return frame

    async def response(self) -> Response:
        """Return the next frame, which must be an answer."""
        frame = await self.frame()
        assert isinstance(frame, Response), frame
        return frame

    async def answer(self, request: Request, result: object = SUCCESS) -> None:
        """Answer a call."""
        await self.send_text(encode_response(Response(result, "str", request.call_id)))

    async def call(self, method: str, arguments: dict[str, object], call_id: str) -> None:
        """Call the engine."""
        await self.send_text(encode_request(Request(method, arguments, call_id)))

    async def dispatch(self, message: MessageBase, call_id: str) -> None:
        """Call the engine with a message."""
        await self.call(DISPATCH, {"message_json": encode(message)}, call_id)

    async def listen(self) -> None:
        """Read, and answer pings, until the engine is gone."""
        while True:
            await self.frame()

    async def answer_close(self) -> None:
        """Answer the engine's close frame with the same code and close."""
        assert self.close_code is not None
        await self.send_event(ws.CloseConnection(code=self.close_code))
        await self.stream.aclose()


Script = Callable[[Peer], Awaitable[None]]


def _content_length(head: bytes) -> int:
    for line in head.lower().split(b"\r\n"):
        name, _, value = line.partition(b":")
        if name == b"content-length":
            return int(value)
    return 0


def http_response(status: int, body: str, content_type: str) -> bytes:
    """Return an HTTP response as bytes."""
    head = f"HTTP/1.1 {status} X\r\ncontent-type: {content_type}\r\ncontent-length: "
    return f"{head}{len(body.encode())}\r\n\r\n{body}".encode()


async def register(peer: Peer) -> None:
    """Script: accept the engine's registration."""
    await peer.register()


def scripted(nursery: trio.Nursery, *scripts: Script) -> StreamOpener:
    """Return an opener whose n-th stream has the n-th script at the other end.

    A stream is closed when its script ends.
    """
    remaining = list(scripts)

    async def play(script: Script, stream: trio.abc.Stream) -> None:
        try:
            await script(Peer(stream))
        except (PeerGone, trio.BrokenResourceError):
            pass
        finally:
            await trio.aclose_forcefully(stream)

    async def open_stream(host: str, port: int) -> trio.abc.Stream:
        await trio.lowlevel.checkpoint()
        ours, theirs = memory_stream_pair()
        nursery.start_soon(play, remaining.pop(0), theirs)
        return ours

    return open_stream


@define(eq=False)
class Link:
    """A dial that has led to a session."""

    session: Session
    unit: Unit
    ended: trio.Event
    ended_s: float = -1
    failure: BaseException | None = None

    async def lost(self) -> BaseException | None:
        """Wait until the dial has ended, and return the error that it raised."""
        await self.ended.wait()
        return self.failure


@asynccontextmanager
async def linked(
    *scripts: Script,
    unit: Unit | None = None,
    timing: Timing | None = None,
    open_stream: StreamOpener | None = None,
) -> AsyncGenerator[Link, None]:
    """Dial a peer that registers and then plays the script; cut the link after the block."""
    unit = unit or Unit()
    async with trio.open_nursery() as peers, trio.open_nursery() as nursery:
        dispatcher = EngineDispatcher(
            "aggregator.example",
            handlers=unit,
            open_stream=open_stream or scripted(peers, register, *scripts),
        )

        async def dial(task_status: trio.TaskStatus[Link]) -> None:
            ended = trio.Event()
            status = _Started(task_status, unit, ended)
            try:
                await dispatcher.dial(
                    unit.create_register_engine_msg(), timing or Timing(), task_status=status
                )
            except Exception as error:
                if status.link is None:
                    raise
                status.link.failure = error
            assert status.link is not None
            status.link.ended_s = trio.current_time()
            ended.set()

        link = await nursery.start(dial)
        yield link
        link.session.abort()
        with trio.fail_after(1):
            await link.ended.wait()
        peers.cancel_scope.cancel()


@define(eq=False)
class _Started(trio.TaskStatus[Session]):
    """A task status that hands on the link in place of the session."""

    status: trio.TaskStatus[Link]
    unit: Unit
    ended: trio.Event
    link: Link | None = None

    def started(self, value: Session | None = None) -> None:
        assert value is not None
        self.link = Link(value, self.unit, self.ended)
        self.status.started(self.link)
