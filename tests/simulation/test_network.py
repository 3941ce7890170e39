"""The network in memory: its streams behave like Trio's, with latency, bandwidth and faults."""

import math

import pytest
import trio
import trio.testing
from trio.abc import HalfCloseableStream
from trio.testing import MockClock

from trio_runner.simulation import Aggregator, Network, Wire
from trio_runner.simulation.stand_ins._network import BUFFER_BYTES

HOST = ("aggregator.example", 9800)


class Sink(Aggregator):
    """An aggregator that hands the dialled streams to the test."""

    def __init__(self) -> None:
        super().__init__()
        self.streams: list[trio.abc.Stream] = []

    async def serve(self, stream: trio.abc.Stream) -> None:
        self.streams.append(stream)


async def pair(
    nursery: trio.Nursery, *, latency_s: float = 0.0, bytes_per_s: float = math.inf
) -> tuple[Wire, HalfCloseableStream, HalfCloseableStream]:
    """Return a connection and both its ends."""
    sink = Sink()
    network = Network(sink, nursery)
    here = await network.open_stream(*HOST)
    await trio.testing.wait_all_tasks_blocked()
    network.latency_s, network.bytes_per_s = latency_s, bytes_per_s
    (there,) = sink.streams
    assert isinstance(here, HalfCloseableStream)
    assert isinstance(there, HalfCloseableStream)
    return network.wires[0], here, there


async def test_a_stream_behaves_as_trios_do(nursery: trio.Nursery) -> None:
    """Trio's own checks of streams pass: closing, waiting, two tasks at once."""

    async def make() -> tuple[HalfCloseableStream, HalfCloseableStream]:
        _, here, there = await pair(nursery)
        return here, there

    async def clogged() -> tuple[HalfCloseableStream, HalfCloseableStream]:
        here, there = await make()
        for stream in (here, there):
            await stream.send_all(bytes(BUFFER_BYTES))
        return here, there

    await trio.testing.check_half_closeable_stream(make, clogged)


async def test_bytes_arrive_after_the_latency(
    nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    """Each piece takes the latency once; two pieces that are sent together arrive together."""
    _, here, there = await pair(nursery, latency_s=0.25)
    await here.send_all(b"one")
    await here.send_all(b"two")
    assert trio.current_time() == 0
    assert await there.receive_some() + await there.receive_some() == b"onetwo"
    assert trio.current_time() == 0.25
    await there.send_all(b"three")
    assert await here.receive_some() == b"three"
    assert trio.current_time() == 0.5


async def test_a_dial_takes_as_long_as_the_way_there_and_back(
    nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    """A dial takes twice the latency."""
    network = Network(Sink(), nursery, latency_s=0.25)
    await network.open_stream(*HOST)
    assert trio.current_time() == 0.5


async def test_jitter_does_not_change_the_order(
    nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    """Pieces are late by up to the jitter, but none overtakes another."""
    sink = Sink()
    network = Network(sink, nursery, jitter_s=1.0)
    here = await network.open_stream(*HOST)
    await trio.testing.wait_all_tasks_blocked()
    for number in range(50):
        await here.send_all(bytes([number]))
    came, times = b"", []
    while len(came) < 50:
        came += await sink.streams[0].receive_some()
        times.append(trio.current_time())
    assert came == bytes(range(50))
    assert len(set(times)) > 1
    assert times[-1] <= 1.0


async def test_bandwidth_spreads_bytes_over_time(
    nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    """1000 bytes at 1000 bytes/s are there after 1 s, 500 more half a second later."""
    _, here, there = await pair(nursery, latency_s=0.25, bytes_per_s=1000)
    await here.send_all(bytes(1000))
    await here.send_all(bytes(500))
    assert len(await there.receive_some()) == 1000
    assert trio.current_time() == 1.25  # 1000 / 1000 + 0.25
    assert len(await there.receive_some()) == 500
    assert trio.current_time() == 1.75  # 1500 / 1000 + 0.25


async def test_a_sender_of_too_much_waits_for_the_reader(
    nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    """With 64 KiB under way the next piece waits, until something is read 3 s later."""
    _, here, there = await pair(nursery)
    await here.send_all(bytes(BUFFER_BYTES))
    assert trio.current_time() == 0

    async def read_later() -> None:
        await trio.sleep(3)
        assert len(await there.receive_some(1)) == 1

    nursery.start_soon(read_later)
    await here.send_all(b"more")
    assert trio.current_time() == 3


async def test_a_half_open_connection_loses_one_direction_only(
    nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    """What the engine sends never arrives; what is sent to it does."""
    wire, here, there = await pair(nursery)
    wire.up.lose()
    await here.send_all(b"lost")
    await there.send_all(b"not lost")
    assert await here.receive_some() == b"not lost"
    with trio.move_on_after(1000) as patience:
        await there.receive_some()
    assert patience.cancelled_caught


@pytest.mark.parametrize("fault", ["lose", "stall"])
async def test_a_half_open_connection_hides_its_end(
    fault: str, nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    """The peer does not hear of a close either until the connection is reset."""
    wire, here, there = await pair(nursery)
    getattr(wire.up, fault)()
    await here.aclose()

    async def reset_later() -> None:
        await trio.sleep(40)
        wire.reset()

    nursery.start_soon(reset_later)
    with pytest.raises(trio.BrokenResourceError):
        await there.receive_some()
    assert trio.current_time() == 40


async def test_stalled_bytes_arrive_when_they_are_released(
    nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    """No stalled bytes are lost, and later ones take their usual time."""
    wire, here, there = await pair(nursery, latency_s=0.25)
    wire.up.stall()
    await here.send_all(b"held")

    async def release_later() -> None:
        await trio.sleep(7)
        wire.up.release()

    nursery.start_soon(release_later)
    assert await there.receive_some() == b"held"
    assert trio.current_time() == 7
    await here.send_all(b"free")
    assert await there.receive_some() == b"free"
    assert trio.current_time() == 7.25


@pytest.mark.parametrize("size", [1, 5, 12])
async def test_a_connection_is_cut_after_a_number_of_bytes(
    size: int, nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    """The bytes before the cut arrive; then both sides find the connection broken."""
    wire, here, there = await pair(nursery, latency_s=0.25)
    wire.up.cut_after = size
    await here.send_all(b"0123")
    if size > 4:
        await here.send_all(b"456789abcdef")
    came = b""
    while len(came) < size:
        came += await there.receive_some()
    assert came == b"0123456789abcdef"[:size]
    with pytest.raises(trio.BrokenResourceError):
        await there.receive_some()
    assert trio.current_time() == 0.25
    with pytest.raises(trio.BrokenResourceError):
        await here.receive_some()
    with pytest.raises(trio.BrokenResourceError):
        await here.send_all(b"more")


async def test_the_next_connection_is_cut_in_its_handshake(nursery: trio.Nursery) -> None:
    """This happens only once: the connection after that is whole."""
    sink = Sink()
    network = Network(sink, nursery)
    network.cut_next_after = 3
    for sent, arrives in ((b"GET /", b"GET"), (b"GET /", b"GET /")):
        here = await network.open_stream(*HOST)
        await trio.testing.wait_all_tasks_blocked()
        await here.send_all(sent)
        assert await sink.streams[-1].receive_some() == arrives


async def test_a_reset_is_heard_at_once_on_both_sides(
    nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    """Bytes that have arrived can still be read; bytes under way are lost."""
    wire, here, there = await pair(nursery)
    await here.send_all(b"arrived")
    wire.up._network.latency_s = 1.0
    await here.send_all(b"under way")
    wire.reset()
    assert await there.receive_some() == b"arrived"
    for stream in (here, there):
        with pytest.raises(trio.BrokenResourceError):
            await stream.receive_some()
    assert trio.current_time() == 0


async def test_dials_are_refused_after_the_latency(
    nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    """Dials are refused after the latency while the aggregator is away; later they succeed."""
    aggregator = Aggregator()
    network = Network(aggregator, nursery, latency_s=0.25)
    with network.refusing(), pytest.raises(ConnectionRefusedError):
        await network.open_stream(*HOST)
    assert trio.current_time() == 0.5
    async with aggregator.outage():
        with pytest.raises(ConnectionRefusedError):
            await network.open_stream(*HOST)
    assert trio.current_time() == 1.0
    stream = await network.open_stream(*HOST)
    assert trio.current_time() == 1.5
    await stream.aclose()


async def test_dials_into_a_black_hole_wait(
    nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    """Dials are neither taken nor refused until the hole is closed; then each takes its time."""
    network = Network(Sink(), nursery, latency_s=0.25)
    with network.losing_dials():
        with trio.move_on_after(100) as patience:
            await network.open_stream(*HOST)
        assert patience.cancelled_caught

        async def dial() -> None:
            await network.open_stream(*HOST)
            assert trio.current_time() == 130.5

        nursery.start_soon(dial)
        await trio.sleep(30)
    await trio.sleep(0.5)
    await trio.testing.wait_all_tasks_blocked()
    assert len(network.wires) == 1


async def test_a_wire_is_gone_when_both_sides_are_closed(nursery: trio.Nursery) -> None:
    """Until then, faults can still hit it."""
    wire, here, there = await pair(nursery)
    network = wire.up._network
    await here.aclose()
    assert (network.wires, wire.is_held) == ([wire], False)
    await there.aclose()
    assert network.wires == []


async def test_nothing_arrives_after_lost_bytes(
    nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    """Two faults may hold one direction, but no bytes arrive after a gap."""
    wire, here, there = await pair(nursery)
    wire.up.stall()
    await here.send_all(b"held")
    wire.up.lose()
    wire.up.stall()
    wire.up.release()
    await here.send_all(b"more")
    with trio.move_on_after(1000) as patience:
        await there.receive_some()
    assert patience.cancelled_caught
