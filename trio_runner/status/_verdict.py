"""Whether all is well with a unit, and why not: one judgement for health, page and terminal."""

from collections.abc import Iterable, Iterator
from typing import Literal

from attrs import frozen

from trio_runner import Statistics
from trio_runner._away import duration
from trio_runner.status._words import counted

Level = Literal["ok", "warning", "critical"]

LEVELS: tuple[Level, ...] = ("ok", "warning", "critical")
"""The worst last; the place of each is its exit code for monitoring."""


@frozen
class Reason:
    """Why not all is well, and what to do; `critical` asks for a person at once."""

    level: Level
    text: str


@frozen
class Facts:
    """What there is to judge about a unit; times in seconds."""

    known_for_s: float
    """Since the unit is known here, started or not."""
    failed: str | None
    """Why it does not run any more."""
    statistics: Statistics | None
    """None while it starts, and where it failed before it ran."""
    thinned_ago_s: float | None
    """Since samples were last given up, None if none were."""


def is_away(known: Statistics) -> bool:
    """Tell whether a runner that is not being stopped has no link over which data flows."""
    states = ("CatchingUp", "Stopped", "ShutdownComplete")
    return known.away_for_s is not None and known.state not in states


def worst(levels: Iterable[Level]) -> Level:
    """Return the worst of these, ok of none."""
    return max(levels, key=LEVELS.index, default="ok")


def judge(facts: Facts, alarm_after_s: float) -> list[Reason]:
    """Return what is not well, the worst first.

    Data that flows is well, and so is what is kept safely for a while: an outage becomes critical
    when it has lasted for `alarm_after_s`.
    """
    reasons = [*_of_life(facts, alarm_after_s), *_of_outbox(facts, alarm_after_s)]
    return sorted(reasons, key=lambda reason: -LEVELS.index(reason.level))


def _of_life(facts: Facts, alarm_after_s: float) -> Iterator[Reason]:
    known = facts.statistics
    if facts.failed is not None:
        yield Reason("critical", f"it has failed: {facts.failed}")
    elif known is None:
        level = _by_age(facts.known_for_s, alarm_after_s)
        yield Reason(level, f"it has been starting for {duration(facts.known_for_s)}")
    elif known.state == "ShutdownComplete":
        yield Reason("critical", "its runner has ended")
    elif known.state == "Stopped":
        yield Reason("warning", "it is being stopped")
    elif known.state == "CatchingUp":
        yield Reason("warning", f"catching up, {counted(known.outbox.waiting, 'message')} to go")
    elif is_away(known):
        why = f": {known.last_failure}" if known.last_failure else ""
        away_s = known.away_for_s or 0.0
        text = f"no link to the aggregator for {duration(away_s)}{why}"
        yield Reason(_by_age(away_s, alarm_after_s), text)


def _of_outbox(facts: Facts, alarm_after_s: float) -> Iterator[Reason]:
    if facts.statistics is None:
        return
    outbox, ago_s = facts.statistics.outbox, facts.thinned_ago_s
    if outbox.degraded is not None:
        yield Reason("critical", f"what waits is in memory only: {outbox.degraded}")
    if outbox.set_aside:
        text = "set aside for good: `trio-runner outbox show` says which and why"
        yield Reason("critical", f"{counted(outbox.set_aside, 'message')} {text}")
    if ago_s is not None and ago_s <= alarm_after_s:
        text = f"given up so far, the last {duration(ago_s)} ago: the outbox is full"
        yield Reason("critical", f"{counted(outbox.thinned, 'sample')} {text}")


def _by_age(seconds: float, alarm_after_s: float) -> Level:
    return "critical" if seconds > alarm_after_s else "warning"
