"""A simulated engine that a runner keeps connected to the real aggregator."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import httpx2
import trio
from attrs import frozen

from trio_runner import EngineDispatcher, EngineRunner
from trio_runner.simulation import SimulatedEngine

from ._aggregator import Api, RealAggregator, eventually

CONNECT_S = 15.0


@frozen
class Unit:
    """An engine with its runner, and what people see of it at the aggregator."""

    engine: SimulatedEngine
    runner: EngineRunner
    api: Api


@asynccontextmanager
async def running_unit(aggregator: RealAggregator, name: str) -> AsyncIterator[Unit]:
    """Run an engine of this name, listed as ready at the aggregator."""
    engine = SimulatedEngine(name=name, seed=1)
    dispatcher = EngineDispatcher("127.0.0.1", aggregator.port, handlers=engine)
    runner = EngineRunner(dispatcher, engine, engine)
    async with open_api(aggregator, name) as api, trio.open_nursery() as nursery:
        await nursery.start(engine.run)
        await nursery.start(runner.run)
        await eventually(api.state, lambda state: state == "ready", within_s=CONNECT_S)
        await eventually(api.process_values, bool)
        yield Unit(engine, runner, api)
        await runner.shutdown()
        nursery.cancel_scope.cancel()


@asynccontextmanager
async def open_api(aggregator: RealAggregator, unit_name: str) -> AsyncIterator[Api]:
    """Open the aggregator's HTTP interface for a unit of this name."""
    async with httpx2.AsyncClient(base_url=aggregator.url, trust_env=False) as client:
        yield Api(client, unit_name)
