"""The list of faults, and helpers that several of them need."""

import math
from random import Random

import trio

from trio_runner.simulation.stand_ins._network import Wire
from trio_runner.simulation.trials._world import Fault, World

FAULTS: dict[str, Fault] = {}
"""Every fault by its name."""

LONGEST_S = 90.0
SHORTEST_S = 0.05


def fault(function: Fault) -> Fault:
    """Add a fault by the name of its function."""
    FAULTS[getattr(function, "__name__")] = function  # noqa: B009
    return function


async def for_a_while(rng: Random, longest_s: float = LONGEST_S) -> None:
    """Sleep from 50 ms to `longest_s` (s); each order of magnitude is equally likely."""
    await trio.sleep(draw(rng, SHORTEST_S, longest_s))


def draw(rng: Random, least: float, most: float) -> float:
    """Draw a number between the two; each order of magnitude is equally likely."""
    return least * math.pow(most / least, rng.random())


def newest_wire(world: World) -> Wire | None:
    """Return the connection that was opened last, or None if none is held."""
    return world.network.wires[-1] if world.network.wires else None
