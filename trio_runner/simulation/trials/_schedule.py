"""The schedule of a simulation: which fault begins when.

It is drawn first, and each fault has its own random generator. So leaving one fault out does not
change the others.
"""

from collections.abc import Collection, Sequence
from random import Random

from attrs import frozen

EVERY_S = 12.0
"""The average time between two faults (s)."""

RARE = {
    "bug": 0.3,
    "huge_archive": 0.3,
    "kill_process": 0.5,
    "power_cut": 0.3,
    "slow_stop": 0.3,
    "stop_at_once": 0.3,
    "stop_on_the_way": 0.5,
    "stop_process": 0.5,
    "torn_write": 0.3,
}
"""Weights of kinds that must not crowd out others: they start a new process or cost real time."""


@frozen
class Planned:
    """A fault in the schedule: its number, when it begins (s) and its kind."""

    number: int
    at_s: float
    kind: str


def plan(
    seed: int, duration_s: float, known: Collection[str], kinds: Sequence[str] | None = None
) -> list[Planned]:
    """Draw a schedule for duration_s (s) from the faults with these names.

    Draw the weights first, some of them 0, so that rare faults meet; then draw the times. `kinds`
    leaves faults of other kinds out of the same schedule.
    """
    rng = Random(f"{seed} schedule")  # noqa: S311 - nothing secret
    names = sorted(known)
    weights = [_draw_weight(rng) * RARE.get(name, 1) for name in names]
    if not any(weights):
        weights = [1.0] * len(names)
    planned: list[Planned] = []
    at_s = rng.expovariate(1 / EVERY_S)
    while at_s < duration_s:
        (kind,) = rng.choices(names, weights)
        planned.append(Planned(len(planned), at_s, kind))
        at_s += rng.expovariate(1 / EVERY_S)
    return [fault for fault in planned if kinds is None or fault.kind in kinds]


def _draw_weight(rng: Random) -> float:
    weight = rng.expovariate(1)
    return weight if rng.random() < 0.6 else 0.0
