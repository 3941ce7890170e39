"""TCP streams that are written without a trip through Trio's scheduler.

Trio's own stream gives other tasks a turn at each `send_all`, also where the kernel takes all at
once. For a runner, whose messages are small and many, that is one of seven steps a message.
"""

import socket
from contextlib import suppress

import trio


async def open_tcp_stream(host: str, port: int) -> trio.abc.Stream:
    """Open a connection as `trio.open_tcp_stream` does, which see for what is raised."""
    stream = await trio.open_tcp_stream(host, port)
    return TcpStream(socket.socket(fileno=stream.socket.detach()))


class TcpStream(trio.abc.Stream):
    """A stream over a connected socket, which it takes over; `send_all` by one task at a time.

    `send_all` returns without a checkpoint if the kernel has room for all, so who sends in a loop
    must wait for something else in it.
    """

    def __init__(self, connected: socket.socket) -> None:
        connected.setblocking(False)
        self._socket = connected
        self._stream = trio.SocketStream(trio.socket.from_stdlib_socket(connected))

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        await trio.lowlevel.checkpoint_if_cancelled()
        sent = 0
        # What fails fails again below, where Trio makes an error of its own of it.
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
