"""A client for the status, and runners whose status it can ask for."""

from collections.abc import AsyncGenerator, Iterable
from contextlib import asynccontextmanager
from functools import partial

import httpx2
import trio

from trio_runner import EngineDispatcher, EngineRunner
from trio_runner.simulation import Aggregator, SimulatedEngine
from trio_runner.status import Unit, serve


async def get(url: str, path: str = "", method: str = "GET") -> httpx2.Response:
    """Ask once, over a new connection."""
    async with httpx2.AsyncClient(trust_env=False) as client:
        return await client.request(method, url + path)


@asynccontextmanager
async def serving(
    *units: EngineRunner | Unit, alarm_after_s: float = 300
) -> AsyncGenerator[str, None]:
    """Serve the status of these units; yield its URL."""
    async with trio.open_nursery() as nursery:
        serving = partial(serve, units, alarm_after_s=alarm_after_s)
        (url,) = await nursery.start(serving)
        yield str(url)
        nursery.cancel_scope.cancel()


@asynccontextmanager
async def running_units(
    names: Iterable[str], aggregator: Aggregator
) -> AsyncGenerator[list[EngineRunner], None]:
    """Run units with these names at one aggregator."""
    async with trio.open_nursery() as nursery:
        opener = aggregator.in_memory(nursery)
        runners = []
        for name in names:
            engine = SimulatedEngine(name)
            dispatcher = EngineDispatcher(handlers=engine, open_stream=opener)
            runners.append(EngineRunner(dispatcher, engine, engine))
            await nursery.start(engine.run)
            await nursery.start(runners[-1].run)
        yield runners
        nursery.cancel_scope.cancel()
