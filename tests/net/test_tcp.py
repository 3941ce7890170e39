"""The TCP stream that sends without a checkpoint while the kernel has room."""

import socket
from collections.abc import Iterator

import pytest
import trio

from tests.helpers.ports import free_port
from trio_runner.net._tcp import TcpStream, open_tcp_stream


@pytest.fixture
def pair() -> Iterator[tuple[TcpStream, trio.SocketStream]]:
    """Yield both ends of a connection; the other end is Trio's own stream."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        ours = socket.create_connection(listener.getsockname())
        theirs, _ = listener.accept()
        theirs.setblocking(False)
        with ours, theirs:
            yield TcpStream(ours), trio.SocketStream(trio.socket.from_stdlib_socket(theirs))


Pair = tuple[TcpStream, trio.SocketStream]


async def test_a_small_message_costs_no_step(pair: Pair) -> None:
    """The kernel takes it at once, and no other task runs in between."""
    stream, peer = pair
    ran = False

    async def run() -> None:
        nonlocal ran
        ran = True

    async with trio.open_nursery() as nursery:
        nursery.start_soon(run)
        await stream.send_all(b"a")
        await stream.send_all(memoryview(b"b"))
        assert not ran
    assert await peer.receive_some() == b"ab"
    await peer.send_all(b"c")
    assert await stream.receive_some() == b"c"


async def test_a_sender_of_a_lot_starves_nobody(pair: Pair) -> None:
    """When the kernel is full the sender waits, and the peer in the same thread takes it all."""
    stream, peer = pair
    data = bytes(range(256)) * 4096 * 20  # 20 MiB
    received = bytearray()

    async def receive() -> None:
        async for piece in peer:
            received.extend(piece)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(receive)
        for start in range(0, len(data), 4096):
            await stream.send_all(data[start : start + 4096])
        await stream.aclose()
    assert received == data


async def test_a_cancelled_task_sends_nothing(pair: Pair) -> None:
    """A task that is cancelled sends nothing, even if there is room."""
    stream, peer = pair
    with trio.CancelScope() as scope:
        scope.cancel()
        await stream.send_all(b"a")
    assert scope.cancelled_caught
    await stream.aclose()
    assert await peer.receive_some() == b""


async def test_errors_are_the_same_as_those_of_trios_stream(pair: Pair) -> None:
    """A peer that is gone and a stream that was closed give the same errors as in Trio."""
    stream, peer = pair
    await trio.aclose_forcefully(peer)
    with pytest.raises(trio.BrokenResourceError):
        await stream.send_all(b"a" * 10_000_000)  # a reset answers the first of them
    await stream.aclose()
    with pytest.raises(trio.ClosedResourceError):
        await stream.send_all(b"a")


async def test_a_refused_connection_raises_oserror() -> None:
    """If nothing listens, it raises OSError, like Trio's own opener."""
    with pytest.raises(OSError, match="connect"):
        await open_tcp_stream("127.0.0.1", free_port())
