"""What a unit's people are to see of its runner: it goes into the unit's error log.

A warning is queued here by whatever part finds something wrong, in any thread and with whatever
lock held, and collected with the next sample, as what the engine logs is. So it holds up nobody,
and is no part of what it is about.
"""

from collections import deque

from attrs import define, field, frozen

from trio_runner._printable import printable

TOLD_MAX = 100
"""How many different warnings are told in a day; a peer may give each a new text."""

DAY_S = 86_400
"""From then on what is told once is news again (s)."""

QUEUED_MAX = 1000
"""Of more that nobody has collected the oldest are in the engine's log only."""

TEXT_MAX = 500
"""The rest of a longer text is in the engine's log only (characters)."""


@frozen
class UnitWarning:
    """One of them; `level` is one of `logging`'s, two with the same `about` are told once."""

    level: int
    text: str
    about: str


@define(eq=False)
class Warnings:
    """The warnings of one unit: each once a day, `TOLD_MAX` of them at the most."""

    _queue: deque[UnitWarning] = field(factory=lambda: deque(maxlen=QUEUED_MAX), init=False)
    _told: set[str] = field(factory=set, init=False)
    _told_since: float = field(default=0.0, init=False)

    def tell(self, level: int, text: str, *, about: str | None = None) -> None:
        """Queue a warning, in any thread; it is about its own text, unless something is given."""
        text = printable(text, TEXT_MAX)
        self._queue.append(UnitWarning(level, text, about or text))

    def take(self, now: float) -> list[UnitWarning]:
        """Return what was queued since the last call, in one thread; `now` is in seconds."""
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
