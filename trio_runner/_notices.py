"""Decide how many notices may be unanswered beside the samples of a link."""

from attrs import define, field

from trio_runner._outbox import Entry
from trio_runner._window import LINE_S


@define(eq=False)
class Notices:
    """The notices that are unanswered: a few of them can be as much work as many samples."""

    rest_until: float = field(default=0.0, init=False)
    """When samples have had as much time as the last notice took (s on Trio's clock)."""
    _unanswered: int = field(default=0, init=False)
    _retried: int = field(default=0, init=False)
    """How many of these have failed before: at most one, since samples need room."""
    _max: int = field(default=1, init=False)
    """How many may be unanswered."""

    def have_room_for(self, notice: Entry) -> bool:
        """Return whether one more may be unanswered, and whether it may be this one."""
        return self._unanswered < self._max and not (notice.failures and self._retried)

    def sent(self, *, is_retried: bool) -> None:
        """Note that a notice is sent; `is_retried` if it has failed before."""
        self._unanswered += 1
        self._retried += is_retried

    def answered(self, now: float, occupied_s: float, *, is_retried: bool) -> None:
        """Note that a notice was answered now (s), after it kept others waiting so long (s)."""
        self._unanswered -= 1
        self._retried -= is_retried
        self._max = self._max + 1 if occupied_s <= LINE_S else 1
        self.rest_until = now + occupied_s
