"""Warnings for a unit's people about its runner, which go into the unit's error log.

Any part that finds something wrong queues a warning here, in any thread and with any lock held. The
next sample collects it, together with what the engine logs. So a warning holds up nobody, and is
not part of the work that it is about.
"""

from collections import deque

from attrs import define, field, frozen

from trio_runner._printable import printable

TOLD_MAX = 100
"""How many different warnings are told in a day; a peer may give each a new text."""

DAY_S = 86_400
"""After this time, a warning that was told before is news again (s)."""

QUEUED_MAX = 1000
"""The most warnings that wait to be collected; beyond that, the oldest are in the log only."""

TEXT_MAX = 500
"""Where a longer text is cut off (characters); the whole text is in the log only."""


@frozen
class UnitWarning:
    """A warning. `level` is one of `logging`'s; of several with the same `about`, one is told."""

    level: int
    text: str
    about: str


@define(eq=False)
class Warnings:
    """The warnings of one unit: each is told once a day, and `TOLD_MAX` of them at the most."""

    _queue: deque[UnitWarning] = field(factory=lambda: deque(maxlen=QUEUED_MAX), init=False)
    _told: set[str] = field(factory=set, init=False)
    _told_since: float = field(default=0.0, init=False)

    def tell(self, level: int, text: str, *, about: str | None = None) -> None:
        """Queue a warning, from any thread; by default it is about its own text."""
        text = printable(text, TEXT_MAX)
        self._queue.append(UnitWarning(level, text, about or text))

    def take(self, now: float) -> list[UnitWarning]:
        """Return the new warnings since the last call; call this in one thread. `now` is in s."""
        taken = list[UnitWarning]()
        if not 0 <= now - self._told_since < DAY_S:
            self._told.clear()
            self._told_since = now
        while self._queue:
            told = self._queue.popleft()
            if told.about not in self._told and len(self._told) < TOLD_MAX:
                self._told.add(told.about)
                taken.append(told)
        return taken
