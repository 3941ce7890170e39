"""The faults that a simulation may meet.

Every fault is a function of the world that it happens to and of chance of its own; it lasts as long
as the call, and what it has done is healed when it returns or is cancelled.
"""

from collections.abc import Callable, Sequence
from random import Random

import trio

from trio_runner.protocol import ErrorMessage, MessageBase, ProtocolErrorMessage
from trio_runner.protocol import aggregator_messages as am
from trio_runner.simulation.stand_ins._network import Flow, Wire
from trio_runner.simulation.trials._world import Fault, World

FAULTS: dict[str, Fault] = {}
"""Every fault by its name."""

LONGEST_S = 90.0
SHORTEST_S = 0.05

CLOSE_CODES = (1000, 1001, 1002, 1003, 1007, 1008, 1009, 1011, 1012, 1013, 4000)


def _fault(function: Fault) -> Fault:
    FAULTS[getattr(function, "__name__").strip("_")] = function  # noqa: B009
    return function


async def _for_a_while(rng: Random, longest_s: float = LONGEST_S) -> None:
    """Last from a moment to minutes, each order of magnitude as often."""
    await trio.sleep(SHORTEST_S * (longest_s / SHORTEST_S) ** rng.random())


def _newest(world: World) -> Wire | None:
    return world.network.wires[-1] if world.network.wires else None


# The network


@_fault
async def reset(world: World, rng: Random) -> None:
    """Reset all connections."""
    world.network.reset()


@_fault
async def cut_after(world: World, rng: Random) -> None:
    """Reset the connection behind some bytes, in mid-frame."""
    wire = _newest(world)
    if wire is not None:
        flow = rng.choice((wire.up, wire.down))
        flow.cut_after = rng.randint(1, 3000)
        try:
            await _for_a_while(rng, 20)
        finally:
            flow.cut_after = None  # behind the last fault no link is cut, nor in the last flush


@_fault
async def cut_handshake(world: World, rng: Random) -> None:
    """Reset the connection, and the next one in mid-handshake."""
    world.network.cut_next_after = rng.randint(1, 800)
    world.network.reset()
    try:
        await _for_a_while(rng, 20)
    finally:
        world.network.cut_next_after = None


async def _lose(world: World, rng: Random, flows: Callable[[Wire], Sequence[Flow]]) -> None:
    wire = _newest(world)
    if wire is None:
        return
    with world.trouble():
        for flow in flows(wire):
            flow.lose()
        try:
            await _for_a_while(rng)
        finally:
            wire.reset()


@_fault
async def half_open(world: World, rng: Random) -> None:
    """Lose what is sent in both directions."""
    await _lose(world, rng, lambda wire: (wire.up, wire.down))


@_fault
async def half_open_up(world: World, rng: Random) -> None:
    """Lose what the engine sends."""
    await _lose(world, rng, lambda wire: (wire.up,))


@_fault
async def half_open_down(world: World, rng: Random) -> None:
    """Lose what the aggregator sends."""
    await _lose(world, rng, lambda wire: (wire.down,))


@_fault
async def stall(world: World, rng: Random) -> None:
    """Hold back what is under way, then let it go."""
    wire = _newest(world)
    if wire is None:
        return
    flow = rng.choice((wire.up, wire.down))
    with world.trouble():
        flow.stall()
        try:
            await _for_a_while(rng, 30)
        finally:
            flow.release()


@_fault
async def slow_line(world: World, rng: Random) -> None:
    """Lower the bandwidth."""
    network = world.network
    with world.trouble():
        network.bytes_per_s = 1000 * 100 ** rng.random()
        try:
            await _for_a_while(rng)
        finally:
            network.bytes_per_s = world.bytes_per_s
            for wire in network.wires:
                for flow in (wire.up, wire.down):
                    if flow.stage != "stalled":
                        flow.release()


@_fault
async def far_away(world: World, rng: Random) -> None:
    """Raise latency and jitter."""
    network = world.network
    with world.trouble():
        network.latency_s, network.jitter_s = rng.uniform(0.05, 1), rng.uniform(0, 1)
        try:
            await _for_a_while(rng)
        finally:
            network.latency_s, network.jitter_s = world.latency_s, world.jitter_s


@_fault
async def refused(world: World, rng: Random) -> None:
    """Reset all connections and refuse new ones."""
    with world.network.refusing():
        world.network.reset()
        await _for_a_while(rng)


@_fault
async def black_hole(world: World, rng: Random) -> None:
    """Reset all connections and answer no new ones."""
    with world.network.losing_dials():
        world.network.reset()
        await _for_a_while(rng)


@_fault
async def garbage(world: World, rng: Random) -> None:
    """Put bytes into the line that are no websocket frame."""
    wire = _newest(world)
    if wire is not None:
        with world.trouble():
            wire.down.put(rng.randbytes(rng.randint(1, 60)))
            await trio.sleep(1)
            wire.reset()  # what looks like the head of a long frame would wait for its rest


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
"""Frames as no aggregator sends them: opcode and payload."""


@_fault
async def nonsense(world: World, rng: Random) -> None:
    """Put a whole frame into the line that says nothing sensible."""
    wire = _newest(world)
    if wire is not None:
        opcode, payload = rng.choice(NONSENSE)
        size = len(payload)
        head = bytes([size]) if size < 126 else b"\x7e" + size.to_bytes(2, "big")
        wire.down.put(bytes([0x80 | opcode]) + head + payload)


# The aggregator


@_fault
async def close(world: World, rng: Random) -> None:
    """Close all connections in order, with some code."""
    world.aggregator.close(rng.choice(CLOSE_CODES))


@_fault
async def restart_aggregator(world: World, rng: Random) -> None:
    """Stop the aggregator in order, and be away for a while."""
    with world.trouble():
        async with world.aggregator.outage():
            await _for_a_while(rng)


@_fault
async def kill_aggregator(world: World, rng: Random) -> None:
    """Kill the aggregator: it forgets all runs, and is away for a while."""
    with world.trouble():
        world.note_aggregator_dies()
        async with world.aggregator.outage(kill=True):
            await _for_a_while(rng)


@_fault
async def hang(world: World, rng: Random) -> None:
    """Let the aggregator do nothing, then go on with all that waits."""
    world.hangs += 1
    with world.trouble():
        try:
            await _for_a_while(rng, 40)
        finally:
            world.hangs -= 1
            world.wake_aggregator()


@_fault
async def mute(world: World, rng: Random) -> None:
    """Let the aggregator handle messages and never answer them."""
    aggregator = world.aggregator
    with world.trouble():
        aggregator.muted = True
        try:
            await _for_a_while(rng, 30)
        finally:
            aggregator.muted = False
            aggregator.close(1011)  # what it has not answered it never will


@_fault
async def slow_handler(world: World, rng: Random) -> None:
    """Let the aggregator take its time over each message."""
    with world.trouble():
        world.aggregator.handling_time_s = rng.uniform(0.01, 1)
        try:
            await _for_a_while(rng)
        finally:
            world.aggregator.handling_time_s = world.handling_s


async def _answer_with(world: World, rng: Random, answer: MessageBase) -> None:
    chance = rng.choice((0.02, 0.2, 1.0))
    world.answer = lambda: answer if rng.random() < chance else None
    try:
        await _for_a_while(rng, 5)
    finally:
        world.answer = lambda: None


@_fault
async def handler_fails(world: World, rng: Random) -> None:
    """Let handlers at the aggregator raise."""
    failed = ProtocolErrorMessage(protocol_msg="Dispatch failed. Handler raised exception.")
    await _answer_with(world, rng, failed)


@_fault
async def poison(world: World, rng: Random) -> None:
    """Let the aggregator refuse messages for good."""
    await _answer_with(world, rng, ErrorMessage(message="The aggregator does not like this"))


@_fault
async def forgotten(world: World, rng: Random) -> None:
    """Let the aggregator deny that it knows the engine."""
    unknown = ErrorMessage(message=f"No engine registered under id {world.engine_id}")
    await _answer_with(world, rng, unknown)


@_fault
async def wrong_secret(world: World, rng: Random) -> None:
    """Refuse the registration for its secret."""
    world.aggregator.secret = "another"  # noqa: S105 - of the simulation
    world.network.reset()
    try:
        await _for_a_while(rng)
    finally:
        world.aggregator.secret = ""


@_fault
async def wrong_version(world: World, rng: Random) -> None:
    """Refuse the registration for its version."""
    right = world.version
    world.aggregator.version = "9.9.9"
    world.network.reset()
    try:
        await _for_a_while(rng)
    finally:
        world.aggregator.version = right


@_fault
async def many_calls(world: World, rng: Random) -> None:
    """Let people press many buttons at once."""
    async with trio.open_nursery() as nursery:
        for _ in range(rng.randint(2, 20)):
            nursery.start_soon(world.call, am.InjectCodeMsg(pcode="Mark: A"))


# The engine and its process


@_fault
async def burst(world: World, rng: Random) -> None:
    """Let the engine tell many things at once."""
    world.with_engine(lambda engine, runner: engine.burst(runner, rng.randint(5, 60)))


@_fault
async def toggle_runs(world: World, rng: Random) -> None:
    """Begin and end runs in quick succession."""
    for _ in range(rng.randint(1, 6)):
        world.with_engine(lambda engine, runner: engine.toggle_run(runner))
        await trio.sleep(rng.choice((0.0, 0.01, 1.0)))


@_fault
async def tag_storm(world: World, rng: Random) -> None:
    """Let every sample have many tags."""
    size = rng.randint(5, 100)
    engines = world.with_engine(lambda engine, _: setattr(engine, "storm", size))
    try:
        await _for_a_while(rng, 20)
    finally:
        for engine in engines:
            engine.storm = 0


@_fault
async def bug(world: World, rng: Random) -> None:
    """Let the engine's message builder raise; the process ends and is started again."""
    world.with_engine(lambda engine, _: setattr(engine, "has_bug", True))
    await trio.sleep(1)


@_fault
async def stop_process(world: World, rng: Random) -> None:
    """Stop the process in order, and start it again."""
    await world.stop_process()


@_fault
async def kill_process(world: World, rng: Random) -> None:
    """Kill the process, and start it again."""
    world.kill_process(power=False)


@_fault
async def power_cut(world: World, rng: Random) -> None:
    """Cut the engine's power: the aggregator hears nothing of it."""
    with world.trouble():
        world.kill_process(power=True)
        try:
            await _for_a_while(rng)
        finally:
            world.forget_the_dead()


@_fault
async def torn_write(world: World, rng: Random) -> None:
    """Cut the engine's power in the middle of a write."""
    if world.disk is not None:
        world.disk.tears = True
        try:
            await trio.sleep(5)
        finally:
            world.disk.tears = False  # nothing was written
            world.forget_the_dead()


@_fault
async def disk_full(world: World, rng: Random) -> None:
    """Let the disk be full."""
    if world.disk is not None:
        world.disk.is_full = True
        try:
            await _for_a_while(rng)
        finally:
            world.disk.is_full = False


@_fault
async def clock_jump(world: World, rng: Random) -> None:
    """Put the wall clock forward or back."""
    world.clock_offset_s += rng.choice((-1, 1)) * 0.1 * 1e6 ** rng.random()
