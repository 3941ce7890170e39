"""What `trio-runner simulate` tells of the situations that its seeds have met."""

from collections import Counter
from collections.abc import Iterator, Mapping

from trio_runner.simulation.trials._marks import missing

COLUMNS = 3


def mark_lines(met: Counter[str], known: Mapping[str, str]) -> Iterator[str]:
    """Yield how often each situation was met; the faults are listed elsewhere."""
    names = [name for name in known if not name.startswith("fault ")]
    cells = [f"{name:<28}{met[name]:>8,}" for name in names if met[name]]
    yield f"\nSituations met: {len(cells)} of {len(names)}"
    while cells:
        row, cells = cells[:COLUMNS], cells[COLUMNS:]
        yield "  " + "   ".join(row)


def never_met(met: Counter[str], known: Mapping[str, str]) -> Iterator[str]:
    """Yield what to say if the seeds missed a situation; yield nothing if they met all."""
    names = missing(met, known)
    if names:
        yield "\nTHE WORLD IS TOO SMALL: this many seeds should have met, but did not:"
        yield from (f"  {name:<28}{known[name]}" for name in names)
