"""The instants at which the engines of one process take their samples."""

from collections.abc import Generator
from contextlib import contextmanager

from attrs import define, field

SLOTS = 4
"""How many instants a tick has: 25 ms apart, with the usual tick."""

FULL = 48
"""So many engines share an instant before the next one is used: of three ticks each takes its
sample at one, so some 16 at once, which is less than 10 ms of Trio's time."""


@define(eq=False)
class Grid:
    """Gives each engine of a process a time from which it counts its ticks.

    Engines that wake together share the passes of Trio's loop that a sample and its answer take,
    which is most of what they cost; and they hold up each other and every event. So they come in
    groups, each with an instant of its own.

    The first engine begins at once: alone its ticks are whole ticks after its start, and those of
    two processes are not in step.
    """

    _phase: float = field(default=0.0, init=False)
    _engines: list[int] = field(factory=lambda: [0] * SLOTS, init=False)
    """How many there are at each instant."""

    @contextmanager
    def place(self, now: float, tick_s: float) -> Generator[float, None, None]:
        """Be one of the engines; yield one of its ticks (s), with those of its group to the bit."""
        if not any(self._engines):
            self._phase = now
        slot = min(range(SLOTS), key=lambda slot: max(self._engines[slot], FULL - 1))
        self._engines[slot] += 1
        try:
            yield self._phase + slot * tick_s / SLOTS
        finally:
            self._engines[slot] -= 1
