"""A simulated engine that a runner keeps connected to the real aggregator."""

from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from typing import Unpack

import httpx2
import trio
from attrs import define, field, frozen

from trio_runner import EngineDispatcher, EngineRunner, NetworkOptions
from trio_runner.protocol import engine_messages as em
from trio_runner.protocol import models as mdl
from trio_runner.simulation import SimulatedEngine

from ._aggregator import Api, RealAggregator, eventually

CONNECT_S = 15.0

ON_DISK_S = 10.0
"""How long a run log of some lines takes to the disk (s): 4 kB of it are written a second."""


@define(eq=False, kw_only=True)
class NotingEngine(SimulatedEngine):
    """Notes what it gives to the runner, which is what was sampled."""

    samples: list[list[mdl.TagValue]] = field(factory=list, init=False)

    def create_tag_updates_msg(self, run_id: str | None) -> em.TagsUpdatedMsg | None:
        """Return the tags that have changed."""
        message = super().create_tag_updates_msg(run_id)
        if message is not None:
            self.samples.append(message.tags)
        return message

    def create_tag_updates_snapshot_msg(self) -> em.TagsUpdatedMsg:
        """Return all tags."""
        message = super().create_tag_updates_snapshot_msg()
        self.samples.append(message.tags)
        return message

    def stored_after(self, stored_s: float) -> Iterator[tuple[float, list[mdl.TagValue]]]:
        """Yield what the aggregator must store after its last stored sample, and with which time.

        It stores when its newest tag is newer than that sample by more than the data-log interval.
        Then it stores all tags that are newer than that, with the time of the newest.
        """
        tags: dict[str, mdl.TagValue] = {}
        for sample in self.samples:
            tags.update((tag.name, tag) for tag in sample if tag.tick_time > stored_s)
            newest_s = max((tag.tick_time for tag in tags.values()), default=stored_s)
            if newest_s - stored_s > self.data_log_interval_s:
                yield newest_s, list(tags.values())
                stored_s, tags = newest_s, {}


@frozen
class RunningUnit:
    """An engine with its runner, and what people see of it at the aggregator."""

    engine: NotingEngine
    runner: EngineRunner
    api: Api


@asynccontextmanager
async def running_unit(
    aggregator: RealAggregator,
    name: str,
    *,
    host: str = "127.0.0.1",
    port: int | None = None,
    kind: type[NotingEngine] = NotingEngine,
    **network: Unpack[NetworkOptions],
) -> AsyncIterator[RunningUnit]:
    """Run an engine with this name, which the aggregator lists as ready.

    It dials the aggregator itself, or the port of what stands in front of it.
    """
    engine = kind(name=name, seed=1)
    dispatcher = EngineDispatcher(host, port or aggregator.port, handlers=engine, **network)
    runner = EngineRunner(dispatcher, engine, engine)
    async with open_api(aggregator, name) as api, trio.open_nursery() as nursery:
        await nursery.start(engine.run)
        await nursery.start(runner.run)
        await eventually(api.state, lambda state: state == "ready", within_s=CONNECT_S)
        await eventually(api.process_values, bool)
        yield RunningUnit(engine, runner, api)
        await runner.shutdown()
        nursery.cancel_scope.cancel()


@asynccontextmanager
async def open_api(aggregator: RealAggregator, unit_name: str) -> AsyncIterator[Api]:
    """Open the aggregator's HTTP interface for a unit with this name."""
    async with httpx2.AsyncClient(base_url=aggregator.url, trust_env=False) as client:
        yield Api(client, unit_name)
