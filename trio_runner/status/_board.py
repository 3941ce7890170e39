"""What is known of the units in a process: their figures now and over the last hour."""

from collections import deque
from collections.abc import Iterable
from typing import Protocol

import trio
from attrs import define, evolve, field, frozen

from trio_runner import EngineRunner, Statistics
from trio_runner._printable import printable
from trio_runner.status._verdict import Facts, Level, Reason, judge, worst

SAMPLE_S = 10
"""The time between two points of the plots (s)."""

POINTS_MAX = 360
"""How many points are kept: one hour."""

NAME_MAX = 100
"""The length to which a unit's name is cut (characters)."""


class Unit(Protocol):
    """A unit that may still be starting or may have failed; otherwise pass an `EngineRunner`."""

    @property
    def name(self) -> str:
        """The name of the unit while it has no runner."""

    @property
    def runner(self) -> EngineRunner | None:
        """The unit's runner, None while the unit is starting."""

    @property
    def failed(self) -> str | None:
        """Why the unit no longer runs, None if it has not failed."""


@frozen
class Point:
    """A point of the plots: how many messages waited, and the mean answer time (s) since the last.

    `answer_s` is None if there was no answer in between.
    """

    waiting: int
    answer_s: float | None


@frozen
class Progress:
    """How far a unit has come with catching up, in messages."""

    done: int
    left: int


@frozen
class Sight:
    """A unit at one moment."""

    name: str
    level: Level
    reasons: list[Reason]
    failed: str | None
    statistics: Statistics | None
    progress: Progress | None
    """None unless the unit is catching up."""
    history: list[Point]
    """One point every `SAMPLE_S` seconds, the newest last."""


@frozen
class _Unit:
    """A unit that is just an `EngineRunner`."""

    runner: EngineRunner
    name: str = "unit"
    failed: None = None


@define(eq=False)
class _Watch:
    """What to remember of a unit to tell what happened lately; its size is bounded."""

    unit: Unit
    known_since: float = field(factory=trio.current_time, init=False)
    history: deque[Point] = field(factory=lambda: deque(maxlen=POINTS_MAX), init=False)
    _thinned: int = field(default=0, init=False)
    _thinned_at: float | None = field(default=None, init=False)
    _caught_up_at: int = field(default=0, init=False)
    """How many messages had been delivered when the unit was last not catching up."""
    _answers: int = field(default=0, init=False)
    _answers_s: float = field(default=0.0, init=False)

    def look(self, alarm_after_s: float) -> Sight:
        """Return the unit as it is now."""
        runner = self.unit.runner
        known = runner.statistics() if runner is not None else None
        progress = None
        if known is not None:
            self._note_thinned(known)
            progress = self._progress(known)
        now, at = trio.current_time(), self._thinned_at
        facts = Facts(
            known_for_s=now - self.known_since,
            failed=self.unit.failed,
            statistics=known,
            thinned_ago_s=None if at is None else now - at,
        )
        reasons = judge(facts, alarm_after_s)
        return Sight(
            name=printable(known.unit if known is not None else self.unit.name, NAME_MAX),
            level=worst(reason.level for reason in reasons),
            reasons=reasons,
            failed=self.unit.failed,
            statistics=known,
            progress=progress,
            history=list(self.history),
        )

    def _note_thinned(self, known: Statistics) -> None:
        if known.outbox.thinned > self._thinned:
            self._thinned_at = trio.current_time()
        self._thinned = known.outbox.thinned

    def _progress(self, known: Statistics) -> Progress | None:
        if known.state != "CatchingUp":
            # Without a link nothing is delivered, so the next catching up starts at this count.
            self._caught_up_at = known.outbox.delivered
            return None
        return Progress(known.outbox.delivered - self._caught_up_at, known.outbox.waiting)

    def sample(self, sight: Sight) -> None:
        """Add a point to the plots."""
        known = sight.statistics
        if known is None:
            return
        answers, total_s = sum(known.answer_s.counts), known.answer_s.sum
        new = answers - self._answers
        answer_s = (total_s - self._answers_s) / new if new else None
        self._answers, self._answers_s = answers, total_s
        self.history.append(Point(known.outbox.waiting, answer_s))


@define(eq=False)
class Board:
    """All units of the process."""

    _watches: list[_Watch]
    alarm_after_s: float

    @classmethod
    def of(cls, units: Iterable[EngineRunner | Unit], alarm_after_s: float) -> "Board":
        """Return the board of these units."""
        wrapped = (_Unit(unit) if isinstance(unit, EngineRunner) else unit for unit in units)
        return cls([_Watch(unit) for unit in wrapped], alarm_after_s)

    def look(self) -> list[Sight]:
        """Return all units as they are now, with distinct names."""
        return _named_apart([watch.look(self.alarm_after_s) for watch in self._watches])

    def sample(self) -> None:
        """Add a point to the plots of each unit."""
        for watch in self._watches:
            watch.sample(watch.look(self.alarm_after_s))


def _named_apart(sights: list[Sight]) -> list[Sight]:
    """Return the units with numbers after names that occur more than once.

    Two series with the same name would spoil a whole scrape.
    """
    taken: set[str] = set()
    apart = []
    for sight in sights:
        name, number = sight.name, 1
        while name in taken:
            number += 1
            name = f"{sight.name} ({number})"
        taken.add(name)
        apart.append(evolve(sight, name=name))
    return apart
