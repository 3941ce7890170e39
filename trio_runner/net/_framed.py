"""The byte stream beneath a websocket, and the messages that are written past it.

trio-websocket writes each frame by itself, whole, and while it does nothing else can be written. So
it opens, closes, answers pings and reads; the frames of messages are made here:

- A system call a frame is what sending costs most, so small frames are written together.
- A frame of megabytes would hold up pings and pongs for as long as it takes to leave, and over a
  thin line both sides would take each other for dead. So a large message goes out in pieces, which
  is what websocket has continuation frames for, and control frames pass between two of them.

The stream knows besides when bytes last moved, from which all deadlines count.
"""

import secrets
from collections.abc import Iterator

import trio
from attrs import define, field

BATCH_BYTES = 16 * 1024
"""More is not put in at once (bytes): it would not be written with fewer calls."""

PIECE = 4 * 1024
"""How much of a large message goes out between two control frames (bytes): 2.7 s at 1.5 kB/s.

A multiple of 4, the length of a mask."""

WRITTEN = 1024
"""How much of a piece is handed down at once (bytes), to be seen to leave: 3.4 s at 300 B/s.

Trio's sockets let no more than 16 kB wait in the kernel unsent, where the system can be told so."""

TEXT = 0x01
COMPRESSED_TEXT = 0x41
"""The first byte of a message's first frame, without what says that it is the last one too."""

LAST = 0x80
"""Set in the first byte of the last frame of a message."""

CLOSE = 0x88
CONTINUES = 0x00


@define(eq=False)
class FramedStream(trio.abc.Stream):
    """A client's stream, which takes the messages of a websocket besides its control frames.

    What was `put` waits for `flush`; what is sent by `send_all` goes out at once, between two
    pieces of what is being flushed. After a close nothing more goes out. What waits when the stream
    is closed is lost, as what stands in the kernel's buffers is.
    """

    _stream: trio.abc.Stream
    waiting_bytes: int = field(default=0, init=False)
    bytes_sent: int = field(default=0, init=False)
    left_at: float = field(factory=trio.current_time, init=False)
    """When bytes last left (s on Trio's clock): were handed to the stream below, which took them.

    It need not have waited for the peer, having buffers."""
    moved_at: float = field(factory=trio.current_time, init=False)
    """When bytes last came in, or a control frame or a piece of a large message left (s)."""
    _waiting: list[tuple[int, bytes]] = field(factory=list, init=False)
    _flushing: trio.Lock = field(factory=trio.Lock, init=False)
    _writing: trio.Lock = field(factory=trio.Lock, init=False)
    _is_over: bool = field(default=False, init=False)
    """Whether a close has been written."""

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        """Write the opening or a control frame. If cancelled, the stream is of no use."""
        await self._write(data)
        self.moved_at = self.left_at

    def put(self, first_byte: int, payload: bytes) -> None:
        """Take in a message, `TEXT` or `COMPRESSED_TEXT`, for the next `flush`."""
        self._waiting.append((first_byte, payload))
        self.waiting_bytes += len(payload)

    async def flush(self) -> None:
        """Write all that was put. If cancelled, the stream is of no use."""
        await _acquire(self._flushing)
        try:
            waiting, self._waiting, self.waiting_bytes = self._waiting, [], 0
            small = bytearray()
            for first_byte, payload in waiting:
                if len(payload) <= PIECE:
                    small += _frame(first_byte | LAST, payload)
                    continue
                await self._write(small)
                small = bytearray()
                for piece in _pieces(first_byte, payload):
                    await self._write(piece, is_piece=True)
                    await trio.lowlevel.checkpoint()  # the stream need not have given a turn
            await self._write(small)
        finally:
            self._flushing.release()

    async def _write(self, data: bytes | bytearray | memoryview, *, is_piece: bool = False) -> None:
        if not data:
            return
        await _acquire(self._writing)
        try:
            if self._is_over:
                return
            view, size = memoryview(data), WRITTEN if is_piece else len(data)
            for start in range(0, len(view), size):
                part = view[start : start + size]
                await self._stream.send_all(part)
                self.bytes_sent += len(part)
                self.left_at = trio.current_time()
                if is_piece:
                    self.moved_at = self.left_at
            self._is_over = data[0] == CLOSE
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


def _pieces(first_byte: int, payload: bytes) -> Iterator[bytes]:
    """Yield the frames that carry a large message."""
    view = memoryview(payload)
    for start in range(0, len(payload), PIECE):
        is_last = start + PIECE >= len(payload)
        first = CONTINUES if start else first_byte
        yield _frame(first | LAST * is_last, view[start : start + PIECE])


def _frame(first_byte: int, payload: bytes | memoryview) -> bytes:
    """Return a client's frame, masked as RFC 6455 wants it (5.3), so that no proxy reads it."""
    mask = secrets.token_bytes(4)
    return _head(first_byte, len(payload)) + mask + _xor(payload, mask)


def _head(first: int, size: int) -> bytes:
    """Return the head of a masked frame of up to 64 kB, without its mask."""
    if size < 126:
        return bytes((first, 0x80 | size))
    return bytes((first, 0x80 | 126)) + size.to_bytes(2, "big")


def _xor(data: bytes | memoryview, mask: bytes) -> bytes:
    size = len(data)
    masks = (mask * (size // 4 + 1))[:size]
    mixed = int.from_bytes(data, "big") ^ int.from_bytes(masks, "big")
    return mixed.to_bytes(size, "big")
