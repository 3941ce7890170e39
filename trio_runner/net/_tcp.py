"""TCP streams that write without a trip through Trio's scheduler.

Trio's own stream gives other tasks a turn at each `send_all`, even if the kernel takes everything
at once. For a runner, whose messages are small and many, this is one of seven steps per message.
"""

import socket
from contextlib import suppress

import trio


async def open_tcp_stream(host: str, port: int) -> trio.abc.Stream:
    """Open a connection; raises the same errors as `trio.open_tcp_stream`."""
    stream = await trio.open_tcp_stream(host, port)
    return TcpStream(socket.socket(fileno=stream.socket.detach()))


class TcpStream(trio.abc.Stream):
    """A stream that takes over a connected socket; only one task at a time may call `send_all`.

    `send_all` returns without a checkpoint if the kernel has room for everything. So a loop that
    sends must also wait for something else.
    """

    def __init__(self, connected: socket.socket) -> None:
        connected.setblocking(False)
        self._socket = connected
        self._stream = trio.SocketStream(trio.socket.from_stdlib_socket(connected))

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        await trio.lowlevel.checkpoint_if_cancelled()
        sent = 0
        # A failure happens again below, where Trio turns it into its own error.
        with suppress(OSError):
            sent = self._socket.send(data)
        if sent < len(data):
            await self._stream.send_all(memoryview(data)[sent:])

    async def wait_send_all_might_not_block(self) -> None:
        await self._stream.wait_send_all_might_not_block()

    async def receive_some(self, max_bytes: int | None = None) -> bytes | bytearray:
        return await self._stream.receive_some(max_bytes)

    async def aclose(self) -> None:
        await self._stream.aclose()
