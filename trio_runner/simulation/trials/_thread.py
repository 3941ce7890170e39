"""What making run logs takes of Trio's thread: a tenth at the most, and at least once a minute.

On a mock clock nothing that is done takes time. So who makes a dear message puts the clock forward.
"""

import math
from collections.abc import Callable

import trio
import trio.testing
from attrs import define, field

from trio_runner.simulation.stand_ins._sometimes import sometimes

SHARE = 0.1
"""Of Trio's time."""

SELDOM_S = 60.0
"""Between two run logs of a run (s)."""

MS = 1e-3
"""What a point in time may be off by rounding (s)."""


@define(eq=False)
class RunLogTimes:
    """Follows when run logs are made in a process; `expect` is the oracle's."""

    expect: Callable[[object, str], None]
    _made_at: float = field(factory=trio.current_time, init=False)
    """When the last was, or a run began or ended (s)."""
    _paid_at: float = field(default=-math.inf, init=False)
    """When the last took no more than its share of the time (s)."""

    def make(self, cost_s: float) -> None:
        """Note that one is made now, and take the time (s) that it costs."""
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
        """Note that a run begins, or ends: what it has to tell may come at once."""
        now = trio.current_time()
        if ends:
            self._check_seldom(now)
        self._made_at, self._paid_at = now, -math.inf

    def _check_seldom(self, now: float) -> None:
        since = now - self._made_at
        self.expect(since <= SELDOM_S + MS, f"no run log was made for {since:.1f} s")
