"""An hour of a process with many units, in virtual time, and the page at its end."""

import math
import time
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager

import pytest
import trio
import trio.testing
from attrs import define, field

from trio_runner import EngineDispatcher, EngineRunner, MemoryOutbox, PlainEngine, Timing
from trio_runner.protocol import models as mdl
from trio_runner.simulation import Aggregator
from trio_runner.status import Unit
from trio_runner.status._board import SAMPLE_S, Board
from trio_runner.status._page import page

EPOCH = 1_795_000_000.0
"""When the hour begins (s since the epoch)."""

TIMING = Timing(tick_s=1, steady_s=5)
"""With few samples, an hour of a dozen units passes in seconds."""


class Wave(PlainEngine):
    """An engine with one tag, which always changes."""

    def read_tags(self) -> list[mdl.TagValue]:
        now = self.clock()
        return [mdl.TagValue(name="Wave", tick_time=now, value=math.sin(now), value_unit="m")]


@define
class Stuck:
    """A unit without a runner: it still starts, or it has failed."""

    name: str
    failed: str | None = None
    runner: EngineRunner | None = field(default=None, init=False)


@define(eq=False)
class Process:
    """The units of a process, each with its own aggregator."""

    _nursery: trio.Nursery
    units: list[EngineRunner | Unit] = field(factory=list, init=False)

    async def add(self, name: str, bytes_max: int = 64 * 2**20) -> Aggregator:
        """Run one more unit, and return its aggregator."""
        aggregator, engine = Aggregator(), Wave(name, clock=time.time)
        opener = aggregator.in_memory(self._nursery)
        dispatcher = EngineDispatcher(handlers=engine, open_stream=opener)
        outbox = MemoryOutbox(bytes_max)
        runner = EngineRunner(dispatcher, engine, engine, outbox=outbox, timing=TIMING)
        await self._nursery.start(runner.run)
        self.units.append(runner)
        return aggregator

    async def pass_time(self, board: Board, seconds: float) -> None:
        """Let time pass, and let the board take note of it as in a server."""
        for _ in range(round(seconds / SAMPLE_S)):
            board.sample()
            await trio.sleep(SAMPLE_S)


@asynccontextmanager
async def _process() -> AsyncGenerator[Process, None]:
    async with trio.open_nursery() as nursery:
        yield Process(nursery)
        nursery.cancel_scope.cancel()


async def _one() -> str:
    """Return the page of a unit that was away twice in the hour and is well now."""
    async with _process() as process:
        aggregator = await process.add("Filtration Skid")
        board = Board.of(process.units, 300)
        await process.pass_time(board, 900)
        aggregator.handling_time_s = 0.08
        async with aggregator.outage():
            await process.pass_time(board, 240)
        await process.pass_time(board, 900)
        aggregator.handling_time_s = 0.15
        async with aggregator.outage():
            await process.pass_time(board, 600)
        await process.pass_time(board, 120)
        aggregator.handling_time_s = 0.02
        await process.pass_time(board, 840)
        return page(board.look())


async def _dozen() -> str:
    """Return the page of twelve units, with one of each kind among them."""
    async with _process() as process:
        away = await process.add("Chromatography 1")
        catching_up = await process.add("Chromatography 2")
        full = await process.add("Reactor with a name as long as people make them, in hall 12 B")
        short = await process.add("Reactor 2")
        for number in range(1, 7):
            await process.add(f"Skid {number}")
        process.units += [Stuck("filtration.py", "its hardware cannot be used."), Stuck("new.py")]
        board = Board.of(process.units, 300)
        await process.pass_time(board, 1200)
        async with catching_up.outage(), full.outage():
            await process.pass_time(board, 1400)
        catching_up.handling_time_s = 4
        async with away.outage():
            await process.pass_time(board, 990)
            async with short.outage():
                await process.pass_time(board, 30)
                return page(board.look())


def _after(make: Callable[[], Awaitable[str]], monkeypatch: pytest.MonkeyPatch) -> str:
    with monkeypatch.context() as patch:
        clock = trio.testing.MockClock(autojump_threshold=0)
        patch.setattr(time, "time", lambda: EPOCH + clock.current_time())
        return trio.run(make, clock=clock)


def page_of_one(monkeypatch: pytest.MonkeyPatch) -> str:
    """Return the page of one unit after an hour."""
    return _after(_one, monkeypatch)


def page_of_twelve(monkeypatch: pytest.MonkeyPatch) -> str:
    """Return the page of twelve units after an hour."""
    return _after(_dozen, monkeypatch)
