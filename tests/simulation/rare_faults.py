"""Faults that deliberate bugs name: they would make every life long, or hide what else is wrong.

Each happens once in a life.
"""

from random import Random

import trio
import trio.testing

from trio_runner._runner import EngineRunner
from trio_runner.protocol import engine_messages as em
from trio_runner.simulation.trials._busy import BusyEngine
from trio_runner.simulation.trials._faults._aggregator import FAILED
from trio_runner.simulation.trials._world import Fault, World

BLOCK_S = 0.55
"""How long a call to the engine holds Trio's thread (s): it is told from 0.5 s on."""

OUTAGE_S = 601.0
"""How long an outage lasts (s): it is told from 10 min on."""

RARE_FAULTS: dict[str, Fault] = {}
"""Each by its name."""


def rare(fault: Fault) -> Fault:
    """Add a fault by the name of its function; it happens once in a life."""
    name = getattr(fault, "__name__")  # noqa: B009

    async def once(world: World, rng: Random) -> None:
        if world.faults[name] == 1:
            await fault(world, rng)

    RARE_FAULTS[name] = once
    return fault


@rare
async def long_outage(world: World, rng: Random) -> None:
    """Reset all connections, and refuse new ones for 10 min."""
    with world.network.refusing():
        world.network.reset()
        await trio.sleep(OUTAGE_S)


@rare
async def flood_of_errors(world: World, rng: Random) -> None:
    """Let the engine log 1,100 to 1,300 errors in 15 s without a connection."""
    with world.network.refusing():
        world.network.reset()
        errors = rng.randint(22, 26)
        for _ in range(50):
            world.processes.with_engine(lambda engine, _: _log(engine, errors))
            await trio.sleep(0.3)


def _log(engine: BusyEngine, errors: int) -> None:
    for _ in range(errors):
        engine.log_error()


@rare
async def notices_fail(world: World, rng: Random) -> None:
    """Let the aggregator fail to handle every notification for a while."""
    with world.failing(em.WebPushNotificationMsg, lambda: FAILED):
        world.processes.with_engine(lambda engine, runner: engine.notify(runner))
        await trio.sleep(rng.uniform(15, 20))


@rare
async def slow_new_link(world: World, rng: Random) -> None:
    """Reset all connections, and let the aggregator be slow when the next one comes."""
    with world.trouble():
        world.aggregator.handling_time_s = rng.uniform(0.6, 0.9)
        world.network.reset()
        try:
            await trio.sleep(60)
        finally:
            world.aggregator.handling_time_s = world.usual.handling_s


@rare
async def blocking_call(world: World, rng: Random) -> None:
    """Let the engine hold Trio's thread while it is asked what it has logged."""

    def block_next_time(engine: BusyEngine, runner: EngineRunner) -> None:
        ask = engine.create_error_log_msg

        def create_error_log_msg() -> em.ErrorLogMsg | None:
            del engine.create_error_log_msg  # from here on it is the class's again
            clock = trio.lowlevel.current_clock()
            assert isinstance(clock, trio.testing.MockClock)
            clock.jump(BLOCK_S)
            world.oracle.told.await_word("the engine blocks")
            return ask()

        engine.create_error_log_msg = create_error_log_msg  # type: ignore[method-assign]

    with world.trouble():
        world.processes.with_engine(block_next_time)
        await trio.sleep(1)


@rare
async def runs_without_a_link(world: World, rng: Random) -> None:
    """Let runs begin and end in an outage of 4 min, before an aggregator that is slow and far."""
    network, usual = world.network, world.usual
    network.latency_s, network.jitter_s = rng.uniform(0.1, 0.2), 0.0
    world.aggregator.handling_time_s = 0.02
    try:
        with network.refusing():
            network.reset()
            for _ in range(4):
                await trio.sleep(60)
                world.processes.with_engine(lambda engine, runner: engine.toggle_run(runner))
        await trio.sleep(60)
    finally:
        network.latency_s, network.jitter_s = usual.latency_s, usual.jitter_s
        world.aggregator.handling_time_s = usual.handling_s
