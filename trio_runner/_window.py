"""How many messages may be unanswered at once.

The aggregator handles our messages one after the other. Our answers to its calls, which have 2 s,
come after them in the same queue. So we keep the work that waits there under `LINE_S`. The fastest
answer is the round trip plus one handling time. Anything slower was queueing.

The distance changes, and jitters. A message that was the only one unanswered did not queue, so the
fastest of the last few of these gives the distance, as does any faster answer since. The queue
counts as long only if the last few answers all say so. If they were all late, and no message has
been alone for a while, the path itself may have become longer. Then the window closes until one
message has been alone, which tells.

A window that has run empty must not be filled at once. What would be on the way in both directions
would then stand at the aggregator together. So messages leave at a pace: each answer lets one go,
or two while the window grows. As many as are `LINE_S` of work may go besides, and that allowance
comes back in as much time as its work takes.
"""

import math
from collections import deque

from attrs import define, field

LINE_S = 0.2
"""The work of ours that may wait at the aggregator (s); with the message under way, under 0.25."""

LATE_S = 0.25
"""A message that took so much longer (s) than the distance queued for too long."""

WINDOW_MAX = 256
"""More would not be faster: at 200 ms of distance it lets 1,280 messages a second through."""

LAST = 4
"""How many answers in a row have to be late before the queue counts as too long."""

LAST_ALONE = 3
"""How many messages that were unanswered alone tell the distance."""

FRESH_S = 5
"""For how long after such a message (s) a late answer is blamed on the queue, not the distance."""


@define
class Window:
    """A window that doubles with each round trip while hardly anything queues, then grows by one.

    When the queue is too long, it falls to the size that would have been just right.
    """

    _size: float = field(default=1, init=False)
    distance_s: float = field(default=math.inf, init=False)
    """The round trip with the handling of one message (s); infinity before it is known."""
    _alone_s: deque[float] = field(factory=lambda: deque(maxlen=LAST_ALONE), init=False)
    _took_s: deque[float] = field(factory=lambda: deque(maxlen=LAST), init=False)
    _measured_at: float = field(default=-math.inf, init=False)
    _is_measuring: bool = field(default=False, init=False)
    """Whether the window is closed until one message has been alone."""
    _allowance: float = field(default=1, init=False)
    """How many messages may go at once."""
    _allowed_at: float = field(default=0.0, init=False)
    """When that was so (s)."""

    @property
    def limit(self) -> int:
        """How many messages may be unanswered now."""
        return 1 if self._is_measuring else int(self._size)

    @property
    def in_line_s(self) -> float:
        """How long messages have queued of late (s), 0 before there was one."""
        return min(self._took_s) - self.distance_s if self._took_s else 0.0

    def due_at(self, now: float) -> float:
        """Return when the next message may leave (s), as far as the pace is concerned."""
        # How long a message keeps the aggregator busy, if the window is just right.
        work_s = (self.distance_s + LINE_S) / self._size
        come_back = (now - self._allowed_at) / work_s
        self._allowance = min(self._allowance + come_back, max(2.0, LINE_S / work_s))
        self._allowed_at = now
        lacking = 1 - self._allowance
        return now if lacking <= 0 else now + lacking * work_s

    def sent(self) -> None:
        """Note that a message is sent."""
        self._allowance -= 1

    def freed(self) -> None:
        """Note that a message was answered, of whatever kind."""
        self._allowance += 1

    def answered(self, now: float, took_s: float, unanswered: int) -> None:
        """Note that a sample was answered now (s on Trio's clock), after took_s (s).

        `unanswered` is how many messages of any kind were unanswered when it was sent, including
        itself.
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
        # Growth shows in answers a round trip later, so doubling ends long before the bound.
        if in_line_s < LINE_S / 4:
            self._size = min(self._size + 1, WINDOW_MAX)
            self._allowance += 1
        elif in_line_s <= LINE_S * self._size / (self._size + 1):  # there is room for one more
            self._size = min(self._size + 1 / self._size, WINDOW_MAX)

    def _note_alone(self, now: float, took_s: float) -> None:
        if self._is_measuring:  # earlier measurements are of another path
            self._is_measuring = False
            self._alone_s.clear()
        self._measured_at = now
        self._alone_s.append(took_s)
        self.distance_s = min(self._alone_s)

    def _fall(self, now: float, unanswered: int) -> None:
        if now - self._measured_at > FRESH_S:
            self._is_measuring = True
            return
        # As many as get through in the time that they should take (Little's law).
        self._size = max(1, unanswered * (self.distance_s + LINE_S) / min(self._took_s))
        self._took_s.clear()
