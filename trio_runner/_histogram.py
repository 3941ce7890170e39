"""Durations, counted by how long they were."""

from bisect import bisect_left

from attrs import define, field, frozen

BOUNDS_S = 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0
"""The classes' upper bounds (s), three to a decade, from a local answer to a lost link's."""


@frozen
class Histogram:
    """What a `Durations` had counted at one moment."""

    bounds: tuple[float, ...]
    """The classes' upper bounds (s), each within its class; the last class has no bound."""
    counts: tuple[int, ...]
    """How many durations fell into each class: one number more than there are bounds."""
    sum: float
    """The sum of all durations (s)."""


@define(eq=False)
class Durations:
    """Counts durations in bounded memory."""

    _counts: list[int] = field(factory=lambda: [0] * (len(BOUNDS_S) + 1), init=False)
    _sum: float = field(default=0.0, init=False)

    def note(self, seconds: float) -> None:
        """Count one duration (s)."""
        self._counts[bisect_left(BOUNDS_S, seconds)] += 1
        self._sum += seconds

    def histogram(self) -> Histogram:
        """Return what has been counted so far."""
        return Histogram(BOUNDS_S, tuple(self._counts), self._sum)
