"""The table: a row for each figure, with the other runner's, the goal, and whether it is met."""

import math
import statistics
from collections.abc import Iterable, Sequence

from attrs import frozen
from rich.table import Table


@frozen
class Row:
    """A figure. `limit` is what the receiver can take, or the least that such work can cost."""

    benchmark: str
    what: str
    unit: str
    ours: float
    theirs: float | None
    goal: str
    is_met: bool
    limit: float | None = None
    spread: float | None = None
    """The distance of the best from the worst run, relative to the median, of the worse side."""

    @property
    def ratio(self) -> float | None:
        """Our figure divided by theirs, or None without theirs."""
        return self.ours / self.theirs if self.theirs else None


def at_least(times: float, ours: float, theirs: float) -> bool:
    """Tell whether our figure is at least this many times theirs."""
    return ours >= times * theirs


def at_most(share: float, ours: float, theirs: float) -> bool:
    """Tell whether our figure is at most this share of theirs."""
    return ours <= share * theirs


def median(values: Iterable[float]) -> float:
    """Return the median, or NaN if there are no values."""
    values = list(values)
    return statistics.median(values) if values else float("nan")


def spread(*sides: Sequence[float]) -> float | None:
    """Return how far a side's runs are apart, relative to their median; the worse side counts."""
    several = [side for side in sides if len(side) > 1 and median(side)]
    return max(((max(side) - min(side)) / median(side) for side in several), default=None)


def percentile(values: Sequence[float], percent: float) -> float:
    """Return the smallest value that this percentage of the values does not exceed."""
    ordered = sorted(values)
    if not ordered:
        return float("nan")
    return ordered[min(len(ordered) - 1, int(len(ordered) * percent / 100))]


def table(rows: Iterable[Row], title: str) -> Table:
    """Return the rows as a table for a terminal."""
    columns = ("benchmark", "what", "unit", "this runner", "asyncio", "ratio", "spread")
    made = Table(*columns, "limit or floor", "goal", "met", title=title)
    for row in rows:
        made.add_row(
            row.benchmark,
            row.what,
            row.unit,
            *(_figure(value) for value in (row.ours, row.theirs, row.ratio)),
            "" if row.spread is None else f"{row.spread:.0%}",
            _figure(row.limit),
            row.goal,
            "yes" if row.is_met else "NO",
        )
    return made


def _figure(value: float | None) -> str:
    if value is None:
        return ""
    if math.isinf(value):
        return "never"
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"
