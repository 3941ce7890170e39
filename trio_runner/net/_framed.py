"""The byte stream beneath a websocket, written frame by frame.

trio-websocket writes each frame by itself, whole, and while it does nothing else can be written.
Both are mended below it:

- A system call a frame is what sending costs most, so small frames are written together.
- A frame of megabytes holds up pings and pongs for as long as it takes to leave, and over a thin
  line both sides would take each other for dead. So a large message goes out in pieces, which is
  what websocket has continuation frames for, and control frames pass between two of them.

It knows besides when bytes last moved, from which all deadlines count.
"""

import secrets
from collections.abc import Iterator

import trio
from attrs import define, field

KEPT_MAX = 16 * 1024
"""More is not kept (bytes): it would not be written with fewer calls."""

PIECE = 4 * 1024
"""How much of a large message is written at once (bytes): 33 ms at 1 Mbit/s, 2.7 s at 1.5 kB/s.

A multiple of 4, the length of a mask."""

LAST = 0x80
"""Set in the first byte of the last frame of a message."""

CONTROL = 0x08
"""Set in the first byte of a close, a ping or a pong."""

CLOSE = 0x88
CONTINUES = 0x00


@define(eq=False)
class FramedStream(trio.abc.Stream):
    """A stream that is given a frame at a time, by a client, once it `keeps`.

    Then frames of messages are kept until `flush`, while control frames go out at once, between two
    pieces of what is being flushed. Behind a close nothing more goes out. What is kept when the
    stream is closed is lost, as what stands in the kernel's buffers is.
    """

    _stream: trio.abc.Stream
    keeps: bool = False
    kept_bytes: int = field(default=0, init=False)
    bytes_sent: int = field(default=0, init=False)
    left_at: float = field(factory=trio.current_time, init=False)
    """When bytes last left (s on Trio's clock): were handed to the stream below, which took them.

    It need not have waited for the peer, having buffers."""
    moved_at: float = field(factory=trio.current_time, init=False)
    """When bytes last came in, or a control frame or a piece of a large message left (s)."""
    _kept: list[bytes | bytearray | memoryview] = field(factory=list, init=False)
    _flushing: trio.Lock = field(factory=trio.Lock, init=False)
    _writing: trio.Lock = field(factory=trio.Lock, init=False)
    _is_over: bool = field(default=False, init=False)
    """Whether a close has been written."""

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        """Keep the frame of a message, write any other. If cancelled, the stream is of no use."""
        if self.keeps and not data[0] & CONTROL:
            await trio.lowlevel.checkpoint_if_cancelled()
            self._kept.append(data)
            self.kept_bytes += len(data)
            return
        await self._write(data)
        self.moved_at = self.left_at

    async def flush(self) -> None:
        """Write all that is kept. If cancelled, the stream is of no use."""
        await _acquire(self._flushing)
        try:
            kept, self._kept, self.kept_bytes = self._kept, [], 0
            small = bytearray()
            for frame in kept:
                if len(frame) <= PIECE:
                    small += frame
                    continue
                await self._write(small)
                small = bytearray()
                for piece in _pieces(frame):
                    await self._write(piece)
                    self.moved_at = self.left_at
            await self._write(small)
        finally:
            self._flushing.release()

    async def _write(self, data: bytes | bytearray | memoryview) -> None:
        if not data or self._is_over:
            return
        await _acquire(self._writing)
        try:
            await self._stream.send_all(data)
            self.bytes_sent += len(data)
            self.left_at = trio.current_time()
            self._is_over = self.keeps and data[0] == CLOSE
        finally:
            self._writing.release()

    async def wait_send_all_might_not_block(self) -> None:
        await self._stream.wait_send_all_might_not_block()

    async def receive_some(self, max_bytes: int | None = None) -> bytes | bytearray:
        data = await self._stream.receive_some(max_bytes)
        self.moved_at = trio.current_time()
        return data

    async def aclose(self) -> None:
        await self._stream.aclose()


async def _acquire(lock: trio.Lock) -> None:
    """Acquire a lock, without a trip through the scheduler if it is free."""
    try:
        lock.acquire_nowait()
    except trio.WouldBlock:
        await lock.acquire()


def _pieces(frame: bytes | bytearray | memoryview) -> Iterator[bytes]:
    """Yield the frames that carry a client's frame in pieces; each has a mask of its own."""
    head = {126: 4, 127: 10}.get(frame[1] & 0x7F, 2)
    mask = int.from_bytes(frame[head : head + 4], "big")
    masked = memoryview(frame)[head + 4 :]
    for start in range(0, len(masked), PIECE):
        piece = masked[start : start + PIECE]
        first = frame[0] & ~LAST if start == 0 else CONTINUES
        if start + PIECE >= len(masked):
            first |= frame[0] & LAST
        own = secrets.token_bytes(4)
        change = (mask ^ int.from_bytes(own, "big")).to_bytes(4, "big")
        yield _head(first, len(piece)) + own + _xor(piece, change)


def _head(first: int, size: int) -> bytes:
    """Return the head of a masked frame of up to 64 kB, without its mask."""
    if size < 126:
        return bytes((first, 0x80 | size))
    return bytes((first, 0x80 | 126)) + size.to_bytes(2, "big")


def _xor(data: memoryview, mask: bytes) -> bytes:
    size = len(data)
    masks = (mask * (size // 4 + 1))[:size]
    mixed = int.from_bytes(data, "big") ^ int.from_bytes(masks, "big")
    return mixed.to_bytes(size, "big")
