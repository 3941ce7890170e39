"""`simulate`: one seed gives one simulated life of an engine, always the same."""

import logging
import tempfile
import time
from collections.abc import Collection, Generator, Sequence
from contextlib import contextmanager
from pathlib import Path
from random import Random
from typing import TextIO

import trio
import trio.testing
from attrs import frozen

from trio_runner._groups import first
from trio_runner.simulation.stand_ins._sometimes import counting
from trio_runner.simulation.trials._faults import FAULTS
from trio_runner.simulation.trials._guest import Invitation
from trio_runner.simulation.trials._record import Record
from trio_runner.simulation.trials._schedule import Planned, plan
from trio_runner.simulation.trials._thread_watch import ThreadWatch, held
from trio_runner.simulation.trials._trace import Trace
from trio_runner.simulation.trials._world import World

DURATION_S = 600.0
"""How long faults happen, unless another time is given (s)."""

MEMORY_FOLDER = Path("/dev/shm")  # noqa: S108 - a folder for a folder of our own
"""A folder in memory, where a sync costs nothing. Without it, the usual folder is used."""


@frozen
class Report:
    """What one simulation did and found."""

    seed: int
    simulated_s: float
    real_s: float
    """The processor time that it took (s)."""
    faults: dict[str, int]
    """How often each kind of fault happened."""
    events: int
    """Events that the engine made. All arrived, unless set aside or lost as their process died."""
    samples: int
    resent: int
    """Messages that arrived more than once."""
    thinned: int
    lost_with_process: int
    """Events and samples that were only in memory when their process died."""
    processes: int
    calls: int
    recovered_s: float
    """From the last fault to steady state (s)."""
    marks: dict[str, int]
    """How often each situation was met, of those that must be met sometimes."""
    hash: str
    """The hash of the trace."""
    violation: str | None
    """The promise that was broken, or None."""
    last_lines: tuple[str, ...]
    """The last lines of the trace."""


def simulate(
    seed: int,
    duration_s: float = DURATION_S,
    *,
    kinds: Sequence[str] | None = None,
    keep: Sequence[int] | None = None,
    trace_file: TextIO | None = None,
    record: Record | None = None,
) -> Report:
    """Simulate an engine that meets faults for duration_s (s), and return what was found.

    The same arguments give the same trace. `kinds` keeps only these kinds of faults in the seed's
    schedule, `keep` only the faults with these numbers. `trace_file` takes the lines of the trace,
    `record` the data for a picture. Call it outside Trio.

    Raises ValueError for an unknown kind of fault.
    """
    planned = scheduled(seed, duration_s, FAULTS, kinds, keep)
    return live(seed, duration_s, planned, Trace(trace_file, record))


def scheduled(
    seed: int,
    duration_s: float,
    known: Collection[str],
    kinds: Sequence[str] | None,
    keep: Sequence[int] | None,
) -> list[Planned]:
    """Return the faults that a seed meets, out of the known ones; see `simulate`."""
    unknown = sorted(set(kinds or ()) - set(known))
    if unknown:
        raise ValueError(f"there is no fault {unknown[0]!r}; there are {', '.join(sorted(known))}")
    planned = plan(seed, duration_s, known, kinds)
    return [fault for fault in planned if keep is None or fault.number in keep]


def live(
    seed: int,
    duration_s: float,
    planned: Sequence[Planned],
    trace: Trace,
    invited: Invitation | None = None,
) -> Report:
    """Let an engine live through these faults: an invited one, or the simulated one."""
    began = time.process_time()
    where = MEMORY_FOLDER if MEMORY_FOLDER.is_dir() else None
    with (
        tempfile.TemporaryDirectory(dir=where) as folder,
        repeatable(seed),
        no_logging(),
        counting() as met,
    ):
        world = World(seed, trace, Path(folder), invited)
        clock = trio.testing.MockClock(autojump_threshold=0)

        async def run() -> float:
            try:
                await world.run(duration_s, [(fault, FAULTS[fault.kind]) for fault in planned])
            except Exception as error:
                world.oracle.expect(False, f"the runner raised {first(error)!r}")
            return trio.current_time()

        watches = () if invited is None else (_watch(world, invited),)
        simulated_s = trio.run(run, clock=clock, instruments=watches, strict_exception_groups=True)
    met.update({f"fault {kind}": number for kind, number in world.faults.items()})
    oracle = world.oracle
    if trace.record is not None:
        trace.record.fates.update(oracle.fates())
    samples = sum(1 for kind, _ in oracle.made if kind == "sample")
    return Report(
        seed=seed,
        simulated_s=simulated_s,
        real_s=time.process_time() - began,
        faults=world.faults,
        events=len(oracle.made) - samples,
        samples=samples,
        resent=oracle.resent,
        thinned=oracle.thinned,
        lost_with_process=len(oracle.excused - set(oracle.received)),
        processes=world.processes.count,
        calls=world.callers.calls,
        recovered_s=world.recovered_s,
        marks=dict(sorted(met.items())),
        hash=trace.hash,
        violation=oracle.violation,
        last_lines=tuple(trace.last),
    )


def _watch(world: World, invited: Invitation) -> ThreadWatch:
    return ThreadWatch(
        invited.tasks,
        lambda who, took_s: world.oracle.expect(False, held(who, took_s)),
    )


@contextmanager
def repeatable(seed: int) -> Generator[None, None, None]:
    """Let Trio run its tasks in an order that follows from the seed.

    A mock clock does not fix the order of tasks that are due at the same time. Trio has a switch
    for that, which Hypothesis uses, but it has no public name.
    """
    runner = trio._core._run
    allowed, chance = runner._ALLOW_DETERMINISTIC_SCHEDULING, runner._r
    try:
        runner._ALLOW_DETERMINISTIC_SCHEDULING = True  # type: ignore[misc]
        runner._r = Random(f"{seed} trio")  # noqa: S311 - nothing secret
        yield
    finally:
        runner._ALLOW_DETERMINISTIC_SCHEDULING = allowed  # type: ignore[misc]
        runner._r = chance


@contextmanager
def no_logging() -> Generator[None, None, None]:
    """Turn logging off: years of outages would fill the log, and the trace says more."""
    before = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        yield
    finally:
        logging.disable(before)
