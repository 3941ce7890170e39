"""A fault and what is promised of it."""

from collections.abc import Awaitable, Callable

import trio
from attrs import field, frozen

from tests.faults.scene import Scene

Fault = Callable[[Scene], Awaitable[None]]
"""Does the harm and returns when it is undone."""

BROKE_OFF = r"broke off"
NO_ANSWER = r"did not answer a (ping|message) within"
BREACH = r"breach of the protocol"
STILL_HELD = r"still holds a connection"


@frozen
class Case:
    """A fault, and what is promised of it; times are in seconds of the runner's clock."""

    name: str
    fault: Fault
    reasons: tuple[str, ...] = ()
    """What is logged, in order; the last that a failure gave stands in the statistics."""
    noticed_s: float = 2
    """Within which the runner must say that its link has failed, if it has to."""
    back_s: float = 2
    """Within which, once the fault is undone, everything must have been delivered."""
    links: int = 2
    """How many links there are in all; 1: the link outlives the fault."""
    rate: float = field(default=6.0, kw_only=True)
    """How much faster than the world's clock the runner's runs.

    At 8, the shortest deadline, 2 s for the aggregator's calls, is a quarter of a second of the
    world's: a loaded machine may well stop for a tenth.
    """


def moment(harm: Callable[[Scene], object]) -> Fault:
    """Return a fault that is done in a moment and stays as it is."""

    async def fault(scene: Scene) -> None:
        harm(scene)
        await trio.lowlevel.checkpoint()

    return fault
