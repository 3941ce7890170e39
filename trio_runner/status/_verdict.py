"""Whether all is well with a unit, or why not: one verdict for health, page and terminal."""

from collections.abc import Iterable, Iterator
from typing import Literal

from attrs import frozen

from trio_runner import Statistics
from trio_runner._away import duration
from trio_runner.status._words import counted

Level = Literal["ok", "warning", "critical"]

LEVELS: tuple[Level, ...] = ("ok", "warning", "critical")
"""The levels, the worst last; the index of each is its exit code for monitoring."""


@frozen
class Reason:
    """Why not all is well, and what to do; `critical` needs a person at once."""

    level: Level
    text: str


@frozen
class Facts:
    """What a verdict on a unit is based on; times are in seconds."""

    known_for_s: float
    """How long the unit has been known here, started or not."""
    failed: str | None
    """Why the unit no longer runs, None if it has not failed."""
    statistics: Statistics | None
    """None while the unit is starting, and if it failed before it ran."""
    thinned_ago_s: float | None
    """The time since samples were last thinned, None if none were."""


def is_away(known: Statistics) -> bool:
    """Tell whether a runner that is not being stopped has no link over which data flows."""
    states = ("CatchingUp", "Stopped", "ShutdownComplete")
    return known.away_for_s is not None and known.state not in states


def worst(levels: Iterable[Level]) -> Level:
    """Return the worst of these levels, `ok` if there are none."""
    return max(levels, key=LEVELS.index, default="ok")


def judge(facts: Facts, alarm_after_s: float) -> list[Reason]:
    """Return what is not well, the worst first.

    Starting, stopping, catching up and an outage are only warnings, because what waits is kept
    safely. What an earlier process left is not even that: it goes out over the first link, in
    steady state. A start or an outage that lasts longer than `alarm_after_s` seconds is critical.
    So are a unit that has failed or ended, and data that is lost or not kept safely: samples
    thinned within the last `alarm_after_s` seconds, messages set aside, a degraded outbox.
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
