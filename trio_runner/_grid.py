"""The instants at which the engines of one process take their samples."""

from collections.abc import Generator
from contextlib import contextmanager

from attrs import define, field

SLOTS = 4
"""How many instants a tick has; with the usual tick they are 25 ms apart."""

FULL = 48
"""How many engines share an instant before the next one is used. Each samples at one tick of three,
so some 16 do so at once, which takes less than 10 ms of Trio's time."""


@define(eq=False)
class Grid:
    """Gives each engine of a process a time from which it counts its ticks.

    A sample and its answer take passes of Trio's loop, which are most of what they cost. Engines
    that wake together share those passes, but they also hold up each other and every event. So
    engines come in groups, and each group has its own instant.

    The first engine begins at once. So an engine that is alone ticks at whole ticks after its
    start, and two processes do not tick in step.
    """

    _phase: float = field(default=0.0, init=False)
    _engines: list[int] = field(factory=lambda: [0] * SLOTS, init=False)
    """How many engines there are at each instant."""

    @contextmanager
    def place(self, now: float, tick_s: float) -> Generator[float, None, None]:
        """Hold a place; yield a time of its ticks (s), exactly equal for engines of one group."""
        if not any(self._engines):
            self._phase = now
        slot = min(range(SLOTS), key=lambda slot: max(self._engines[slot], FULL - 1))
        self._engines[slot] += 1
        try:
            yield self._phase + slot * tick_s / SLOTS
        finally:
            self._engines[slot] -= 1
