"""How many messages may be unanswered at once.

The aggregator handles our messages one after the other, and the answers to its own calls to us,
which have 2 s, stand in the same line. So the line is kept short: what is ours in it shall be done
within `LINE_S`. How long it is shows in the answer times: what is above the distance and the
handling of one message was spent in the line.

The distance changes, and jitters. A message that was unanswered alone has stood in no line: the
least time of the last few of these is the distance, and any shorter time since. And the line is
taken to be as long as the last few answers all say. If they all were late, and it is some time
since a message was alone, then the path may have become longer as well as the line: the window
closes until one message has been alone, which tells.
"""

import math
from collections import deque

from attrs import define, field

LINE_S = 0.2
"""The work of ours that may stand at the aggregator (s); with the message under way, under 0.25."""

LATE_S = 0.25
"""From how much more (s) a message stood in line for too long."""

WINDOW_MAX = 256
"""More would not be faster: at 200 ms of distance it lets 1,280 messages a second through."""

LAST = 4
"""How many answers have to be late before the line is taken for too long."""

LAST_ALONE = 3
"""How many messages that were unanswered alone tell the distance."""

FRESH_S = 5
"""How long after such a message (s) a late answer is laid to the line without another look."""


@define
class Window:
    """Doubles with each round trip while the line is hardly there, then grows by one with each.

    When the line is too long it falls to what would have been just right.
    """

    _size: float = field(default=1, init=False)
    distance_s: float = field(default=math.inf, init=False)
    """There and back, with the handling of one message (s); infinity before it is known."""
    _alone_s: deque[float] = field(factory=lambda: deque(maxlen=LAST_ALONE), init=False)
    _took_s: deque[float] = field(factory=lambda: deque(maxlen=LAST), init=False)
    _measured_at: float = field(default=-math.inf, init=False)
    _is_measuring: bool = field(default=False, init=False)
    """Whether it is closed until one message has been alone."""

    @property
    def limit(self) -> int:
        """How many messages may be unanswered now."""
        return 1 if self._is_measuring else int(self._size)

    @property
    def in_line_s(self) -> float:
        """How long a message stood in the line of late (s), 0 before there was one."""
        return min(self._took_s) - self.distance_s if self._took_s else 0.0

    def answered(self, now: float, took_s: float, unanswered: int) -> None:
        """Note that a sample was answered now (s on Trio's clock), after took_s (s).

        `unanswered` is how many messages, of whatever kind, were unanswered when it was sent, it
        included.
        """
        if unanswered == 1:
            self._note_alone(now, took_s)
        self._took_s.append(took_s)
        self.distance_s = min(self.distance_s, took_s)
        if self._is_measuring:
            return
        if self.in_line_s > LATE_S:
            if len(self._took_s) >= min(LAST, unanswered):
                self._fall(now, unanswered)
        elif self._size < 2 * unanswered:  # it is made use of
            self._grow(took_s - self.distance_s)

    def _grow(self, in_line_s: float) -> None:
        # What grows now shows a round trip later, so doubling ends long before the bound.
        if in_line_s < LINE_S / 4:
            self._size = min(self._size + 1, WINDOW_MAX)
        elif in_line_s <= LINE_S * self._size / (self._size + 1):  # there is room for one more
            self._size = min(self._size + 1 / self._size, WINDOW_MAX)

    def _note_alone(self, now: float, took_s: float) -> None:
        if self._is_measuring:  # what was measured before is of another path
            self._is_measuring = False
            self._alone_s.clear()
            self._took_s.clear()
        self._measured_at = now
        self._alone_s.append(took_s)
        self.distance_s = min(self._alone_s)

    def _fall(self, now: float, unanswered: int) -> None:
        if now - self._measured_at > FRESH_S:
            self._is_measuring = True
            return
        # As many as go through in the time that they should take (Little's law).
        self._size = max(1, unanswered * (self.distance_s + LINE_S) / min(self._took_s))
        self._took_s.clear()
