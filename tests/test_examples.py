"""The examples do what they show."""

import runpy
from pathlib import Path
from typing import Any

import trio
import trio.testing

from trio_runner import EngineDispatcher, EngineRunner
from trio_runner.protocol import aggregator_messages as am
from trio_runner.protocol import engine_messages as em
from trio_runner.simulation import Aggregator

EMBED = Path(__file__).parent.parent / "examples" / "embed_engine.py"


async def test_an_engine_of_ones_own_is_embedded_in_under_sixty_lines(
    autojump_clock: trio.testing.MockClock,
) -> None:
    """The bath of the example is warmed by a run that the page starts, and stopped by it."""
    assert len(EMBED.read_text().splitlines()) < 60
    aggregator = Aggregator()
    bath: Any = runpy.run_path(str(EMBED))["Bath"](
        "Bath", computer_name="host", clock=lambda: 1.7e9 + trio.current_time()
    )
    async with trio.open_nursery() as nursery:
        opener = aggregator.in_memory(nursery)
        dispatcher = EngineDispatcher(handlers=bath, open_stream=opener)
        nursery.start_soon(bath.run)
        await nursery.start(EngineRunner(dispatcher, bath, bath).run)
        await trio.sleep(1)
        await aggregator.call("host_Bath", am.ExecuteControlCommandMsg(name="Start"))
        await trio.sleep(60)
        await aggregator.call("host_Bath", am.ExecuteControlCommandMsg(name="Stop"))
        await trio.sleep(1)
        nursery.cancel_scope.cancel()
    # 600 steps of 0.1 s from 20 towards 80 degC: 80 - 60 * 0.99**600 = 79.9 degC
    values = [t.tags[0].value for t in aggregator.messages(em.TagsUpdatedMsg) if t.tags]
    assert 79 < max(float(str(value)) for value in values) < 80
    assert len(aggregator.recent_runs) == 1
