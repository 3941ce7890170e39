"""A search for a smaller simulation that still fails, with less time and fewer faults."""

from collections.abc import Callable, Iterable
from math import ceil
from typing import TextIO

from attrs import define, evolve, field, frozen

from trio_runner.simulation.trials._faults import FAULTS
from trio_runner.simulation.trials._record import Record
from trio_runner.simulation.trials._schedule import Planned, plan
from trio_runner.simulation.trials._simulate import Report, simulate

SHORTEST_S = 10
"""The shortest duration that is tried (s)."""

RUNS_MAX = 300
"""After this many simulations, the smallest case found so far is good enough."""


@frozen
class Case:
    """A simulation, as the arguments of `simulate`."""

    seed: int
    duration_s: float
    kinds: tuple[str, ...] | None = None
    keep: tuple[int, ...] | None = None

    def simulate(self, trace_file: TextIO | None = None, record: Record | None = None) -> Report:
        """Run the simulation, and return its report."""
        return simulate(
            self.seed,
            self.duration_s,
            kinds=self.kinds,
            keep=self.keep,
            trace_file=trace_file,
            record=record,
        )

    def planned(self) -> list[Planned]:
        """Return the faults that it will meet."""
        planned = plan(self.seed, self.duration_s, FAULTS, self.kinds)
        return [fault for fault in planned if self.keep is None or fault.number in self.keep]


@frozen
class Shrunk:
    """The smallest case found that fails, its report, and how many simulations were run."""

    case: Case
    report: Report
    runs: int


def shrink(case: Case, report: Report, run: Callable[[Case], Report] = Case.simulate) -> Shrunk:
    """Look for a smaller case that fails, starting from one that fails with this report.

    The smaller case may break a different promise. Try less time, then leave out each kind of
    fault, then each fault, and repeat until nothing helps.
    """
    search = _Search(case, report, run)
    before = None
    while search.case != before:
        before = search.case
        search.lessen_time()
        search.lessen_kinds()
        search.lessen_faults()
    return Shrunk(search.case, search.report, search.runs)


@define(eq=False)
class _Search:
    """The smallest case so far, and its report."""

    case: Case
    report: Report
    _run: Callable[[Case], Report]
    runs: int = field(default=0, init=False)

    def _fails(self, case: Case) -> bool:
        """Try a case, and continue from it if it fails."""
        if self.runs >= RUNS_MAX:
            return False
        self.runs += 1
        report = self._run(case)
        if report.violation is None:
            return False
        self.case, self.report = case, report
        return True

    def lessen_time(self) -> None:
        """Look for a shorter time that fails: double until it fails, then bisect."""
        passes_s, longer_s = SHORTEST_S - 1, SHORTEST_S
        while longer_s < self.case.duration_s and not self._fails_in(longer_s):
            passes_s, longer_s = longer_s, 2 * longer_s
        while (fails_s := ceil(self.case.duration_s)) - passes_s > 1:
            middle_s = (passes_s + fails_s) // 2
            if not self._fails_in(middle_s):
                passes_s = middle_s

    def _fails_in(self, time_s: int) -> bool:
        return self._fails(evolve(self.case, duration_s=float(time_s)))

    def lessen_kinds(self) -> None:
        """Leave out each kind of fault, if the case still fails without it."""
        for kind in sorted({fault.kind for fault in self.case.planned()}):
            self._fails_without(f.number for f in self.case.planned() if f.kind == kind)

    def lessen_faults(self) -> None:
        """Leave out halves of the faults, then quarters, down to single ones, if it still fails."""
        size = len(self.case.planned()) // 2
        while size:
            numbers = [fault.number for fault in self.case.planned()]
            for first in range(0, len(numbers), size):
                self._fails_without(numbers[first : first + size])
            size //= 2

    def _fails_without(self, numbers: Iterable[int]) -> bool:
        out = set(numbers)
        kept = [f.number for f in self.case.planned() if f.number not in out]
        return self._fails(evolve(self.case, kinds=None, keep=tuple(kept)))
