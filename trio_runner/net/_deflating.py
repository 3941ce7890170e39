"""Compressed websocket messages (permessage-deflate, RFC 7692) below a library without them.

trio-websocket supports no extensions, but it carries any binary message unchanged. So the payload
is compressed above it. Here, below it, only the first byte of a frame changes: a binary message
that leaves trio-websocket goes out as a compressed text, and a compressed text that comes in
reaches trio-websocket as a binary message. A client's own messages do not pass through here,
because `FramedStream` makes their frames; a server's messages do. This works by three rules:

1. The client offers the extension in an extra header. If the server's answer accepts it, the
   acceptance is removed from the answer, since trio-websocket offered nothing. An acceptance with
   terms that we cannot keep stays in, and trio-websocket refuses it.
2. Neither side sends binary messages for any other purpose. A binary message from the server is
   taken for a compressed one and breaks the link if it is not.
3. Only the first frame of a message says that it is compressed. The frames that continue it, and
   pings between them, pass through unchanged.

A message in endless pieces is refused here too, because this is where the frame heads are seen. A
frame costs a look at its head and a copy of its bytes; nothing is unmasked.
"""

import re
import zlib

import trio
from attrs import define, field

from trio_runner._errors import LinkLost

OFFER = (b"Sec-WebSocket-Extensions", b"permessage-deflate")
"""The header by which a client offers the extension and a server accepts it."""

SWITCHES = b"HTTP/1.1 101"
"""How an answer that may accept the extension begins."""

HEAD_MAX = 32 * 1024
"""A longer answer (bytes) is handed on unchanged, and refused above."""

BYTES, COMPRESSED_TEXT = 0x2, 0x41
"""The first byte of a frame without its highest bit, which marks the last frame of a message."""

LAST = 0x80
MASKED = 0x80
OPCODE = 0x0F
CONTINUES = 0x0
CONTROL = 0x8
"""Set in the opcodes of close, ping and pong."""

FRAGMENTS_MAX = 8 * 1024
"""How many frames a message may consist of; trio-websocket keeps each one, even if it is empty.

16 MiB, the most that either side accepts, makes 4,096 of our frames."""

_END = b"\x00\x00\xff\xff"
"""The end of a flushed block, which every message omits."""

# These are the terms that we can accept. A window for our own messages (client_max_window_bits)
# would bind us, and we do not offer it.
_ACCEPTED = re.compile(
    rb"(?<=\n)Sec-WebSocket-Extensions:[ \t]*permessage-deflate"
    rb"(?:[ \t]*;[ \t]*"
    rb"(?:(?:server|client)_no_context_takeover|server_max_window_bits=(?:[89]|1[0-5])))*"
    rb"[ \t]*\r?\n(?![ \t])",
    re.IGNORECASE,
)

_END_OF_HEAD = re.compile(rb"\n\r?\n")


@define(eq=False)
class Deflating(trio.abc.Stream):
    """A stream below a websocket whose binary messages are compressed texts on the wire.

    `is_on` says whether both sides have agreed to compress. A client learns it from the answer to
    its upgrade, once that has passed; a server that has agreed sets it.

    Reading raises LinkLost for a message of more than `FRAGMENTS_MAX` frames.
    """

    _stream: trio.abc.Stream
    is_on: bool = False
    _held: bytes = field(default=b"", init=False)
    """The part received so far of an answer, or of a frame's head, that is not complete yet."""
    _is_open: bool = field(init=False)
    """Whether the answer to the upgrade has passed."""
    _has_frames: bool = field(init=False)
    """Whether frames follow that answer."""
    _fragments: int = field(default=0, init=False)
    """How many frames of the current message have come so far."""
    _to_come: int = field(default=0, init=False)
    """How much of the current frame's payload is still to come (bytes)."""

    def __attrs_post_init__(self) -> None:
        self._is_open = self._has_frames = self.is_on

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        # trio-websocket hands over one frame at a time.
        if self.is_on and data and data[0] == LAST | BYTES:
            data = bytearray(data)
            data[0] = LAST | COMPRESSED_TEXT
        await self._stream.send_all(data)

    async def wait_send_all_might_not_block(self) -> None:
        await self._stream.wait_send_all_might_not_block()

    async def receive_some(self, max_bytes: int | None = None) -> bytes | bytearray:
        while True:
            data = await self._stream.receive_some(max_bytes)
            held, self._held = self._held, b""
            if not data:
                return held
            passing = self._pass(held + data if held else data)
            if passing:
                return passing

    async def aclose(self) -> None:
        await self._stream.aclose()

    def _pass(self, data: bytes | bytearray) -> bytes | bytearray:
        """Return the part of the data that can be handed on, and hold the rest."""
        if not self._is_open:
            return self._answer(bytes(data))
        return self._frames(bytearray(data)) if self._has_frames else data

    def _answer(self, data: bytes) -> bytes | bytearray:
        """Remove the acceptance from the answer to the upgrade, once the answer is complete."""
        end = _END_OF_HEAD.search(data)
        may_accept = data[: len(SWITCHES)] == SWITCHES[: len(data)]
        if end is None and may_accept and len(data) < HEAD_MAX:
            self._held = data
            return b""
        self._is_open = True
        if end is None or not may_accept:
            return data
        self._has_frames = True
        head, rest = data[: end.end()], data[end.end() :]
        stripped, acceptances = _ACCEPTED.subn(b"", head)
        self.is_on = acceptances == 1
        return (stripped if self.is_on else head) + self._frames(bytearray(rest))

    def _frames(self, data: bytearray) -> bytearray:
        """Return the frames, with compressed ones marked as binary; hold an incomplete head."""
        at = self._to_come
        while at < len(data):
            size = _size(data, at)
            if size is None:
                self._held = bytes(data[at:])
                del data[at:]
                break
            self._count(data[at])
            if self.is_on and data[at] & ~LAST == COMPRESSED_TEXT:
                data[at] = data[at] & LAST | BYTES
            at += size
        self._to_come = max(0, at - len(data))
        return data

    def _count(self, first_byte: int) -> None:
        """Count the frames of a message, but not the control frames between them."""
        if first_byte & OPCODE == CONTINUES:
            self._fragments += 1
            if self._fragments > FRAGMENTS_MAX:
                raise LinkLost(
                    f"The aggregator sent a message in more than {FRAGMENTS_MAX} pieces."
                )
        elif not first_byte & CONTROL:
            self._fragments = 1


def _size(data: bytearray, at: int) -> int | None:
    """Return the size (bytes) of the frame that begins at `at`, None if its head is incomplete."""
    if len(data) < at + 2:
        return None
    size = data[at + 1] & ~MASKED
    head = 6 if data[at + 1] & MASKED else 2
    if size < 126:
        return head + size
    more = 2 if size == 126 else 8
    if len(data) < at + 2 + more:
        return None
    return head + more + int.from_bytes(data[at + 2 : at + 2 + more], "big")


@define(eq=False)
class Inflater:
    """Decompresses the messages of one link, each of which builds on those before it."""

    bytes_max: int
    _inflate: "zlib._Decompress" = field(factory=lambda: zlib.decompressobj(-15), init=False)

    def text(self, message: bytes) -> str:
        """Return the text that a message holds.

        Raises ValueError if it is not a compressed text or inflates to more than `bytes_max`.
        """
        try:
            data = self._inflate.decompress(message + _END, self.bytes_max + 1)
        except zlib.error as error:
            raise ValueError(str(error)) from None
        if len(data) > self.bytes_max:
            raise ValueError(f"{len(message)} bytes inflate to more than {self.bytes_max}")
        if self._inflate.eof:  # a sender may end its stream with any message and begin a new one
            self._inflate = zlib.decompressobj(-15)
        return data.decode()


@define(eq=False)
class Deflater:
    """Compresses the texts of one link, as a server does; each builds on those before it."""

    _deflate: "zlib._Compress" = field(factory=lambda: zlib.compressobj(wbits=-15), init=False)

    def message(self, text: str) -> bytes:
        """Return the message that holds a text."""
        data = self._deflate.compress(text.encode()) + self._deflate.flush(zlib.Z_SYNC_FLUSH)
        return data.removesuffix(_END)
