"""Faults of the aggregator."""

from random import Random

import trio

from trio_runner._outbox import STATE_TYPES
from trio_runner.protocol import ErrorMessage, MessageBase, ProtocolErrorMessage
from trio_runner.protocol import aggregator_messages as am
from trio_runner.protocol import engine_messages as em
from trio_runner.simulation.stand_ins._aggregator import HANDLED
from trio_runner.simulation.stand_ins._websocket import MESSAGE_BYTES_MAX
from trio_runner.simulation.trials._faults._known import draw, fault, for_a_while
from trio_runner.simulation.trials._world import World, handle_it

FAILED = ProtocolErrorMessage(protocol_msg="Dispatch failed. Handler raised exception.")
"""The answer when a handler raises."""

REFUSED = ErrorMessage(message="The aggregator does not like this")
"""The answer to a message that will never be taken."""

CLOSE_CODES = (1000, 1001, 1002, 1003, 1007, 1008, 1009, 1011, 1012, 1013, 4000)


@fault
async def close(world: World, rng: Random) -> None:
    """Close all connections cleanly, with one of several codes."""
    world.aggregator.close(rng.choice(CLOSE_CODES))


@fault
async def restart_aggregator(world: World, rng: Random) -> None:
    """Stop the aggregator cleanly, and keep it away for a while."""
    with world.trouble():
        async with world.aggregator.outage():
            await for_a_while(rng)


@fault
async def kill_aggregator(world: World, rng: Random) -> None:
    """Kill the aggregator: it forgets all runs and stays away for a while."""
    with world.trouble():
        world.note_aggregator_dies()
        async with world.aggregator.outage(kill=True):
            await for_a_while(rng)


@fault
async def hang(world: World, rng: Random) -> None:
    """Let the aggregator hang for a while, then handle everything that waits."""
    world.hangs += 1
    with world.trouble():
        try:
            await for_a_while(rng, 40)
        finally:
            world.hangs -= 1
            world.woken.notify()


@fault
async def mute(world: World, rng: Random) -> None:
    """Let the aggregator handle messages but never answer them."""
    aggregator = world.aggregator
    with world.trouble():
        aggregator.muted = True
        try:
            await for_a_while(rng, 30)
        finally:
            aggregator.muted = False
            aggregator.close(1011)  # it will never answer what it has not answered by now


@fault
async def mumble(world: World, rng: Random) -> None:
    """Let the aggregator handle messages but give answers that cannot be read."""
    aggregator = world.aggregator
    with world.trouble():
        aggregator.mumbling = True
        try:
            await for_a_while(rng, 30)
        finally:
            aggregator.mumbling = False


@fault
async def slow_handler(world: World, rng: Random) -> None:
    """Let the aggregator take its time over each message."""
    with world.trouble():
        world.aggregator.handling_time_s = rng.uniform(0.01, 1)
        try:
            await for_a_while(rng)
        finally:
            world.aggregator.handling_time_s = world.usual.handling_s


@fault
async def slow_stop(world: World, rng: Random) -> None:
    """Stop the process cleanly while more waits than the aggregator can take during the stop."""
    with world.trouble():
        world.aggregator.handling_time_s = 1.0
        world.processes.with_engine(lambda engine, runner: engine.burst(runner, 30))
        try:
            await world.processes.stop()
        finally:
            world.aggregator.handling_time_s = world.usual.handling_s


@fault
async def slow_archive(world: World, rng: Random) -> None:
    """Let the aggregator take 5 to 20 s to archive a run."""
    aggregator = world.aggregator
    with world.trouble():
        aggregator.archiving_time_s = rng.uniform(5, 20)
        try:
            await for_a_while(rng)
        finally:
            aggregator.archiving_time_s = 0
            aggregator.close(1011)  # this also ends the archiving that is going on


@fault
async def cut_at_size(world: World, rng: Random) -> None:
    """Let each message over a size end its link, as at a proxy; the end of a run is one.

    Or those of one kind of states, whatever their size.
    """
    aggregator = world.aggregator
    size = int(draw(rng, 2e3, 1e6))
    with world.trouble():
        aggregator.message_bytes_max = size
        try:
            if rng.random() < 0.7:
                world.processes.with_engine(lambda engine, runner: engine.end_run(runner, 4 * size))
                world.processes.note_size(4 * size)
            for_s = draw(rng, 5, 180)
            kind: type[em.EngineMessage] = rng.choice(STATE_TYPES)
            # Without UodInfo nothing goes out, so none is cut then.
            cut = handle_it if kind is em.UodInfoMsg else lambda: aggregator.close(1009)
            with world.failing(kind, cut):
                await trio.sleep(for_s)
        finally:
            aggregator.message_bytes_max = MESSAGE_BYTES_MAX


async def _answer_with(world: World, rng: Random, answer: MessageBase) -> None:
    chance = rng.choice((0.02, 0.2, 1.0))
    world.answer = lambda: answer if rng.random() < chance else None
    try:
        await for_a_while(rng, 5)
    finally:
        world.answer = handle_it


@fault
async def handler_fails(world: World, rng: Random) -> None:
    """Let the aggregator's handlers raise for some events and samples, or for all."""
    await _answer_with(world, rng, FAILED)


@fault
async def one_handler_fails(world: World, rng: Random) -> None:
    """Let the aggregator's handler for one kind of message raise, always or now and then."""
    kind, chance = rng.choice(HANDLED), rng.choice((0.3, 1.0))
    with world.failing(kind, lambda: FAILED if rng.random() < chance else None):
        if rng.random() < 0.5:
            world.network.reset()  # so that everything is sent again on a new link
        await for_a_while(rng, 20)


@fault
async def link_not_taken(world: World, rng: Random) -> None:
    """Let the aggregator fail to handle, or refuse, a message that each new link sends."""
    kind, chance = rng.choice((*STATE_TYPES, em.RunStartedMsg)), rng.choice((0.3, 1.0))
    is_refusal = kind is not em.RunStartedMsg and rng.random() < 0.3
    said = REFUSED if is_refusal else FAILED
    if kind is em.RunStartedMsg:
        world.processes.with_engine(lambda engine, runner: engine.begin_run(runner))
        await trio.sleep(1)
    with world.failing(kind, lambda: said if rng.random() < chance else None):
        world.network.reset()
        await trio.sleep(draw(rng, 1, 20))


@fault
async def poison(world: World, rng: Random) -> None:
    """Let the aggregator refuse some events and samples, or all, for good."""
    await _answer_with(world, rng, REFUSED)


@fault
async def forgotten(world: World, rng: Random) -> None:
    """Let the aggregator answer that it does not know the engine."""
    unknown = ErrorMessage(message=f"No engine registered under id {world.processes.engine_id}")
    await _answer_with(world, rng, unknown)


@fault
async def wrong_secret(world: World, rng: Random) -> None:
    """Refuse the registration because of its secret."""
    world.aggregator.secret = "another"  # noqa: S105 - of the simulation
    world.network.reset()
    try:
        await for_a_while(rng)
    finally:
        world.aggregator.secret = ""


@fault
async def wrong_version(world: World, rng: Random) -> None:
    """Refuse the registration because of its version."""
    right = world.version
    world.aggregator.version = "9.9.9"
    world.network.reset()
    try:
        await for_a_while(rng)
    finally:
        world.aggregator.version = right


@fault
async def many_calls(world: World, rng: Random) -> None:
    """Let people press many buttons at once."""
    async with trio.open_nursery() as nursery:
        for _ in range(rng.randint(2, 20)):
            nursery.start_soon(world.callers.call, am.InjectCodeMsg(pcode="Mark: A"))
