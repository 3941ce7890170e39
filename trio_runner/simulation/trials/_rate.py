"""How often samples arrive: on a wide line at the steady rate, whatever the distance.

Too few unanswered messages at once, over a long way, show in nothing else: samples are taken more
seldom, and those that are taken arrive.
"""

import math
from collections.abc import Callable

import trio
from attrs import define, field

from trio_runner.simulation.stand_ins._sometimes import sometimes

SETTLED_S = 15.0
"""So long after a change (s): the window has seen the new distance, and grown to it."""

JITTER_S = 0.125
"""One way; with more, answers come 0.25 s later than others though nothing stands in line (s)."""

FAR_S = 0.5
"""One way (s); with more the answer comes when three more samples have been taken."""

TICK_S = 0.15
"""How much further apart samples may be, the runner having ticks of 0.1 s (s)."""


@define(eq=False)
class Rate:
    """Follows the samples that the aggregator takes; `expect` is the oracle's."""

    expect: Callable[[object, str], None]
    steady_s: float
    """Between two samples while there is a link (s)."""
    _newest_made_at: float = field(default=-math.inf, init=False)
    """When the newest was made that has arrived (s)."""
    _gap: tuple[float, float] = field(default=(0.0, 0.0), init=False)
    """The longest between two since the last look (s), and when it began (s)."""
    _distance: tuple[float, float] = field(default=(math.nan, math.nan), init=False)
    _wide_since: float = field(default=math.inf, init=False)

    def receive(self, made_at: float) -> None:
        """Note a sample that the aggregator has taken, made then (s)."""
        if made_at > self._newest_made_at:
            self._gap = max(self._gap, (made_at - self._newest_made_at, self._newest_made_at))
            self._newest_made_at = made_at

    def check_second(self, *, is_wide: bool, latency_s: float, jitter_s: float) -> None:
        """Check how far apart samples were made, if nothing else than the way kept them.

        `is_wide` is whether that is so since a second ago.
        """
        distance, now = (latency_s, jitter_s), trio.current_time()
        if not is_wide or distance != self._distance or jitter_s > JITTER_S:
            self._distance, self._wide_since = distance, now
        longest_s, began = self._gap
        self._gap = (0.0, now)
        if began >= self._wide_since + SETTLED_S:
            sometimes("settled far away", latency_s > FAR_S)
            often = longest_s <= self.steady_s + TICK_S
            self.expect(often, f"two samples were taken {longest_s:.2f} s apart on a wide line")
