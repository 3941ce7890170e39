"""The real aggregator's plot log after the path, the aggregator or the engine failed in mid-run.

What it must contain follows from what was sampled and from the aggregator's rule. It stores a
sample if that is the first since it knows the run, or if it is more than the data-log interval
newer than the last one that it stored. On a new link it has forgotten that last one, and unanswered
samples of the old link come again. So once on each link, storing may begin anew without a gap: with
the sample that would have been stored next, or with an earlier one.
"""

import signal
import sys
import time
import uuid
from bisect import bisect_right
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager, nullcontext
from itertools import pairwise
from math import inf
from pathlib import Path

import pytest
import trio
from attrs import frozen

from tests.faults.proxy import Proxy
from tests.helpers.command import running
from trio_runner import EngineDispatcher, EngineRunner
from trio_runner._outbox import COMMIT_S

from ._aggregator import RealAggregator, eventually
from ._counting import LOG_INTERVAL_S, TAG, CountingUnit, Sample, noted
from ._database import Database
from ._unit import CONNECT_S

pytestmark = [pytest.mark.interop, pytest.mark.timeout(600)]

FAR = {"latency_s": 0.2, "jitter_s": 0.3}
"""400 ms there and back, and up to 600 ms more."""

OUTAGE_S = 2.5

SAMPLING_S_MAX = 2 * (LOG_INTERVAL_S + 0.2)
"""The longest time between two samples (s): without a link one is due every 0.7 s, and a busy
machine may miss one."""

COMMIT_TAKES_S = 0.25
"""What a commit may take on a busy machine (s); what was put in before it began is safe then."""


def after(sample: Sample, sampled: Sequence[Sample]) -> Sample | None:
    """Return what must be stored next after a sample, or None if nothing must."""
    place = bisect_right(sampled, sample[0] + LOG_INTERVAL_S, key=lambda other: other[0])
    return sampled[place] if place < len(sampled) else None


def check_plot(
    stored: Sequence[Sample], sampled: Sequence[Sample], *, links: int, sure_until_s: float = inf
) -> None:
    """Check a plot log against what was sampled in the run.

    Samples taken after `sure_until_s` may be missing.
    """
    assert max(later[0] - earlier[0] for earlier, later in pairwise(sampled)) < SAMPLING_S_MAX
    assert stored[0] == sampled[0]
    assert set(stored) <= set(sampled)
    anew = 0
    for sample, following in pairwise(stored):
        due = after(sample, sampled)
        if following != due:
            anew += 1
            assert due is None or following[0] < due[0], f"{due} is not stored after {sample}"
    assert anew < links
    due = after(max(stored), sampled)
    assert due is None or due[0] > sure_until_s, f"{due} is not stored at the end"


def test_the_rule_finds_what_is_missing_wrong_or_too_much() -> None:
    """It accepts what the aggregator may store, and nothing else."""
    sampled = [(place * 0.25, place) for place in range(10)]  # 0 to 2.25 s
    stored = [sampled[n] for n in (0, 3, 6, 9)]  # 0.75 s is more than 0.5 s
    check_plot(stored, sampled, links=1)
    check_plot(stored[:2] + [sampled[n] for n in (2, 5, 8)], sampled, links=2)
    check_plot(stored[:3], sampled, links=1, sure_until_s=2.0)
    for wrong in (
        stored[1:],
        stored[:-1],
        [*stored[:1], *stored[2:]],
        [stored[0], sampled[2], *stored[1:]],
        [*stored[:3], (2.25, 8)],
    ):
        with pytest.raises(AssertionError):
            check_plot(wrong, sampled, links=1)


@frozen
class Run:
    """A run of a unit that reaches the aggregator through a proxy."""

    run_id: str
    proxy: Proxy
    database: Database

    async def stored(self, count: int) -> None:
        """Wait until this many more samples are stored."""
        wanted = len(self.plot()) + count

        async def plot() -> list[Sample]:
            return self.plot()

        await eventually(plot, lambda plot: len(plot) >= wanted, within_s=2 * CONNECT_S)

    async def listed(self) -> None:
        """Wait until the run is listed, and check that it is listed once."""

        async def times() -> int:
            return self.database.times_listed(self.run_id)

        assert await eventually(times, bool, within_s=CONNECT_S) == 1

    def plot(self) -> list[Sample]:
        return self.database.plot(self.run_id, TAG)


@asynccontextmanager
async def run_through_a_proxy(
    aggregator: RealAggregator, *, is_far: bool = False
) -> AsyncGenerator[Run, None]:
    """Yield the id of a run, and a proxy that listens while the block runs."""
    async with trio.open_nursery() as nursery:
        proxy = Proxy(aggregator.port)
        way = proxy.new_connections(up=FAR, down=FAR) if is_far else nullcontext()
        with way:
            await nursery.start(proxy.run)
            yield Run(str(uuid.uuid4()), proxy, Database(aggregator.database))
        nursery.cancel_scope.cancel()


async def outage(run: Run, aggregator: RealAggregator) -> None:
    """Lose what is sent for 1 s, and then the whole path for a while."""
    with run.proxy.half_open(up=True):
        await trio.sleep(1)
        async with run.proxy.refusing():
            run.proxy.cut()
            await trio.sleep(OUTAGE_S)


async def crash(run: Run, aggregator: RealAggregator) -> None:
    """Kill the aggregator, and start it with the same database."""
    async with run.proxy.refusing():
        await trio.to_thread.run_sync(aggregator.kill)
        await trio.to_thread.run_sync(aggregator.start)


@pytest.mark.parametrize(
    ("fault", "is_far"),
    [(outage, False), (outage, True), (crash, False)],
    ids=["outage", "outage, far away", "crash"],
)
async def test_the_plot_log_equals_what_was_sampled(
    aggregator: RealAggregator,
    fault: Callable[[Run, RealAggregator], Awaitable[None]],
    is_far: bool,
) -> None:
    """A cut path and a crash of the aggregator in mid-run leave no gap and no wrong value."""
    samples: list[Sample] = []
    unit = CountingUnit(note=samples.append)
    async with (
        run_through_a_proxy(aggregator, is_far=is_far) as run,
        trio.open_nursery() as nursery,
    ):
        dispatcher = EngineDispatcher("127.0.0.1", run.proxy.port, handlers=unit)
        runner = EngineRunner(dispatcher, unit, unit)
        with runner.state_changes() as changes:
            await nursery.start(runner.run)
            await changes.receive()  # Connected; only then is the data-log interval known
        before = len(samples)
        runner.on_start(run.run_id)
        await run.stored(3)
        await fault(run, aggregator)
        await run.stored(6)
        runner.on_stop()
        in_run = samples[before:]
        await run.listed()
        links = runner.statistics().links
        assert links >= 2
        check_plot(run.plot(), in_run, links=links)
        await runner.shutdown()
        nursery.cancel_scope.cancel()


async def test_the_plot_log_of_a_killed_engine_equals_what_was_sampled(
    aggregator: RealAggregator, tmp_path: Path
) -> None:
    """It is killed in an outage. The next process ends the run; all samples but 0.5 s are there."""
    program = [sys.executable, "-m", "tests.interop._counting"]
    notes = tmp_path / "notes"
    async with run_through_a_proxy(aggregator) as run:
        arguments = str(run.proxy.port), str(tmp_path / "unit.outbox"), str(notes)
        async with running(*arguments, run.run_id, program=program) as engine:
            await run.stored(3)
            async with run.proxy.refusing():
                run.proxy.cut()
                await trio.sleep(OUTAGE_S)
                killed_s = time.time()
                engine.send(signal.SIGKILL)
                await engine.process.wait()
        async with running(*arguments, program=program) as engine:
            await run.listed()
            engine.send(signal.SIGKILL)
        sampled = noted(notes, run.run_id)
        sure_until_s = killed_s - COMMIT_S - COMMIT_TAKES_S
        check_plot(run.plot(), sampled, links=2, sure_until_s=sure_until_s)
