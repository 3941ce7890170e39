"""A check that samples arrive at the steady rate on a wide path, whatever the distance.

Nothing else shows a window that is too small for a long distance: samples are then taken less
often, and those that are taken do arrive.
"""

import math
from collections.abc import Callable

import trio
from attrs import define, field

from trio_runner.simulation.stand_ins._sometimes import sometimes

SETTLED_S = 15.0
"""How long the window needs after a change to see the new distance and grow to it (s)."""

DOUBLINGS = 4
"""How many round trips that takes besides."""

LATE_S = 0.25
"""How much later than usual answers are (s) from which the runner sees that the path is longer."""

JITTER_S = LATE_S / 2
"""The most jitter one way (s); with more, some answers are late though nothing queues."""

FAR_S = 0.5
"""A long distance one way (s): an answer comes after three more samples have been taken."""

TICK_S = 0.15
"""How much further apart samples may be, since the runner has ticks of 0.1 s (s)."""


@define(eq=False)
class Rate:
    """Follows the samples that the aggregator takes; `expect` is the oracle's.

    If a path has become longer by some `LATE_S`, jitter decides when four answers in a row are
    late. The runner then measures the distance, once, and takes no sample until it is known.
    """

    expect: Callable[[object, str], None]
    steady_s: float
    """The time between two samples while there is a link (s)."""
    _newest_made_at: float = field(default=-math.inf, init=False)
    """When the newest sample that has arrived was made (s)."""
    _gap: tuple[float, float] = field(default=(0.0, 0.0), init=False)
    """The longest gap between two samples since the last check (s), and when it began (s)."""
    _distance: tuple[float, float] = field(default=(math.nan, math.nan), init=False)
    _wide_since: float = field(default=math.inf, init=False)
    _may_measure: bool = field(default=False, init=False)
    """Whether jitter decides when the runner measures this distance, and it may not have yet."""

    def receive(self, made_at: float) -> None:
        """Note a sample that the aggregator has taken, and when it was made (s)."""
        if made_at > self._newest_made_at:
            self._gap = max(self._gap, (made_at - self._newest_made_at, self._newest_made_at))
            self._newest_made_at = made_at

    def check_second(self, *, is_wide: bool, latency_s: float, jitter_s: float) -> None:
        """Check how far apart samples were made, if nothing but the distance has delayed them.

        `is_wide` says whether that was so for the last second.
        """
        distance, now = (latency_s, jitter_s), trio.current_time()
        has_moved = distance != self._distance
        if has_moved:
            later_s, old_jitter_s = 2 * (latency_s - self._distance[0]), self._distance[1]
            self._may_measure = later_s - 2 * old_jitter_s < LATE_S < later_s + 2 * jitter_s
        if not is_wide or has_moved or jitter_s > JITTER_S:
            self._distance, self._wide_since = distance, now
        longest_s, began = self._gap
        self._gap = (0.0, now)
        if began >= self._wide_since + SETTLED_S + DOUBLINGS * 2 * (latency_s + jitter_s):
            sometimes("settled far away", latency_s > FAR_S)
            most_s = self.steady_s + TICK_S
            if longest_s > most_s and self._may_measure:
                self._may_measure = False
                most_s += 2 * (latency_s + jitter_s)
            text = f"two samples were taken {longest_s:.2f} s apart on a wide path"
            self.expect(longest_s <= most_s, text)
