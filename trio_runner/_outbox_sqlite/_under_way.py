"""Leave samples that are under way to a later commit: most likely they are answered by then."""

import math
from collections.abc import Container

from attrs import define, field

from trio_runner._outbox import Entry
from trio_runner._outbox_sqlite._file import Changes

UNDER_WAY_S = 2
"""For how long a sample that is under way is not written (s). Over a long distance every commit
finds some, which are answered before the next."""

ANSWERS_S = 1
"""Up to what age of the last answer (s) the link counts as alive, so that what is under way will
arrive."""


@define(eq=False)
class UnderWay:
    """The samples that commits have found under way and left out."""

    _since: dict[int, float] = field(factory=dict, init=False)
    """Since when each has been found under way, by its number."""
    _answered_at: float = field(default=-math.inf, init=False)

    def answered(self, now: float) -> None:
        """Note that an answer has come now (s by the outbox's clock)."""
        self._answered_at = now

    def leave_out(self, changes: Changes, in_flight: Container[int], now: float) -> list[Entry]:
        """Take out of the changes, and return, what a later commit is to write."""
        is_alive = now - self._answered_at < ANSWERS_S
        since = {number: self._since.get(number, now) for number in changes.new}
        self._since = {
            number: at
            for number, at in since.items()
            if is_alive
            and number in in_flight
            and not changes.new[number].is_event
            and now - at < UNDER_WAY_S
        }
        return [changes.new.pop(number) for number in self._since]
