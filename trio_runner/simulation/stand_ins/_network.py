"""A network in memory, on Trio's clock: slow, broken or silent, as a test or a schedule wants it.

It carries bytes between an engine's dialer and the aggregator stand-in as TCP does: in order, with
a bounded buffer, and with an end that the peer hears of unless a fault prevents it.
"""

import errno
import math
import operator
from collections import deque
from collections.abc import Callable, Generator
from contextlib import contextmanager
from random import Random
from typing import Literal

import trio
from attrs import define, field

from trio_runner.simulation.stand_ins._change import Change
from trio_runner.simulation.stand_ins._server import Aggregator
from trio_runner.simulation.stand_ins._sometimes import sometimes

BUFFER_BYTES = 64 * 1024
"""How much may be under way in one direction before the sender has to wait (bytes)."""

PIECE_BYTES = 1000
"""Something sent counts as a piece of a larger message from this size on (bytes)."""


@define(eq=False)
class Network:
    """The network between one aggregator and its engines.

    Give `open_stream` to an `EngineDispatcher`; the aggregator's side is served in `nursery`.
    `latency_s` and `jitter_s` are for one way (s), and the jitter is drawn for every piece that is
    sent. `bytes_per_s` is the bandwidth of one direction of one wire. All three may be changed at
    any time, for what is sent from then on.
    """

    aggregator: Aggregator
    nursery: trio.Nursery
    rng: Random = field(factory=lambda: Random(0))  # noqa: S311 - nothing secret
    latency_s: float = 0.0
    jitter_s: float = 0.0
    bytes_per_s: float = math.inf
    wires: list["Wire"] = field(factory=list, init=False)
    """The connections that at least one side still holds open, the oldest first."""
    cut_next_after: int | None = field(default=None, init=False)
    """Reset the next connection after so many bytes from the engine."""
    _refusing: int = field(default=0, init=False)
    _losing: int = field(default=0, init=False)
    _change: Change = field(factory=Change, init=False)

    async def open_stream(self, host: str, port: int) -> trio.abc.Stream:
        """Open a connection, as `trio.open_tcp_stream` does.

        Raises ConnectionRefusedError while connections are refused or the aggregator is down.
        """
        await self._change.wait_until(lambda: not self._losing)
        await trio.sleep(2 * self.latency_s)
        if self._refusing or not self.aggregator.is_up:
            raise ConnectionRefusedError(errno.ECONNREFUSED, f"{host}:{port} refused")
        wire = Wire(self)
        wire.is_cut_early = self.cut_next_after is not None
        wire.up.cut_after, self.cut_next_after = self.cut_next_after, None
        self.wires.append(wire)
        self.nursery.start_soon(self.aggregator.serve, wire.there)
        return wire.here

    @contextmanager
    def refusing(self) -> Generator[None, None, None]:
        """Refuse new connections while the block runs."""
        self._refusing += 1
        try:
            yield
        finally:
            self._refusing -= 1

    @contextmanager
    def losing_dials(self) -> Generator[None, None, None]:
        """Neither accept nor refuse new connections while the block runs."""
        self._losing += 1
        try:
            yield
        finally:
            self._losing -= 1
            self._change.notify()

    def reset(self) -> None:
        """Reset all connections, so that both sides hear of it at once."""
        for wire in list(self.wires):
            wire.reset()

    def arrival(self, sent: float) -> float:
        """Return when something sent at a time arrives (s on Trio's clock)."""
        return sent + self.latency_s + self.rng.random() * self.jitter_s


class Wire:
    """A connection: `up` flows from the engine to the aggregator, `down` back."""

    def __init__(self, network: Network) -> None:
        self.up = Flow(network)
        self.down = Flow(network)
        self.here = _End(self, self.up, self.down)
        self.there = _End(self, self.down, self.up)
        self.is_cut_early = False
        """Whether it is to be reset while it is being established."""
        self._network = network
        self._ends = 2

    def reset(self) -> None:
        """Break the connection, so that both sides hear of it at once."""
        self.up.reset()
        self.down.reset()

    @property
    def is_held(self) -> bool:
        """Whether the engine's side is open."""
        return not self.here.is_closed

    def let_go(self) -> None:
        """Note that one side has closed it."""
        self._ends -= 1
        if not self._ends:
            self._network.wires.remove(self)


Stage = Literal["flowing", "stalled", "lost", "closed", "abandoned", "broken"]
"""What becomes of the bytes sent in one direction of a connection.

flowing    they arrive
stalled    they wait, and go on when released
lost       they vanish, until the buffer is full
closed     nobody receives any more, and the sender hears of it
abandoned  nobody receives any more, and the sender does not hear of it
broken     both sides hear of it; what had arrived can still be read
"""

STAGES: dict[Stage, tuple[Stage, ...]] = {
    "flowing": ("stalled", "lost", "closed", "abandoned", "broken"),
    "stalled": ("flowing", "lost", "closed", "abandoned", "broken"),
    "lost": ("abandoned", "broken"),
    "closed": ("broken",),
    "abandoned": ("broken",),
    "broken": (),
}
"""Which stages can follow each stage. Other changes are ignored, since faults do not know of each
other.

Lost bytes leave a gap, so nothing flows after them.
"""


class Flow:
    """One direction of a connection.

    The connection is reset after `cut_after` more bytes.
    """

    def __init__(self, network: Network) -> None:
        self.stage: Stage = "flowing"
        self.cut_after: int | None = None
        self.moved_at = -math.inf
        """When a piece of `PIECE_BYTES` or more was last taken (s on Trio's clock)."""
        self._network = network
        self._line_free_at = -math.inf
        self._under_way: deque[tuple[float, bytes]] = deque()
        self._bytes = 0
        self._change = Change()
        self._patience = trio.CancelScope()
        """The scope of the task that waits for something to arrive."""

    def _enter(self, stage: Stage) -> None:
        if stage in STAGES[self.stage]:
            self.stage = stage
        self._change.notify()

    # Faults

    def stall(self) -> None:
        """Let what is under way, and what is sent from now on, wait until `release`."""
        self._enter("stalled")

    def release(self) -> None:
        """Let what waits arrive now."""
        now = trio.current_time()
        self._under_way = deque((min(arrives, now), data) for arrives, data in self._under_way)
        self._line_free_at = now
        self._enter("flowing")

    def lose(self) -> None:
        """Let everything vanish that is stalled or is sent from now on."""
        if self.stage == "stalled":
            self._under_way.clear()
        self._enter("lost")

    def reset(self) -> None:
        """Break it for both sides; what has arrived can still be read."""
        now = trio.current_time()
        while self._under_way and (self.stage == "stalled" or self._under_way[-1][0] > now):
            self._under_way.pop()
        self.break_behind()

    def break_behind(self) -> None:
        """Break it after what is under way."""
        self._enter("broken")

    def put(self, data: bytes) -> None:
        """Put bytes into the flow, from whichever sender; b"" is its end."""
        self._bytes += len(data)
        if len(data) >= PIECE_BYTES:
            self.moved_at = trio.current_time()
        if self.stage not in ("flowing", "stalled"):
            return
        left = max(trio.current_time(), self._line_free_at)
        left += len(data) / self._network.bytes_per_s
        self._line_free_at = left
        last = self._under_way[-1][0] if self._under_way else -math.inf
        self._under_way.append((max(last, self._network.arrival(left)), data))
        if len(self._under_way) == 1 and self.stage == "flowing":
            self._patience.deadline = self._under_way[0][0]  # wakes the receiver once, not twice

    # Its two sides

    @property
    def _is_over(self) -> bool:
        """Whether the sender can know that nothing arrives any more."""
        return self.stage in ("closed", "broken")

    async def wait_for_room(self, gives_up: Callable[[], bool] = lambda: False) -> None:
        """Wait while the buffer is full, unless the sender gives up."""
        sometimes("line full", self._bytes >= BUFFER_BYTES)
        await self._change.wait_until(
            lambda: self._bytes < BUFFER_BYTES or self._is_over or gives_up()
        )

    async def send(self, data: bytes, gives_up: Callable[[], bool]) -> None:
        """Send a piece. Raises trio.BrokenResourceError."""
        await self.wait_for_room(gives_up)
        if self._is_over or gives_up():
            raise trio.BrokenResourceError("the simulated connection is broken")
        if self.cut_after is not None:
            data = data[: self.cut_after]
            self.cut_after -= len(data)
        if data:
            self.put(data)

    async def receive(self, max_bytes: int) -> bytes:
        """Return what has arrived, or b"" at the end.

        Raises trio.BrokenResourceError, and trio.ClosedResourceError after `close`.
        """
        has_waited = False
        while self.stage not in ("closed", "abandoned"):
            arrives = math.inf
            if self._under_way and self.stage != "stalled":
                arrives, data = self._under_way[0]
                if arrives <= trio.current_time():
                    if not has_waited:
                        await trio.lowlevel.cancel_shielded_checkpoint()
                    return self._take(data, max_bytes)
            elif self.stage == "broken":
                raise trio.BrokenResourceError("the simulated connection was reset")
            with trio.CancelScope(deadline=arrives) as self._patience:
                await self._change.wait()
            has_waited = True
        raise trio.ClosedResourceError("this end of the simulated connection was closed")

    def _take(self, data: bytes, max_bytes: int) -> bytes:
        if not data:
            return data  # the end stays, to be read again
        arrived, _ = self._under_way.popleft()
        if len(data) > max_bytes:
            self._under_way.appendleft((arrived, data[max_bytes:]))
        self._bytes -= len(data[:max_bytes])
        self._change.notify()
        return data[:max_bytes]

    def close(self, *, heard: bool) -> None:
        """Note that the receiver wants no more, and whether the sender can hear of it."""
        self._enter("closed" if heard and self.stage != "lost" else "abandoned")

    def leave(self) -> None:
        """Note that the sender has gone; what is under way still arrives."""
        self._change.notify()


class _End(trio.abc.HalfCloseableStream):
    """One side's end of a connection."""

    def __init__(self, wire: Wire, out: Flow, back: Flow) -> None:
        self._wire = wire
        self._out = out
        self._back = back
        self.is_closed = False
        self._at_its_end = False
        self._busy: set[str] = set()

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        with self._alone("sending"):
            await trio.lowlevel.checkpoint()
            try:
                await self._out.send(bytes(data), lambda: self.is_closed)
            except trio.BrokenResourceError:
                self._check_open()  # this side may have closed it in the meantime
                raise
            if self._out.cut_after == 0:
                sometimes("handshake cut" if self._wire.is_cut_early else "message cut")
                self._out.break_behind()
                self._back.reset()

    async def wait_send_all_might_not_block(self) -> None:
        with self._alone("sending"):
            await trio.lowlevel.checkpoint()
            await self._out.wait_for_room(lambda: self.is_closed)
            self._check_open()

    async def send_eof(self) -> None:
        with self._alone("sending", at_its_end=True):
            await trio.lowlevel.checkpoint()
            if not self._at_its_end:
                self._at_its_end = True
                self._out.put(b"")

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        if max_bytes is not None and operator.index(max_bytes) < 1:
            raise ValueError("max_bytes must be 1 or more")
        with self._alone("receiving", at_its_end=True):
            await trio.lowlevel.checkpoint_if_cancelled()
            return await self._back.receive(max_bytes or BUFFER_BYTES)

    async def aclose(self) -> None:
        if not self.is_closed:
            self.is_closed = True
            if not self._at_its_end:
                self._out.put(b"")
            self._out.leave()
            # A side whose bytes do not arrive cannot tell the other side that it is gone either.
            self._back.close(heard=self._out.stage not in ("lost", "stalled"))
            self._wire.let_go()
        await trio.lowlevel.checkpoint()

    @contextmanager
    def _alone(self, what: str, *, at_its_end: bool = False) -> Generator[None, None, None]:
        """Raise, as Trio's streams do, if it is closed or another task does the same."""
        self._check_open()
        if self._at_its_end and not at_its_end:
            raise trio.ClosedResourceError("the end was sent already")
        if what in self._busy:
            raise trio.BusyResourceError(f"another task is {what}")
        self._busy.add(what)
        try:
            yield
        finally:
            self._busy.discard(what)

    def _check_open(self) -> None:
        if self.is_closed:
            raise trio.ClosedResourceError("this end of the simulated connection is closed")
