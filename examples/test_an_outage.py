"""Test your engine against a bad network and an outage, in virtual time, with pytest."""

from itertools import pairwise

import trio
import trio.testing
from embed_engine import Bath

from trio_runner import EngineDispatcher, EngineRunner
from trio_runner.protocol import aggregator_messages as am
from trio_runner.protocol import engine_messages as em
from trio_runner.simulation import Aggregator, Network


async def test_a_run_survives_an_outage(autojump_clock: trio.testing.MockClock) -> None:
    aggregator = Aggregator()
    bath = Bath("Bath", computer_name="pc", clock=lambda: 1.7e9 + trio.current_time())
    async with trio.open_nursery() as nursery:
        network = Network(aggregator, nursery, latency_s=0.05, jitter_s=0.02)
        dispatcher = EngineDispatcher(handlers=bath, open_stream=network.open_stream)
        runner = EngineRunner(dispatcher, bath, bath)
        nursery.start_soon(bath.run)
        await nursery.start(runner.run)
        await trio.sleep(5)
        await aggregator.call("pc_Bath", am.ExecuteControlCommandMsg(name="Start"))
        network.wires[-1].up.lose()  # neither side is told
        await trio.sleep(30)
        async with aggregator.outage(kill=True):
            await trio.sleep(120)
        await trio.sleep(30)
        await aggregator.call("pc_Bath", am.ExecuteControlCommandMsg(name="Stop"))
        await trio.sleep(5)
        nursery.cancel_scope.cancel()
    (run,) = aggregator.recent_runs  # stored whole, though the aggregator forgot that it was on
    sent = aggregator.messages(em.TagsUpdatedMsg)
    times = [message.tags[0].tick_time for message in sent if message.run_id == run.run_id]
    assert max(b - a for a, b in pairwise(times)) < 5.5
