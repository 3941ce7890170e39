"""The faults of a simulation: the effect of each is over when it ends or is cancelled."""

from pathlib import Path

import pytest
import trio

from trio_runner.simulation.stand_ins._websocket import MESSAGE_BYTES_MAX
from trio_runner.simulation.trials._busy import BusyEngine
from trio_runner.simulation.trials._faults import FAULTS
from trio_runner.simulation.trials._schedule import Planned
from trio_runner.simulation.trials._trace import Trace
from trio_runner.simulation.trials._world import World, handle_it

BEGIN_S, END_S = 5.0, 5.2
"""By then there is a link; most faults would last longer."""

SEED_WITH_DISK = 1
"""A world whose outbox is on a disk."""


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("kind", FAULTS)
async def test_nothing_more_goes_wrong_after_the_faults_have_ended(
    kind: str, seed: int, tmp_path: Path, autojump_clock: trio.abc.Clock
) -> None:
    """Seeds 156, 529 and others: a link was cut or silent after the last fault."""
    world = World(seed, Trace(), tmp_path)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(world.run, END_S, [(Planned(0, BEGIN_S, kind), FAULTS[kind])])
        await trio.sleep(END_S + 0.001)
        assert world.faults == {kind: 1}
        network, aggregator = world.network, world.aggregator
        for wire in network.wires:
            for flow in (wire.up, wire.down):
                assert flow.stage not in ("stalled", "lost")
                assert flow.cut_after is None
        assert network.cut_next_after is None
        assert (network._refusing, network._losing) == (0, 0)
        line = (network.latency_s, network.jitter_s, network.bytes_per_s)
        assert line == (world.usual.latency_s, world.usual.jitter_s, world.usual.bytes_per_s)
        assert (aggregator.is_up, aggregator.muted, world.hangs) == (True, False, 0)
        assert not aggregator.mumbling
        times = (aggregator.handling_time_s, aggregator.archiving_time_s)
        assert times == (world.usual.handling_s, 0)
        assert (aggregator.secret, aggregator.version) == ("", world.version)
        assert world.answer is handle_it
        assert not any(world.answers.values())
        assert aggregator.message_bytes_max == MESSAGE_BYTES_MAX
        disk = world.disk
        assert disk is None or not (disk.is_full or disk.tears or disk.commit_s or disk._hangs)
        process = world.processes.now
        engine = process.engine if process is not None else None
        assert not isinstance(engine, BusyEngine) or (engine.bug_in, engine.mood) == ("", None)
        nursery.cancel_scope.cancel()


async def test_the_power_does_not_fail_later_if_there_was_no_write_to_fail_in(
    tmp_path: Path, autojump_clock: trio.abc.Clock
) -> None:
    """Seed 1026: the power failed after its fault had ended, and the end of a run never arrived."""
    world = World(SEED_WITH_DISK, Trace(), tmp_path)
    disk = world.disk
    assert disk is not None
    disk.is_full = True  # nothing is written
    async with trio.open_nursery() as nursery:
        planned = Planned(0, BEGIN_S, "torn_write")
        nursery.start_soon(world.run, 60.0, [(planned, FAULTS["torn_write"])])
        await trio.sleep(BEGIN_S + 4.9)
        assert disk.tears
        await trio.sleep(0.2)
        assert not disk.tears
        nursery.cancel_scope.cancel()
