"""A check that run logs take at most a tenth of Trio's time, but are made once a minute at least.

On a mock clock no work takes time. So making a costly message puts the clock forward.
"""

import math
from collections.abc import Callable

import trio
import trio.testing
from attrs import define, field

from trio_runner.simulation.stand_ins._sometimes import sometimes

SHARE = 0.1
"""The share of Trio's time that run logs may take."""

SELDOM_S = 60.0
"""The longest time between two run logs of a run (s)."""

MS = 1e-3
"""How far a point in time may be off because of rounding (s)."""


@define(eq=False)
class RunLogTimes:
    """Follows when run logs are made in a process; `expect` is the oracle's."""

    expect: Callable[[object, str], None]
    _made_at: float = field(factory=trio.current_time, init=False)
    """When the last run log was made, or a run began or ended (s)."""
    _paid_at: float = field(default=-math.inf, init=False)
    """From when on the last run log has taken no more than its share of the time (s)."""

    def make(self, cost_s: float) -> None:
        """Note that a run log is made now, and put the clock forward by its cost (s)."""
        now = trio.current_time()
        self._check_seldom(now)
        few = now >= self._paid_at - MS
        self.expect(few, f"run logs take more than {SHARE:.0%} of Trio's time")
        self._made_at, self._paid_at = now, now + cost_s / SHARE
        if cost_s:
            sometimes("dear run log")
            clock = trio.lowlevel.current_clock()
            assert isinstance(clock, trio.testing.MockClock)
            clock.jump(cost_s)

    def change_run(self, *, ends: bool) -> None:
        """Note that a run begins or ends; its run log may be made at once."""
        now = trio.current_time()
        if ends:
            self._check_seldom(now)
        self._made_at, self._paid_at = now, -math.inf

    def _check_seldom(self, now: float) -> None:
        since = now - self._made_at
        self.expect(since <= SELDOM_S + MS, f"no run log was made for {since:.1f} s")
