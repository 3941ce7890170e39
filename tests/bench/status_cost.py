"""What `--status` costs: CPU of an engine and its runner in steady state, without and with it.

    .venv/bin/python -m tests.bench.status_cost [PAIRS]

The aggregator and the client that scrapes are other processes. The status is on and off in turn
within one process, for 10 s each. Two processes of the same program differ by more than the status
costs, if only in the layout of their memory, and so do two minutes of a busy machine. The figures
are user and system time.
"""

import statistics
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable
from functools import partial

import trio

from trio_runner import EngineDispatcher, EngineRunner
from trio_runner.simulation import Aggregator, SimulatedEngine
from trio_runner.status import serve

WINDOW_S = 10
"""A whole period of what the status does by itself: two wake-ups, one of which takes a sample."""

SETTLE_S = 0.3
SCRAPES = 100
SCRAPE_EVERY_S = 15

SCRAPER = """
import sys, time, urllib.request
opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
for _ in range(int(sys.argv[2])):
    opener.open(sys.argv[1] + "metrics").read()
    time.sleep(0.1)
"""


async def measure(port: int, pairs: int) -> None:
    """Print what the status adds while nobody asks, and what a scrape adds."""
    engine = SimulatedEngine()
    runner = EngineRunner(EngineDispatcher("127.0.0.1", port, handlers=engine), engine, engine)
    async with trio.open_nursery() as nursery:
        await nursery.start(engine.run)
        await nursery.start(runner.run)
        await trio.sleep(3)
        without, served = await _pairs(runner, pairs)
        scrape_ms = await _scrape_ms(runner, statistics.mean(served))
        nursery.cancel_scope.cancel()
    added = [b - a for a, b in zip(without, served, strict=True)]
    base, error = statistics.mean(without), statistics.stdev(added) / len(added) ** 0.5
    share = scrape_ms / SCRAPE_EVERY_S / base
    sys.stdout.write(
        f"without: {base:.3f} ms of CPU a second\n"
        f"with: {statistics.mean(added) / base:+.1%} +- {error / base:.1%} (mean of {pairs} pairs"
        f" and its error), median {statistics.median(added) / base:+.1%}\n"
        f"a scrape: {scrape_ms:.2f} ms; one every {SCRAPE_EVERY_S} s is {share:+.1%}\n"
    )


async def _pairs(runner: EngineRunner, pairs: int) -> tuple[list[float], list[float]]:
    """Return the CPU time (ms a second) without and with the status, in adjacent windows."""
    found: dict[bool, list[float]] = {False: [], True: []}
    for number in range(pairs):
        for is_served in (False, True) if number % 2 else (True, False):
            async with trio.open_nursery() as nursery:
                if is_served:
                    await nursery.start(serve, [runner])
                await trio.sleep(SETTLE_S)
                found[is_served].append(await _cpu(partial(trio.sleep, WINDOW_S)))
                nursery.cancel_scope.cancel()
    return found[False], found[True]


async def _scrape_ms(runner: EngineRunner, base: float) -> float:
    """Return the CPU time (ms) of one scrape, which comes over its own connection."""
    async with trio.open_nursery() as nursery:
        (url,) = await nursery.start(serve, [runner])
        began = trio.current_time()
        command = [sys.executable, "-c", SCRAPER, url, str(SCRAPES)]
        process: trio.Process = await nursery.start(trio.run_process, command)
        used = await _cpu(process.wait)
        took_s = trio.current_time() - began
        nursery.cancel_scope.cancel()
    return (used - base) * took_s / SCRAPES


async def _cpu(wait: Callable[[], Awaitable[object]]) -> float:
    """Return the CPU time (ms a second) during a wait."""
    began, before = trio.current_time(), time.process_time()
    await wait()
    return (time.process_time() - before) * 1e3 / (trio.current_time() - began)


async def aggregate() -> None:
    """Play the aggregator, and tell its port."""
    async with trio.open_nursery() as nursery:
        sys.stdout.write(f"{await nursery.start(Aggregator().run)}\n")
        sys.stdout.flush()


def main() -> None:
    """Measure, with an aggregator in another process."""
    if sys.argv[1:] == ["aggregator"]:
        trio.run(aggregate)
    pairs = int(sys.argv[1]) if len(sys.argv) > 1 else 20
    command = [sys.executable, "-m", "tests.bench.status_cost", "aggregator"]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        try:
            port = int(process.stdout.readline())
            trio.run(partial(measure, port, pairs))
        finally:
            process.kill()


if __name__ == "__main__":
    main()
