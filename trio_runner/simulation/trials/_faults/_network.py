"""Faults of the network."""

from collections.abc import Callable, Sequence
from random import Random

import trio

from trio_runner.simulation.stand_ins._network import Flow, Wire
from trio_runner.simulation.trials._faults._known import (
    LONGEST_S,
    SHORTEST_S,
    draw,
    fault,
    for_a_while,
    newest_wire,
)
from trio_runner.simulation.trials._world import World


@fault
async def reset(world: World, rng: Random) -> None:
    """Reset all connections."""
    world.network.reset()


@fault
async def short_lives(world: World, rng: Random) -> None:
    """Reset all connections again and again, so that each lives for 0.3 to 5 s at most."""
    lives_s = draw(rng, 0.3, 5)
    with trio.move_on_after(draw(rng, 10, 180)):
        while True:
            await trio.sleep(lives_s)
            world.network.reset()


@fault
async def cut_after(world: World, rng: Random) -> None:
    """Reset the connection after some number of bytes, in mid-frame."""
    wire = newest_wire(world)
    if wire is not None:
        flow = rng.choice((wire.up, wire.down))
        flow.cut_after = rng.randint(1, 3000)
        try:
            await for_a_while(rng, 20)
        finally:
            flow.cut_after = None  # no link may be cut after the last fault, nor in the last flush


@fault
async def cut_handshake(world: World, rng: Random) -> None:
    """Reset all connections, and the next one in mid-handshake."""
    world.network.cut_next_after = rng.randint(1, 800)
    world.network.reset()
    try:
        await for_a_while(rng, 20)
    finally:
        world.network.cut_next_after = None


async def _lose(world: World, rng: Random, flows: Callable[[Wire], Sequence[Flow]]) -> None:
    wire = newest_wire(world)
    if wire is None:
        return
    with world.trouble():
        for flow in flows(wire):
            flow.lose()
        try:
            await for_a_while(rng)
        finally:
            wire.reset()


@fault
async def half_open(world: World, rng: Random) -> None:
    """Lose everything that is sent, in both directions."""
    await _lose(world, rng, lambda wire: (wire.up, wire.down))


@fault
async def half_open_up(world: World, rng: Random) -> None:
    """Lose everything that the engine sends."""
    await _lose(world, rng, lambda wire: (wire.up,))


@fault
async def half_open_down(world: World, rng: Random) -> None:
    """Lose everything that the aggregator sends."""
    await _lose(world, rng, lambda wire: (wire.down,))


@fault
async def stall(world: World, rng: Random) -> None:
    """Hold back one direction of the connection for a while, then let it go."""
    wire = newest_wire(world)
    if wire is None:
        return
    flow = rng.choice((wire.up, wire.down))
    with world.trouble():
        flow.stall()
        try:
            await for_a_while(rng, 30)
        finally:
            flow.release()


@fault
async def slow_line(world: World, rng: Random) -> None:
    """Lower the bandwidth."""
    await _thin_out(world, draw(rng, 1e3, 1e5), draw(rng, SHORTEST_S, LONGEST_S))


@fault
async def thin_line(world: World, rng: Random) -> None:
    """Lower the bandwidth for up to 3 minutes, to less than many samples need."""
    await _thin_out(world, draw(rng, 300, 1500), draw(rng, 10, 180))


@fault
async def slow_archive_line(world: World, rng: Random) -> None:
    """End a run whose archive takes longer to send than an answer may take, while nobody calls.

    The answer to a call could not overtake it: a websocket sends one message at a time.
    """
    size = int(draw(rng, 6e5, 2e6))
    world.processes.note_size(size)
    with world.callers.resting():
        world.processes.with_engine(lambda engine, runner: engine.end_run(runner, size))
        # Compressed, the archive is half as large.
        await _thin_out(world, size / 2 / rng.uniform(12, 30), 60)


async def _thin_out(world: World, bytes_per_s: float, duration_s: float) -> None:
    network = world.network
    with world.callers.thin_line.lasting():
        network.bytes_per_s = bytes_per_s
        try:
            await trio.sleep(duration_s)
        finally:
            network.bytes_per_s = world.usual.bytes_per_s
            for wire in network.wires:
                for flow in (wire.up, wire.down):
                    if flow.stage != "stalled":
                        flow.release()


@fault
async def far_away(world: World, rng: Random) -> None:
    """Raise latency and jitter."""
    network = world.network
    with world.callers.long_way.lasting():
        network.latency_s, network.jitter_s = rng.uniform(0.05, 1), rng.uniform(0, 1)
        try:
            await for_a_while(rng)
        finally:
            network.latency_s, network.jitter_s = world.usual.latency_s, world.usual.jitter_s


@fault
async def moved(world: World, rng: Random) -> None:
    """Be far away for up to 3 minutes, at a distance that stays the same but for little jitter."""
    network = world.network
    with world.callers.long_way.lasting():
        network.latency_s, network.jitter_s = rng.uniform(0.1, 1), rng.uniform(0, 0.1)
        try:
            await trio.sleep(draw(rng, 20, 180))
        finally:
            network.latency_s, network.jitter_s = world.usual.latency_s, world.usual.jitter_s


@fault
async def wander(world: World, rng: Random) -> None:
    """Change the distance again and again in mid-link, never so far that an answer is late."""
    network = world.network
    with trio.move_on_after(draw(rng, 5, 180)):
        try:
            while True:
                network.latency_s, network.jitter_s = rng.uniform(0, 0.4), rng.uniform(0, 0.15)
                await trio.sleep(draw(rng, 0.1, 60))
        finally:
            network.latency_s, network.jitter_s = world.usual.latency_s, world.usual.jitter_s


@fault
async def refused(world: World, rng: Random) -> None:
    """Reset all connections and refuse new ones."""
    with world.network.refusing():
        world.network.reset()
        await for_a_while(rng)


@fault
async def black_hole(world: World, rng: Random) -> None:
    """Reset all connections and leave new ones without any answer."""
    with world.network.losing_dials():
        world.network.reset()
        await for_a_while(rng)


@fault
async def garbage(world: World, rng: Random) -> None:
    """Send the engine bytes that are not a websocket frame."""
    wire = newest_wire(world)
    if wire is not None:
        with world.trouble():
            wire.down.put(rng.randbytes(rng.randint(1, 60)))
            try:
                await trio.sleep(1)
            finally:  # the bytes may look like the head of a long frame, whose rest never comes
                wire.reset()


NONSENSE = (
    (1, b""),
    (1, b"not json"),
    (1, b"[1, 2]"),
    (1, b"{}"),
    (1, b'{"request":{"method":"shut_down","arguments":{},"call_id":"1"},"response":null}'),
    (1, b'{"request":null,"response":{"result":"x","result_type":"str","call_id":"99"}}'),
    (1, b"[" * 5000),
    (2, b"\xff\xfe"),
    (9, b"ping"),
    (10, b"a pong that nobody asked for"),
)
"""Frames that no aggregator sends: opcode and payload."""


@fault
async def nonsense(world: World, rng: Random) -> None:
    """Send the engine a whole frame that makes no sense."""
    wire = newest_wire(world)
    if wire is not None:
        opcode, payload = rng.choice(NONSENSE)
        size = len(payload)
        head = bytes([size]) if size < 126 else b"\x7e" + size.to_bytes(2, "big")
        wire.down.put(bytes([0x80 | opcode]) + head + payload)
