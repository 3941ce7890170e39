"""How many samples may be unanswered at once.

The aggregator handles our messages one after the other, and the answers to its own calls to us,
which have 2 s, stand in the same line. So the line is kept short: what is ours in it shall be done
within `LINE_S`. How long it is shows in the answer times: the least of a link is its distance and
the handling of one message, what is above that was spent in the line.
"""

import math

from attrs import define, field

LINE_S = 0.2
"""The work of ours that may stand at the aggregator (s); with the message under way, under 0.25."""

WINDOW_MAX = 256
"""More would not be faster: at 200 ms of distance it lets 1,280 messages a second through."""


@define
class Window:
    """Doubles with each round trip while the line is hardly there, then grows by one with each.

    When the line is too long it falls to what would have been just right.
    """

    _size: float = field(default=1, init=False)
    _least_s: float = field(default=math.inf, init=False)

    @property
    def limit(self) -> int:
        """How many samples may be unanswered now."""
        return int(self._size)

    def answered(self, took_s: float, unanswered: int) -> None:
        """Note that a sample was answered after took_s (s).

        `unanswered` is how many were unanswered when it was sent, itself included.
        """
        self._least_s = min(self._least_s, took_s)
        in_line_s = took_s - self._least_s
        if in_line_s > LINE_S:
            self._size = max(1, unanswered * LINE_S / in_line_s)
        elif self._size < 2 * unanswered:  # it is made use of
            # What grows now shows a round trip later, so doubling ends long before the bound.
            growth = 1 if in_line_s < LINE_S / 4 else 1 / self._size
            self._size = min(self._size + growth, WINDOW_MAX)
