"""The conditions of a simulated life, which stay the same while faults come and go."""

import math
from random import Random

from attrs import frozen

from trio_runner._timing import Timing


@frozen
class Conditions:
    """The distance and width of the path, the aggregator's speed and the outbox's size."""

    latency_s: float
    """One way (s)."""
    jitter_s: float
    bytes_per_s: float
    handling_s: float
    """How long the aggregator takes to handle a message (s)."""
    bytes_max: int
    """The outbox's bound (bytes)."""
    steady_s: float
    """The time between two samples while there is a link (s)."""
    has_disk: bool

    @property
    def exchange_s(self) -> float:
        """The longest time that a message and its answer take (s)."""
        return 2 * (self.latency_s + self.jitter_s) + 2 * self.handling_s + 0.05


def draw(rng: Random) -> Conditions:
    """Draw the conditions of a life."""
    return Conditions(
        latency_s=rng.choice((0.0, 0.001, 0.02, 0.1)),
        jitter_s=rng.choice((0.0, 0.005, 0.05)),
        bytes_per_s=rng.choice((math.inf, 1e6, 1e5)),
        handling_s=rng.choice((0.0, 0.001, 0.01)),
        bytes_max=rng.choice((20_000, 60_000, 2**26)),
        # The usual rate is the fastest. At lower rates exchanges overlap less.
        steady_s=rng.choice((Timing().steady_s, 0.5, 1.0, 2.0)),
        has_disk=rng.random() < 0.6,
    )
