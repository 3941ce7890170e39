"""A TCP proxy between an engine and its aggregator, with a fault for every way a network fails.

`up` is from the engine to the aggregator, `down` the other way. A fault that lasts is a context
manager and is undone after the block; a fault of a moment is a method.
"""

import math
import socket
import struct
from collections.abc import AsyncGenerator, Awaitable, Callable, Generator
from contextlib import ExitStack, asynccontextmanager, contextmanager, suppress
from random import Random

import trio
from attrs import define, field

from tests.helpers.ports import free_port
from trio_runner.simulation.stand_ins._change import Change

GONE = (trio.BrokenResourceError, trio.ClosedResourceError)

TEXT, BINARY, CLOSE = 1, 2, 8
"""Opcodes of websocket frames."""

Welcome = Callable[[trio.SocketStream], Awaitable[None]]
"""What is done with a new connection from the engine, instead of joining it to the aggregator."""


def frame(opcode: int, payload: bytes) -> bytes:
    """Return a websocket frame, as a server sends it."""
    size = len(payload)
    if size < 126:
        head = struct.pack("!BB", 0x80 | opcode, size)
    elif size < 1 << 16:
        head = struct.pack("!BBH", 0x80 | opcode, 126, size)
    else:
        head = struct.pack("!BBQ", 0x80 | opcode, 127, size)
    return head + payload


@define(eq=False)
class Gate:
    """A gate that lets everybody through until it is shut."""

    _is_shut: bool = field(default=False, init=False)
    _opened: Change = field(factory=Change, init=False)

    @contextmanager
    def shut(self) -> Generator[None, None, None]:
        """Stop everybody while the block runs."""
        self._is_shut = True
        try:
            yield
        finally:
            self._is_shut = False
            self._opened.notify()

    async def passed(self) -> None:
        """Wait until the gate is open."""
        await self._opened.wait_until(lambda: not self._is_shut)


@define(eq=False)
class Flow:
    """The bytes of a connection in one direction."""

    latency_s: float = 0.0
    jitter_s: float = 0.0
    """By how much the way may be longer (s); nothing overtakes."""
    bytes_per_s: float = math.inf
    bytes_left: float = math.inf
    """How many bytes pass before the connection is cut."""
    reading: Gate = field(factory=Gate, init=False)
    """While it is shut, the sender is held up as soon as the kernel's buffers are full."""
    forwarding: Gate = field(factory=Gate, init=False)
    """While it is shut, the sender goes on as if nothing were wrong."""
    _sending: trio.Lock = field(factory=trio.Lock, init=False)
    _random: Random = field(factory=lambda: Random(1), init=False)

    async def run(self, source: trio.SocketStream, sink: trio.SocketStream) -> None:
        """Forward until the source ends, or until `bytes_left` bytes have passed."""
        arriving, arrived = trio.open_memory_channel[tuple[float, bytes]](math.inf)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._read, source, arriving)
            await self._forward(arrived, sink)
            nursery.cancel_scope.cancel()

    async def send(self, sink: trio.SocketStream, data: bytes) -> None:
        """Send data between forwarded pieces; it is lost if the sink takes nothing any more."""
        async with self._sending:
            with suppress(*GONE):
                await sink.send_all(data)

    async def _read(
        self, source: trio.SocketStream, arriving: trio.MemorySendChannel[tuple[float, bytes]]
    ) -> None:
        with arriving, suppress(*GONE):
            while True:
                await self.reading.passed()
                data = bytes(await source.receive_some())
                if not data:
                    return
                arriving.send_nowait((trio.current_time(), data))

    async def _forward(
        self, arrived: trio.MemoryReceiveChannel[tuple[float, bytes]], sink: trio.SocketStream
    ) -> None:
        async for arrived_s, data in arrived:
            way_s = self.latency_s + self._random.uniform(0, self.jitter_s)
            await trio.sleep_until(arrived_s + way_s)
            await trio.sleep(len(data) / self.bytes_per_s)
            await self.forwarding.passed()
            passing = data[: int(min(self.bytes_left, len(data)))]
            self.bytes_left -= len(passing)
            await self.send(sink, passing)
            if self.bytes_left <= 0:
                return
        await self.forwarding.passed()


@define(eq=False)
class Connection:
    """A connection from the engine, joined to one to the aggregator."""

    engine: trio.SocketStream
    aggregator: trio.SocketStream
    up: Flow
    down: Flow
    _open: trio.CancelScope = field(factory=trio.CancelScope, init=False)

    async def run(self) -> None:
        """Forward both ways until either side ends or the connection is cut; then close both."""
        async with self.engine, self.aggregator:
            with self._open:
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(self._run_down)
                    await self.up.run(self.engine, self.aggregator)
                    nursery.cancel_scope.cancel()

    async def _run_down(self) -> None:
        await self.down.run(self.aggregator, self.engine)
        self.cut()

    def cut(self) -> None:
        """Close both sides."""
        self._open.cancel()

    def reset(self) -> None:
        """Close both sides with a reset."""
        for stream in (self.engine, self.aggregator):
            stream.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.cut()


@define(eq=False)
class Proxy:
    """A proxy that listens at a port and joins each connection to the aggregator's port."""

    _aggregator_port: int
    port: int = field(factory=free_port)
    connections: list[Connection] = field(factory=list, init=False)
    """The open connections, the newest last."""
    accepted: int = field(default=0, init=False)
    _new_up: dict[str, float] = field(factory=dict, init=False)
    _new_down: dict[str, float] = field(factory=dict, init=False)
    _welcome: Welcome | None = field(default=None, init=False)
    _is_refusing: bool = field(default=False, init=False)
    _is_listening: bool = field(default=False, init=False)
    _change: Change = field(factory=Change, init=False)

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Serve until cancelled; started when it listens at `port`."""
        async with trio.open_nursery() as serving:
            while True:
                listeners = await trio.open_tcp_listeners(self.port, host="127.0.0.1")
                async with trio.open_nursery() as listening:
                    listening.start_soon(self._listen, listeners, serving)
                    task_status.started()
                    task_status = trio.TASK_STATUS_IGNORED
                    self._note_listening(True)
                    await self._change.wait_until(lambda: self._is_refusing)
                    listening.cancel_scope.cancel()
                self._note_listening(False)
                await self._change.wait_until(lambda: not self._is_refusing)

    def _note_listening(self, is_listening: bool) -> None:
        self._is_listening = is_listening
        self._change.notify()

    async def _listen(self, listeners: list[trio.SocketListener], serving: trio.Nursery) -> None:
        await trio.serve_listeners(self._serve, listeners, handler_nursery=serving)

    async def _serve(self, engine: trio.SocketStream) -> None:
        self.accepted += 1
        if self._welcome is not None:
            try:
                await self._welcome(engine)
            finally:
                await trio.aclose_forcefully(engine)
            return
        try:
            aggregator = await trio.open_tcp_stream("127.0.0.1", self._aggregator_port)
        except OSError:  # the aggregator is away, and so is the way to it
            await trio.aclose_forcefully(engine)
            return
        connection = Connection(engine, aggregator, Flow(**self._new_up), Flow(**self._new_down))
        self.connections.append(connection)
        try:
            await connection.run()
        finally:
            self.connections.remove(connection)

    @property
    def link(self) -> Connection:
        """The newest connection, which is the engine's link in steady state."""
        return self.connections[-1]

    # Faults of a moment

    def cut(self) -> None:
        """Close all connections, both sides."""
        for connection in self.connections:
            connection.cut()

    def reset(self) -> None:
        """Reset all connections, both sides."""
        for connection in self.connections:
            connection.reset()

    async def inject(self, data: bytes) -> None:
        """Send bytes to the engine, below the websocket.

        They come between two frames of the aggregator, since it writes one small frame at a time,
        which arrives as a whole.
        """
        await self.link.down.send(self.link.engine, data)

    async def inject_frame(self, opcode: int, payload: bytes) -> None:
        """Send a websocket frame to the engine."""
        await self.inject(frame(opcode, payload))

    # Faults that last

    @contextmanager
    def half_open(self, *, up: bool = False, down: bool = False) -> Generator[None, None, None]:
        """Forward nothing on the newest connection, not even its end, but go on reading."""
        with ExitStack() as shut:
            for flow in [self.link.up] * up + [self.link.down] * down:
                shut.enter_context(flow.forwarding.shut())
            yield

    @contextmanager
    def back_pressure(self) -> Generator[None, None, None]:
        """Read nothing of what the engine sends on the newest connection."""
        with self.link.up.reading.shut():
            yield

    @contextmanager
    def slow(self, *, bytes_per_s: float, latency_s: float) -> Generator[None, None, None]:
        """Let bytes through slowly and late, both ways, on the newest and on new connections."""
        slowly = {"bytes_per_s": bytes_per_s, "latency_s": latency_s}
        with self.new_connections(up=slowly, down=slowly):
            flows = [self.link.up, self.link.down]
            for flow in flows:
                flow.bytes_per_s, flow.latency_s = bytes_per_s, latency_s
            yield
            for flow in flows:
                flow.bytes_per_s, flow.latency_s = math.inf, 0.0

    @contextmanager
    def new_connections(
        self, *, up: dict[str, float] | None = None, down: dict[str, float] | None = None
    ) -> Generator[None, None, None]:
        """Give the flows of new connections these attributes."""
        self._new_up, self._new_down = up or {}, down or {}
        try:
            yield
        finally:
            self._new_up, self._new_down = {}, {}

    @contextmanager
    def welcome(self, welcome: Welcome) -> Generator[None, None, None]:
        """Do this with each new connection, then close it."""
        self._welcome = welcome
        try:
            yield
        finally:
            self._welcome = None

    @asynccontextmanager
    async def refusing(self) -> AsyncGenerator[None, None]:
        """Refuse new connections."""
        self._is_refusing = True
        self._change.notify()
        await self._change.wait_until(lambda: not self._is_listening)
        try:
            yield
        finally:
            self._is_refusing = False
            self._change.notify()
        await self._change.wait_until(lambda: self._is_listening)


async def black_hole(stream: trio.SocketStream) -> None:
    """Accept the connection and never send anything."""
    await trio.sleep_forever()


def saying(words: bytes) -> Welcome:
    """Return a welcome that reads a request and always sends the same, as another server would."""

    async def say(stream: trio.SocketStream) -> None:
        with suppress(*GONE):
            await stream.receive_some()
            await stream.send_all(words)

    return say
