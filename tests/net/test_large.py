"""Large messages over thin paths: bytes that move are life, and pings pass between the pieces."""

import base64
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from random import Random

import attrs
import pytest
import trio
import trio.testing
import wsproto
import wsproto.events as ws
from hypothesis import given
from hypothesis import strategies as st
from trio.testing import MockClock, lockstep_stream_pair, memory_stream_pair

from tests.helpers.unit import Middle, Unit, wall_clock
from tests.net.peer import BODY, Link, Peer, linked, register
from trio_runner import EngineDispatcher, EngineRunner, LinkLost
from trio_runner.net._framed import COMPRESSED_TEXT, PIECE, TEXT, FramedStream
from trio_runner.protocol import encode_body, pack
from trio_runner.protocol import engine_messages as em
from trio_runner.simulation import Aggregator, Network

MEGABIT_BYTES_PER_S = 125_000

ARCHIVE = base64.b64encode(Random(0).randbytes(5_000_000)).decode()
"""An archive that is 5 MB when it is packed."""

LEAVES_S = 40
"""How long 5 MB take at 1 Mbit/s (s)."""


@attrs.define(eq=False)
class Archiving(Unit):
    """A unit whose runs end with a large archive."""

    def create_run_stopped_msg(self, run_id: str) -> em.RunStoppedMsg:
        return attrs.evolve(super().create_run_stopped_msg(run_id), archive=ARCHIVE)


async def test_the_end_of_a_run_with_5_mb_of_archive_arrives_once_over_the_first_link(
    autojump_clock: MockClock,
) -> None:
    """At 1 Mbit/s it takes 40 s; both sides' pings pass meanwhile, and waiting messages follow."""
    unit, aggregator = Archiving(), Aggregator()
    async with trio.open_nursery() as nursery:
        network = Network(aggregator, nursery, Middle(), 0.02)
        dispatcher = EngineDispatcher("host", handlers=unit, open_stream=network.open_stream)
        runner = EngineRunner(dispatcher, unit, unit, rng=Middle(), clock=wall_clock)
        await nursery.start(runner.run)
        runner.on_start("run")
        await trio.sleep(10)
        network.bytes_per_s = MEGABIT_BYTES_PER_S
        start = trio.current_time()
        runner.on_stop()
        await aggregator.wait_until(lambda: archives(aggregator))
        assert trio.current_time() - start == pytest.approx(LEAVES_S, abs=2)
        await trio.sleep(30)
        assert archives(aggregator) == [ARCHIVE]
        assert runner.statistics().links == 1
        assert runner.buffer_size <= 1
        await runner.shutdown()
        nursery.cancel_scope.cancel()


def archives(aggregator: Aggregator) -> list[str | None]:
    """Return the archives of the runs whose ends were sent."""
    return [
        received.message.archive
        for received in aggregator.engine().received
        if isinstance(received.message, em.RunStoppedMsg)
    ]


def large() -> bytes:
    """Return a packed message of 5 MB."""
    return pack(encode_body(attrs.evolve(Unit().create_run_stopped_msg("run"), archive=ARCHIVE)))


@asynccontextmanager
async def over_a_megabit() -> AsyncGenerator[tuple[Link, Network], None]:
    """Link to an aggregator over 1 Mbit/s while the block runs."""
    async with trio.open_nursery() as nursery:
        network = Network(Aggregator(), nursery, bytes_per_s=MEGABIT_BYTES_PER_S)
        async with linked(open_stream=network.open_stream) as link:
            yield link, network
        nursery.cancel_scope.cancel()


async def test_an_answer_is_due_ten_seconds_after_the_last_byte_has_left(
    autojump_clock: MockClock,
) -> None:
    """A message that takes 40 s to leave then has its 10 s, and so has the message after it."""
    async with over_a_megabit() as (link, network):
        aggregator = network.aggregator
        await aggregator.wait_until(lambda: aggregator.engines)
        aggregator.muted = True
        start = trio.current_time()
        link.session.send(1, large(), lambda _: None)
        link.session.send(2, BODY, lambda _: None)
        failure = await link.lost()
        assert link.ended_s - start == pytest.approx(LEAVES_S + 10, abs=1)
    assert type(failure) is LinkLost
    assert str(failure) == "The aggregator did not answer a message within 10 s."


@pytest.mark.parametrize("patience", [1, 3])
async def test_a_peer_that_takes_no_more_of_a_large_message_is_noticed_in_ten_seconds(
    patience: int, autojump_clock: MockClock
) -> None:
    """No byte moves, so it takes at most 5 s until the next ping, and 5 s for its pong.

    Patience is for an answer and plays no part here.
    """
    async with over_a_megabit() as (link, network):
        link.session.send(1, large(), lambda _: None, patience=patience)
        await trio.sleep(17)
        (wire,) = network.wires
        wire.up.stall()
        wire.down.stall()
        start = trio.current_time()
        failure = await link.lost()
        assert 5 < link.ended_s - start <= 10
    assert type(failure) is LinkLost
    assert str(failure) == "The aggregator did not answer a ping within 5 s."


STRAY = b'{"request":null,"response":{"result":"x","result_type":"str","call_id":"99"}}'
"""An answer to no call, which is ignored."""


async def test_a_large_message_that_no_longer_leaves_ends_the_link_though_bytes_come_in(
    autojump_clock: MockClock,
) -> None:
    """The error says that the message does not leave, instead of an answer that is missing."""
    async with over_a_megabit() as (link, network):
        link.session.send(1, large(), lambda _: None, patience=3)
        await trio.sleep(22)  # after a ping of the aggregator's, which comes every 20 s
        (wire,) = network.wires
        wire.up.stall()
        start = trio.current_time()
        while link.ended_s < 0:
            wire.down.put(bytes((0x81, len(STRAY))) + STRAY)
            await trio.sleep(1)
        # What the connection holds, 64 kB at 125 kB/s, leaves into it in the first half second.
        assert link.ended_s - start == pytest.approx(10, abs=0.6)
        failure = await link.lost()
    assert type(failure) is LinkLost
    assert str(failure) == "The connection took no more of a message for 10 s."


@pytest.mark.parametrize("how", ["abort", "reset", "neither"])
async def test_a_close_after_a_large_message_waits_a_second_and_is_no_error(
    how: str, autojump_clock: MockClock
) -> None:
    """It waits 1 s at most for the message to leave; an abort or a reset ends it earlier."""
    async with over_a_megabit() as (link, network):
        link.session.send(1, large(), lambda _: None)
        await trio.sleep(5)
        start = trio.current_time()
        network.nursery.start_soon(link.session.aclose)  # noqa: ASYNC111 - it has ended by then
        await trio.sleep(0.5)
        if how == "abort":
            link.session.abort()
        elif how == "reset":
            network.reset()
        assert await link.lost() is None
        assert link.ended_s - start == (1 if how == "neither" else 0.5)


async def test_incoming_bytes_are_life(autojump_clock: MockClock) -> None:
    """While a 30 kB frame trickles in, no pong can arrive; 10 s after its last byte it is late."""

    async def trickle(peer: Peer) -> None:
        await peer.open()
        await peer.send_raw(b"\x81\x7e\xff\xff")
        for _ in range(30):
            await peer.send_raw(b" " * 1000)
            last.append(trio.current_time())
            await trio.sleep(1)
        peer.answers_pings = False
        await peer.listen()

    last: list[float] = []
    async with linked(trickle) as link:
        failure = await link.lost()
        assert len(last) == 30
        assert 5 <= link.ended_s - last[-1] <= 10
    assert str(failure) == "The aggregator did not answer a ping within 5 s."


async def test_control_frames_pass_between_the_pieces(autojump_clock: MockClock) -> None:
    """A ping that arrives in the middle of a large message is answered before the message's end."""
    streams: list[tuple[trio.abc.Stream, trio.abc.Stream]] = [
        memory_stream_pair(),
        lockstep_stream_pair(),
    ]
    remaining = list(streams)
    events: list[ws.Event] = []

    async def open_stream(host: str, port: int) -> trio.abc.Stream:
        await trio.lowlevel.checkpoint()
        return remaining.pop(0)[0]

    async def play() -> None:
        await register(Peer(streams[0][1]))
        peer = Peer(streams[1][1])
        await peer.open()
        while not (events and getattr(events[-1], "message_finished", False)):
            peer._websocket.receive_data(await peer._receive())
            events.extend(peer._websocket.events())
            if len(events) == 3:
                await peer.send_event(ws.Ping(payload=b"still there?"))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(play)
        async with linked(open_stream=open_stream) as link:
            link.session.send(1, large(), lambda _: None)
            await trio.testing.wait_all_tasks_blocked()
    kinds = [type(event) for event in events]
    assert kinds.count(ws.TextMessage) > 1000
    assert kinds.index(ws.Pong) < 10


@given(st.sampled_from([1, 125, 126, PIECE, PIECE + 1, 2 * PIECE, 70_000]))
def test_a_message_in_pieces_is_the_same_message(size: int) -> None:
    """This holds for any size, with a new mask for each piece; small messages stay whole."""
    text = Random(size).randbytes(size).hex()[:size]
    client = wsproto.WSConnection(wsproto.ConnectionType.CLIENT)
    server = wsproto.WSConnection(wsproto.ConnectionType.SERVER)
    server.receive_data(client.send(ws.Request(host="host", target="/")))
    assert isinstance(next(server.events()), ws.Request)
    server.send(ws.AcceptConnection())

    async def through() -> bytes:
        ours, theirs = memory_stream_pair()
        stream = FramedStream(ours)
        stream.put(TEXT, text.encode())
        await stream.flush()
        return bytes(await theirs.receive_some())

    server.receive_data(trio.run(through))
    parts = [part for part in server.events() if isinstance(part, ws.TextMessage)]
    assert len(parts) == -(-size // PIECE)
    assert "".join(part.data for part in parts) == text
    assert [part.message_finished for part in parts] == [False] * (len(parts) - 1) + [True]


async def test_small_messages_are_written_together(autojump_clock: MockClock) -> None:
    """All that was put in leaves in one piece, and a ping does not wait for it.

    A frame of one byte also has a head of 2 bytes and a mask of 4.
    """
    ours, theirs = memory_stream_pair()
    stream = FramedStream(ours)
    await stream.send_all(b"GET /")
    stream.put(TEXT, b"a")
    await stream.send_all(b"\x89\x80mask")
    assert await theirs.receive_some() == b"GET /\x89\x80mask"
    stream.put(COMPRESSED_TEXT, b"b")
    await stream.flush()
    both = await theirs.receive_some()
    assert (len(both), both[0], both[7]) == (14, 0x81, 0xC1)
    await stream.send_all(b"\x88\x80mask")
    stream.put(TEXT, b"c")
    await stream.flush()
    assert await theirs.receive_some() == b"\x88\x80mask"  # nothing comes after a close


@attrs.define(eq=False)
class Slow(trio.abc.SendStream):
    """A stream that takes 0.1 s for each write."""

    written: list[int] = attrs.field(factory=list)
    """The first byte of each write."""

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        self.written.append(data[0])
        await trio.sleep(0.1)

    async def wait_send_all_might_not_block(self) -> None:
        """Do nothing."""

    async def aclose(self) -> None:
        """Do nothing."""


async def test_a_close_in_the_middle_of_a_large_message_ends_it(autojump_clock: MockClock) -> None:
    """The close waits for the piece under way; the next piece and all other messages are not sent.

    A piece is 4,096 bytes with a head of 4 and a mask of 4, and is written as 5 times up to 1,024.
    """
    slow = Slow()
    stream = FramedStream(trio.StapledStream(slow, memory_stream_pair()[0]))
    stream.put(TEXT, bytes(3 * PIECE))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(stream.flush)
        await trio.sleep(0.05)
        await stream.send_all(b"\x88\x80mask")
    stream.put(TEXT, b"a")
    await stream.flush()
    assert (len(slow.written), slow.written[0], slow.written[-1]) == (5 + 1, TEXT, 0x88)


@attrs.define(eq=False)
class Thin(Slow):
    """A stream of 300 bytes a second that watches how long no bytes are seen to leave."""

    stream: FramedStream | None = None
    longest_s: float = 0.0
    """The longest time in which nothing was seen to leave (s)."""

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        await trio.sleep(len(data) / 300)
        assert self.stream is not None
        self.longest_s = max(self.longest_s, trio.current_time() - self.stream.left_at)


async def test_bytes_are_seen_to_leave_a_kilobyte_at_a_time(autojump_clock: MockClock) -> None:
    """At 300 bytes/s that is every 1,024 / 300 = 3.4 s; a whole piece of 4 kB takes 13.7 s."""
    thin = Thin()
    thin.stream = stream = FramedStream(trio.StapledStream(thin, memory_stream_pair()[0]))
    stream.put(TEXT, bytes(3 * PIECE))
    await stream.flush()
    assert thin.longest_s == pytest.approx(1024 / 300)
    assert stream.moved_at == stream.left_at == pytest.approx((3 * (PIECE + 8)) / 300)


async def test_a_large_message_leaves_everybody_a_turn_after_each_piece() -> None:
    """This holds even over a stream that takes everything at once, as TCP does with room left."""
    stream = FramedStream(trio.StapledStream(Eager(), memory_stream_pair()[0]))
    stream.put(TEXT, bytes(100 * PIECE))
    turns = 0

    async def take_turns() -> None:
        nonlocal turns
        while True:
            await trio.lowlevel.checkpoint()
            turns += 1

    async with trio.open_nursery() as nursery:
        nursery.start_soon(take_turns)
        await stream.flush()
        nursery.cancel_scope.cancel()
    assert turns >= 95  # of 100; which task is first in a pass is chance


class Eager(Slow):
    """A stream that takes every write at once, without a checkpoint."""

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        self.written.append(data[0])
