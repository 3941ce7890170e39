"""A receiver that hardly looks: it answers every message with Success, as fast as Python can.

It unmasks only the end of a frame, which contains the message's type and the call's id, unless it
is asked for more. `Connection` does no I/O, so it can serve TCP and streams in memory alike. It
uses only the standard library.
"""

import asyncio
import base64
import hashlib
import json
import re
import struct
import threading
import time
import zlib
from collections import Counter
from collections.abc import Callable
from typing import Any

from tests.bench.lines import Json, hear, job, leave, tell

TAIL = 220
_CALL_ID = re.compile(rb'"call_id": ?"([^"]+)"\}')
_TYPE = re.compile(rb'"_type": ?"(\w+)"')
_CHANGED = re.compile(rb'"Changed","tick_time":[^,]*,"value":([0-9.e+]+)')
_NOTIFIED = re.compile(rb'"body":"([0-9.]+)"')
_ENGINE = (
    b'{"request":{"method":"get_engine_id_async","arguments":{},"call_id":"1"},"response":null}'
)
_SUCCESS = (
    b'{"request":null,"response":{"result":"{\\"version\\": 0, \\"_type\\": \\"SuccessMessage\\", '
    b'\\"_ns\\": \\"openpectus.protocol.messages\\"}","result_type":"str","call_id":"'
)
_PONG = b'{"request":null,"response":{"result":"pong","result_type":"str","call_id":"'
_END = b'"}}'
_MAGIC = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"


class Book:
    """What was received over all connections."""

    def __init__(self, *, deflate: bool = False, look: bool = False) -> None:
        self.deflate = deflate
        self.look = look
        self.messages: Counter[str] = Counter()
        self.message_bytes: Counter[str] = Counter()
        self.received_bytes = 0
        self.sent_bytes = 0
        self.dialled: list[float] = []
        self.introduced: list[float] = []
        self.tag_s: list[float] = []
        self.event_s: list[float] = []
        self.expected = 0
        self.first = 0.0
        self.on_tags: Callable[[Connection], object] = lambda _: None
        self.on_expected: Callable[[Json], object] = lambda _: None

    def note(self, connection: "Connection", kind: str, size: int) -> None:
        """Note a message."""
        self.messages[kind] += 1
        self.message_bytes[kind] += size
        if kind == "UodInfoMsg":
            self.introduced.append(time.monotonic())
        if kind != "TagsUpdatedMsg":
            return
        self.on_tags(connection)
        if self.expected:
            count = self.messages[kind]
            if count == 1:
                self.first = time.monotonic()
            if count == self.expected:
                self.expected = 0
                now = time.monotonic()
                self.on_expected({"first": self.first, "last": now, "count": count})

    def look_into(self, connection: "Connection", kind: str, text: bytes) -> None:
        """Note the age of what a message tells, once for each new value."""
        if kind == "TagsUpdatedMsg" and (found := _CHANGED.search(text)):
            changed = float(found[1])
            if changed > connection.changed:
                if connection.changed:
                    self.tag_s.append(time.monotonic() - changed)
                connection.changed = changed
        elif kind == "WebPushNotificationMsg" and (found := _NOTIFIED.search(text)):
            self.event_s.append(time.monotonic() - float(found[1]))


class Connection:
    """One connection, HTTP or websocket: bytes in, bytes out."""

    def __init__(self, book: Book) -> None:
        self._book = book
        self._buffer = b""
        self._upgraded = False
        self.engine_id = ""
        self.changed = 0.0
        self._inflate: Any = None
        self._deflate: Any = None
        self._pieces: list[bytes] = []
        self._is_deflated = False

    def receive(self, data: bytes) -> bytes:
        """Take bytes in; return the bytes to send."""
        self._book.received_bytes += len(data)
        self._buffer = self._buffer + data if self._buffer else data
        reply = b"".join(self._frames() if self._upgraded else self._request())
        self._book.sent_bytes += len(reply)
        return reply

    # HTTP

    def _request(self) -> list[bytes]:
        head, end, body = self._buffer.partition(b"\r\n\r\n")
        if not end:
            return []
        lines = head.decode().split("\r\n")
        headers = {k.lower(): v.strip() for k, _, v in (line.partition(":") for line in lines[1:])}
        if lines[0].startswith("POST"):
            if len(body) < int(headers["content-length"]):
                return []
            self._buffer = b""
            return [self._registered(json.loads(body))]
        self._buffer = body
        self._upgraded = True
        return [self._upgrade(headers), self._frame(_ENGINE), *self._frames()]

    def _registered(self, message: Json) -> bytes:
        self._book.dialled.append(time.monotonic())
        reply = json.dumps(
            {
                "version": 0,
                "success": True,
                "engine_id": f"{message['computer_name']}_{message['uod_name']}",
                "secret_match": True,
                "version_match": True,
                "aggregator_build_number": "0.1.1585",
                "_type": "RegisterEngineReplyMsg",
                "_ns": "openpectus.protocol.aggregator_messages",
            }
        ).encode()
        head = f"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {len(reply)}"
        return head.encode() + b"\r\n\r\n" + reply

    def _upgrade(self, headers: dict[str, str]) -> bytes:
        key = headers["sec-websocket-key"].encode() + _MAGIC
        accept = base64.b64encode(hashlib.sha1(key).digest()).decode()  # noqa: S324
        extensions = ""
        offered = headers.get("sec-websocket-extensions", "")
        if self._book.deflate and "permessage-deflate" in offered:
            self._inflate = zlib.decompressobj(-15)
            self._deflate = zlib.compressobj(wbits=-15)
            extensions = "Sec-WebSocket-Extensions: permessage-deflate\r\n"
        return (
            "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            f"Sec-WebSocket-Accept: {accept}\r\n{extensions}\r\n"
        ).encode()

    # Websocket

    def _frames(self) -> list[bytes]:
        buffer, at, end = self._buffer, 0, len(self._buffer)
        replies: list[bytes] = []
        while end - at >= 6:
            size, begin = buffer[at + 1] & 0x7F, at + 6
            if size == 126:
                size, begin = int.from_bytes(buffer[at + 2 : at + 4]), at + 8
            elif size == 127:
                size, begin = int.from_bytes(buffer[at + 2 : at + 10]), at + 14
            if begin > end or end - begin < size:
                break
            reply = self._take(buffer, buffer[at], begin, size)
            if reply:
                replies.append(reply)
            at = begin + size
        self._buffer = buffer[at:] if at else buffer
        return replies

    def _take(self, buffer: bytes, first: int, begin: int, size: int) -> bytes:
        opcode = first & 0x0F
        mask = buffer[begin - 4 : begin]
        if opcode == 0 or (opcode == 1 and not first & 0x80):
            return self._piece(first, unmask(buffer[begin : begin + size], mask))
        if opcode != 1:
            payload = unmask(buffer[begin : begin + size], mask)
            if opcode == 9:
                return bytes([0x8A, size]) + payload
            return bytes([0x88, size]) + payload if opcode == 8 else b""
        if first & 0x40:
            return self._text(self._inflated(unmask(buffer[begin : begin + size], mask)))
        if self._book.look or size <= TAIL:
            return self._text(unmask(buffer[begin : begin + size], mask))
        turn = (size - TAIL) % 4
        tail = buffer[begin + size - TAIL : begin + size]
        return self._text(unmask(tail, mask[turn:] + mask[:turn]), size)

    def _piece(self, first: int, payload: bytes) -> bytes:
        """Take one of several frames of a message; handle the message when it is complete."""
        if first & 0x0F:
            self._is_deflated = bool(first & 0x40)
        self._pieces.append(payload)
        if not first & 0x80:
            return b""
        whole = b"".join(self._pieces)
        self._pieces.clear()
        return self._text(self._inflated(whole) if self._is_deflated else whole)

    def _inflated(self, payload: bytes) -> bytes:
        text: bytes = self._inflate.decompress(payload + b"\x00\x00\xff\xff")
        return text

    def _text(self, text: bytes, size: int = 0) -> bytes:
        """Handle a text, or the end of a text of this size."""
        tail = text[-TAIL:]
        if not tail.endswith((b'"response":null}', b'"response": null}')):
            self.engine_id = str(json.loads(text)["response"]["result"])
            return b""
        call = _CALL_ID.search(tail)
        assert call is not None, tail
        kind = _TYPE.search(tail)
        if kind is None:
            return self._frame(_PONG + call[1] + _END)
        name = kind[1].decode()
        if self._book.look:
            self._book.look_into(self, name, text)
        self._book.note(self, name, size or len(text))
        return self._frame(_SUCCESS + call[1] + _END)

    def _frame(self, text: bytes) -> bytes:
        first = 0x81
        if self._deflate is not None:
            text = self._deflate.compress(text) + self._deflate.flush(zlib.Z_SYNC_FLUSH)
            text, first = text[:-4], 0xC1
        if len(text) < 126:
            return bytes([first, len(text)]) + text
        return struct.pack("!BBH", first, 126, len(text)) + text


def unmask(payload: bytes, mask: bytes) -> bytes:
    """Return a frame's payload, unmasked."""
    size = len(payload)
    key = int.from_bytes((mask * (size // 4 + 1))[:size])
    return (int.from_bytes(payload) ^ key).to_bytes(size)


class _Protocol(asyncio.Protocol):
    def __init__(self, server: "Server", port: int) -> None:
        self._server, self.port = server, port
        self.connection = Connection(server.book)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport
        self._server.open.add(self)

    def data_received(self, data: bytes) -> None:
        reply = self.connection.receive(data)
        if reply:
            self.transport.write(reply)

    def connection_lost(self, exc: Exception | None) -> None:
        self._server.open.discard(self)


class Server:
    """The sink on TCP, at several ports; it does what it is told in lines of JSON."""

    def __init__(self, book: Book) -> None:
        self.book = book
        self.open: set[_Protocol] = set()
        self._listeners: dict[int, asyncio.Server] = {}

    async def run(self, ports: int) -> None:
        """Listen, tell the ports, and serve until told to stop."""
        loop = asyncio.get_running_loop()
        for _ in range(ports):
            await self._listen(0)
        tell(ports=list(self._listeners))
        threading.Thread(target=self._obey, args=(loop,), daemon=True).start()
        await asyncio.Event().wait()

    async def _listen(self, port: int) -> None:
        loop = asyncio.get_running_loop()
        chosen = port
        server = await loop.create_server(
            lambda: _Protocol(self, chosen), "127.0.0.1", port, backlog=2000
        )
        chosen = server.sockets[0].getsockname()[1]
        self._listeners[chosen] = server

    def _obey(self, loop: asyncio.AbstractEventLoop) -> None:
        while True:
            told = hear()
            asyncio.run_coroutine_threadsafe(getattr(self, f"do_{told.pop('do')}")(**told), loop)

    async def do_expect(self, count: int) -> None:
        """Forget everything, and tell when this many TagsUpdated messages have arrived."""
        self.book.messages.clear()
        self.book.on_expected = lambda what: tell(**what)
        self.book.expected = count

    async def do_forget(self) -> None:
        """Forget what was received."""
        book = self.book
        for counter in (book.messages, book.message_bytes):
            counter.clear()
        for times in (book.tag_s, book.event_s, book.dialled, book.introduced):
            times.clear()
        book.received_bytes = book.sent_bytes = 0
        tell(forgotten=True)

    async def do_show(self) -> None:
        """Tell what was received."""
        book = self.book
        tell(
            messages=book.messages,
            message_bytes=book.message_bytes,
            tcp_bytes=book.received_bytes + book.sent_bytes,
            tag_s=book.tag_s,
            event_s=book.event_s,
            dialled=book.dialled,
            introduced=book.introduced,
        )

    async def do_outage(self, outages: list[tuple[int, float]], back: int, within_s: float) -> None:
        """Cut the engines of these ports, and refuse new connections for this long (s).

        When enough engines are back, tell for each port how long after that its tags arrived again.
        """
        reopened: dict[int, float] = {}
        took_s: dict[str, list[float]] = {str(port): [] for port, _ in outages}
        seen: set[str] = set()
        all_back = asyncio.Event()
        protocols = {id(protocol.connection): protocol for protocol in self.open}

        def on_tags(connection: Connection) -> None:
            if id(connection) in protocols or connection.engine_id in seen:
                return
            protocol = next(p for p in self.open if p.connection is connection)
            seen.add(connection.engine_id)
            took_s[str(protocol.port)].append(time.monotonic() - reopened[protocol.port])
            if len(seen) == back:
                all_back.set()

        async def outage(port: int, lasts_s: float) -> None:
            if lasts_s:
                self._listeners[port].close()
            for protocol in list(self.open):
                if protocol.port == port:
                    protocol.transport.abort()
            reopened[port] = time.monotonic()
            if lasts_s:
                await asyncio.sleep(lasts_s)
                await self._listen(port)
                reopened[port] = time.monotonic()

        self.book.dialled.clear()
        self.book.on_tags = on_tags
        try:
            async with asyncio.timeout(within_s):
                await asyncio.gather(*(outage(*each) for each in outages))
                await all_back.wait()
        except TimeoutError:
            pass
        tell(took_s=took_s, dialled=self.book.dialled, protocols=len(protocols))


def main() -> None:
    """Run the sink as a process."""
    given = job()
    book = Book(deflate=given.get("deflate", False), look=given.get("look", False))
    try:
        asyncio.run(Server(book).run(given.get("ports", 1)))
    except KeyboardInterrupt:
        leave()


if __name__ == "__main__":
    main()
