"""The byte stream below a websocket, which also writes the websocket's messages itself.

trio-websocket writes each frame separately and whole, and blocks all other writing meanwhile. So it
opens, closes, answers pings and reads, while the frames of messages are made here:

- The largest cost of sending is one system call per frame, so small frames are written together.
- A frame of megabytes would hold up pings and pongs for as long as it takes to leave. Over a thin
  path, each side would think that the other is dead. So a large message goes out in pieces, using
  websocket's continuation frames, and control frames can pass between two of them.

The stream also records when bytes last moved. All deadlines count from then.
"""

import secrets
from collections.abc import Iterator

import trio
from attrs import define, field

BATCH_BYTES = 16 * 1024
"""How much is put in at once (bytes). A larger batch would not take fewer calls to write."""

PIECE = 4 * 1024
"""How much of a large message goes out between two control frames (bytes): 2.7 s at 1.5 kB/s."""

WRITTEN = 1024
"""How much of a piece is handed down at once (bytes), so that we see bytes leave.

A kilobyte takes 3.4 s at 300 B/s.

Trio's sockets let at most 16 kB wait unsent in the kernel, where the system supports that limit."""

TEXT = 0x01
COMPRESSED_TEXT = 0x41
"""The first byte of a message's first frame, without the bit that marks the last frame."""

LAST = 0x80
"""Set in the first byte of the last frame of a message."""

CLOSE = 0x88
CONTINUES = 0x00


@define(eq=False)
class FramedStream(trio.abc.Stream):
    """A client's stream that takes the messages of a websocket as well as its control frames.

    Messages that were `put` wait for `flush`. What `send_all` sends goes out at once, between two
    pieces of what is being flushed. After a close frame nothing more goes out. What still waits
    when the stream is closed is lost, like the contents of the kernel's buffers.
    """

    _stream: trio.abc.Stream
    waiting_bytes: int = field(default=0, init=False)
    bytes_sent: int = field(default=0, init=False)
    left_at: float = field(factory=trio.current_time, init=False)
    """When the stream below last took bytes (s on Trio's clock).

    That stream has buffers, so the peer need not have received them."""
    moved_at: float = field(factory=trio.current_time, init=False)
    """When bytes last came in, or a control frame or a piece of a large message last left (s)."""
    _waiting: list[tuple[int, bytes]] = field(factory=list, init=False)
    _flushing: trio.Lock = field(factory=trio.Lock, init=False)
    _writing: trio.Lock = field(factory=trio.Lock, init=False)
    _is_over: bool = field(default=False, init=False)
    """Whether a close has been written."""

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        """Write the opening or a control frame. If cancelled, the stream is no longer usable."""
        await self._write(data)
        self.moved_at = self.left_at

    def put(self, first_byte: int, payload: bytes) -> None:
        """Queue a message, `TEXT` or `COMPRESSED_TEXT`, for the next `flush`."""
        self._waiting.append((first_byte, payload))
        self.waiting_bytes += len(payload)

    async def flush(self) -> None:
        """Write all messages that were put. If cancelled, the stream is no longer usable."""
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
                    await trio.lowlevel.checkpoint()  # the stream may not have given others a turn
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
    """Acquire a lock; if it is free, do so without a trip through the scheduler."""
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
    """Return a client's frame, masked as RFC 6455 (5.3) requires, so that no proxy reads it."""
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
