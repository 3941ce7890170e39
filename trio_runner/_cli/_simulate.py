"""`trio-runner simulate`: simulate years of outages, seed by seed, and tell what broke."""

import hashlib
import multiprocessing
import os
import shlex
import signal
import sys
import threading
import time
from argparse import Namespace
from collections import Counter, deque
from collections.abc import Generator, Iterator, Mapping
from concurrent.futures import Future, ProcessPoolExecutor
from contextlib import closing, contextmanager
from fractions import Fraction
from itertools import islice
from math import nan
from typing import TextIO

from attrs import define, field
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from trio_runner._cli._simulate_marks import mark_lines, never_met
from trio_runner._cli._summary import count
from trio_runner._cli._written import Unwritable, written
from trio_runner.simulation.trials._marks import MANY_SEEDS, MARKS
from trio_runner.simulation.trials._picture import picture
from trio_runner.simulation.trials._record import Record
from trio_runner.simulation.trials._shrink import Case, shrink
from trio_runner.simulation.trials._simulate import Report

VIOLATED = 1
"""The exit code when a promise was broken, or many seeds missed a situation they should meet."""

WRONG_ARGUMENTS = 2

AHEAD = 2
"""How many simulations are handed out per process in advance, so that none has to wait."""

OTHERS_SHOWN = 20
"""How many failed seeds are told, one line each, besides the first."""

HOUR_S = 3600


def run(
    arguments: Namespace,
    *,
    marks: Mapping[str, str] = MARKS,
    many_seeds: int = MANY_SEEDS,
) -> int:
    """Simulate the seeds; return the exit code. Ctrl-C ends it, and tells what was done so far.

    More than `many_seeds` seeds, with all kinds of faults, must meet each of the marks.
    """
    signal.signal(signal.SIGINT, signal.default_int_handler)
    kinds, keep = arguments.faults, arguments.keep
    duration_s = float(arguments.hours * HOUR_S)
    cases = [Case(seed, duration_s, kinds, keep) for seed in arguments.seeds]
    try:
        with written("html", arguments.html) as page:
            record = None if page is None else Record()
            with written("trace", arguments.trace) as file:
                total = _simulate_all(cases, arguments.jobs, file, record)
            if page is not None and record is not None and total.hashes:
                page.write(_picture(cases[0], total, record))
    except Unwritable as error:
        print(f"trio-runner simulate: error: {error}", file=sys.stderr)
        return WRONG_ARGUMENTS
    print(*total.lines(len(cases)), *mark_lines(total.marks, marks), sep="\n", flush=True)
    if arguments.html is not None:
        print(f"\nA picture of it is in {arguments.html}")
    if not total.failed:
        print(*_verdict(total, is_to_shrink=arguments.shrink), sep="\n")
        is_whole = kinds is None and keep is None and len(total.hashes) > many_seeds
        lacks = list(never_met(total.marks, marks)) if is_whole else []
        print(*lacks, sep="\n", end="\n" if lacks else "")
        return VIOLATED if lacks else 0
    _tell_of_failures(total.failed, is_to_shrink=arguments.shrink and not total.is_interrupted)
    return VIOLATED


def _picture(case: Case, total: "Total", record: Record) -> str:
    title = repeat(case)
    if not total.failed:
        return picture(record, title, "Every promise was kept")
    ((_, report),) = total.failed
    verdict = f"A promise was broken {_when(report)}: {report.violation}"
    return picture(record, title, verdict, is_bad=True)


def _verdict(total: "Total", *, is_to_shrink: bool) -> Iterator[str]:
    lives = len(total.hashes)
    named = "1 life" if lives == 1 else f"{lives:,} lives"
    so_far = " so far" if total.is_interrupted else ""
    yield f"\nEvery promise was kept{so_far}: {named}, {_hours(total.simulated_s)} h"
    if is_to_shrink:
        yield "Nothing failed, so there is nothing to shrink."


# All of them


@define(eq=False)
class Total:
    """What all simulations so far have done and found."""

    jobs: int
    began: float = field(factory=time.perf_counter, init=False)
    ended: float = field(default=nan, init=False)
    is_interrupted: bool = field(default=False, init=False)
    failed: list[tuple[Case, Report]] = field(factory=list, init=False)
    faults: Counter[str] = field(factory=Counter, init=False)
    marks: Counter[str] = field(factory=Counter, init=False)
    figures: Counter[str] = field(factory=Counter, init=False)
    simulated_s: float = field(default=0, init=False)
    processor_s: float = field(default=0, init=False)
    longest: tuple[float, int] = field(default=(0, 0), init=False)
    """The longest recovery (s) and its seed."""
    hashes: list[str] = field(factory=list, init=False)

    def add(self, case: Case, report: Report) -> None:
        """Add the report of one simulation."""
        if report.violation is not None:
            self.failed.append((case, report))
        self.faults.update(report.faults)
        self.marks.update(report.marks)
        self.simulated_s += report.simulated_s
        self.processor_s += report.real_s
        self.hashes.append(report.hash)
        for name in ("events", "samples", "resent", "thinned", "lost_with_process"):
            self.figures[name] += getattr(report, name)
        self.figures["calls"] += report.calls
        self.figures["processes"] += report.processes
        if report.recovered_s > self.longest[0]:  # false for NaN, when it never recovered
            self.longest = (report.recovered_s, report.seed)

    @property
    def hours_per_s(self) -> float:
        """The number of hours simulated per second."""
        end = time.perf_counter() if self.ended != self.ended else self.ended
        return self.simulated_s / HOUR_S / max(end - self.began, 1e-9)

    @property
    def hash(self) -> str:
        """The trace's hash, or one hash over those of all traces, in the order of their seeds."""
        if len(self.hashes) == 1:
            return self.hashes[0]
        return hashlib.sha256("\n".join(self.hashes).encode()).hexdigest()

    def lines(self, seeds: int) -> Iterator[str]:
        """Yield the lines that sum up the simulations, of which there were to be `seeds`."""
        if self.is_interrupted:
            yield f"Interrupted after {len(self.hashes)} of {count(seeds, 'seed')}."
        ratio = self.simulated_s / self.processor_s if self.processor_s else 0
        yield (
            f"{count(len(self.hashes), 'seed')},"
            f" {_hours(self.simulated_s)} simulated hours in {self.ended - self.began:.1f} s:"
            f" {self.hours_per_s:.2f} hours a second with --jobs {self.jobs},"
            f" {ratio:.0f} times real time on one core"
        )
        yield f"traces   {self.hash}"
        yield from self._fault_lines()
        yield from self._figure_lines()

    def _fault_lines(self) -> Iterator[str]:
        yield f"\nFaults injected: {self.faults.total():,}"
        cells = [f"{name:<18}{number:>6,}" for name, number in sorted(self.faults.items())]
        while cells:
            row, cells = cells[:3], cells[3:]
            yield "  " + "   ".join(row)

    def _figure_lines(self) -> Iterator[str]:
        yield "\nDelivered"
        figures, (recovered_s, seed) = self.figures, self.longest
        for name, what in FIGURES.items():
            yield f"  {what:<28}{figures[name]:>12,}"
        recovery = f"{recovered_s:10.1f} s   (seed {seed})" if recovered_s else f"{'none':>12}"
        yield f"  {'longest recovery':<28}{recovery}"


def _hours(time_s: float) -> str:
    hours = time_s / HOUR_S
    return f"{hours:,.1f}" if hours >= 1 else f"{hours:.2g}"


FIGURES = {
    "events": "events",
    "samples": "samples",
    "resent": "messages that arrived again",
    "thinned": "samples reported as given up",
    "lost_with_process": "lost with a process's memory",
    "calls": "calls by the aggregator",
    "processes": "processes",
}
"""The figures of a simulation that are told, and their names."""


def _simulate_all(
    cases: list[Case], jobs: int, trace: TextIO | None, record: Record | None
) -> Total:
    """Simulate the cases and show the progress; Ctrl-C ends it."""
    jobs = min(jobs, len(cases))
    total = Total(jobs)
    console = Console(stderr=True)
    bar = Progress(
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("seeds   {task.fields[speed]:.2f} simulated hours a second "),
        TimeRemainingColumn(),
        console=console,
        disable=not console.is_terminal,
        transient=True,
    )
    with bar, _interruptible(total):
        task = bar.add_task("", total=len(cases), speed=0.0)
        with closing(_reports(cases, jobs, trace, record)) as reports:
            for case, report in zip(cases, reports, strict=True):
                total.add(case, report)
                bar.update(task, advance=1, speed=total.hours_per_s)
    total.ended = time.perf_counter()
    return total


@contextmanager
def _interruptible(total: Total) -> Generator[None, None, None]:
    """Let the first Ctrl-C end the block in order, and the next one end the process at once."""
    try:
        yield
    except* KeyboardInterrupt:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        total.is_interrupted = True


def _reports(
    cases: list[Case], jobs: int, trace: TextIO | None, record: Record | None
) -> Generator[Report, None, None]:
    """Yield the cases' reports, in the order of the cases."""
    if len(cases) == 1:
        yield cases[0].simulate(trace, record)
    elif jobs == 1:
        yield from map(Case.simulate, cases)
    else:
        yield from _in_processes(cases, jobs)


def _in_processes(cases: list[Case], jobs: int) -> Iterator[Report]:
    """Yield the cases' reports, made by `jobs` processes that end with this one."""
    waiting = iter(cases)
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(jobs, context, _end_with_parent) as pool:
        under_way: deque[Future[Report]] = deque()
        try:
            # A terminal sends Ctrl-C to all its processes; only this one decides what to do.
            signal.signal(signal.SIGINT, signal.SIG_IGN)
            for case in islice(waiting, AHEAD * jobs):
                under_way.append(pool.submit(case.simulate))
            signal.signal(signal.SIGINT, signal.default_int_handler)
            while under_way:
                yield under_way.popleft().result()
                for case in islice(waiting, 1):
                    under_way.append(pool.submit(case.simulate))
        finally:
            if under_way:
                for process in multiprocessing.active_children():
                    process.terminate()


def _end_with_parent() -> None:
    """End this process when its parent has ended, for whatever reason."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    parent = multiprocessing.parent_process()
    assert parent is not None

    def watch() -> None:
        parent.join()
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


# What broke


def _tell_of_failures(failed: list[tuple[Case, Report]], *, is_to_shrink: bool) -> None:
    (case, report), *others = failed
    print(*_failure(case, report), sep="\n", flush=True)
    if is_to_shrink:
        _tell_of_shrunk(case, report)
    for other, its_report in others[:OTHERS_SHOWN]:
        print(f"Seed {other.seed} broke a promise too, {_when(its_report)}: {its_report.violation}")
    if len(others) > OTHERS_SHOWN:
        print(f"And {len(others) - OTHERS_SHOWN} more.")


def _tell_of_shrunk(case: Case, report: Report) -> None:
    print("\nLooking for a shorter run that still fails ...", flush=True)
    total = Total(1)
    with _interruptible(total):
        shrunk = shrink(case, report)
        planned = shrunk.case.planned()
        print(
            f"Tried {count(shrunk.runs, 'run')}; the shortest that fails takes"
            f" {shrunk.case.duration_s:g} s and has {count(len(planned), 'fault')}."
        )
        for fault in planned:
            print(f"  {fault.number:4} {fault.kind} at {fault.at_s:.3f} s")
        print(*_failure(shrunk.case, shrunk.report), sep="\n", flush=True)
    if total.is_interrupted:
        print("Interrupted.")


def _failure(case: Case, report: Report) -> Iterator[str]:
    yield f"\nSEED {case.seed} BROKE A PROMISE {_when(report)}: {report.violation}"
    yield "The last lines of its trace:"
    yield from (f"  {line}" for line in report.last_lines)
    yield f"Repeat it with: {repeat(case)}"


def _when(report: Report) -> str:
    """Return the violation's moment, which the trace tells unless many lines came after it."""
    moments = [line.split()[0] for line in report.last_lines if "  VIOLATION " in line]
    return f"at {moments[0]} s" if moments else f"before {report.simulated_s:.3f} s"


def repeat(case: Case) -> str:
    """Return the command that simulates a case again."""
    hours = Fraction(case.duration_s).limit_denominator(10**6) / HOUR_S
    command = ["trio-runner", "simulate", "--seed", str(case.seed), "--hours", str(hours)]
    if case.kinds is not None:
        command += ["--faults", ",".join(case.kinds)]
    if case.keep is not None:
        command += ["--keep", ",".join(map(str, case.keep))]
    return shlex.join(command)
