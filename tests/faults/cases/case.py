"""A fault and the promises for it."""

from collections.abc import Awaitable, Callable

import trio
from attrs import field, frozen

from tests.faults.scene import Scene

Fault = Callable[[Scene], Awaitable[None]]
"""A function that does the harm, and returns when it is undone."""

BROKE_OFF = r"broke off"
NO_ANSWER = r"did not answer a (ping|message) within|took no more of a message for"
BREACH = r"breach of the protocol"
STILL_HELD = r"still holds a connection"


@frozen
class Case:
    """A fault and the promises for it; times are in seconds on the runner's clock."""

    name: str
    fault: Fault
    reasons: tuple[str, ...] = ()
    """What is logged, in order; the statistics have the last failure."""
    noticed_s: float = 2
    """How soon the runner must say that its link has failed, if it has to (s)."""
    back_s: float = 2
    """How soon after the fault is undone everything must have been delivered (s)."""
    links: int = 2
    """How many links there are in all; with 1 the link outlives the fault."""
    passed: tuple[str, ...] = field(default=(), kw_only=True)
    """The notices that failed: those under way with them arrive first."""
    rate: float = field(default=6.0, kw_only=True)
    """How much faster the runner's clock is than the world's.

    At 8, the shortest deadline, 2 s for the aggregator's calls, is a quarter of a second on the
    world's clock. A loaded machine may well stop for a tenth.
    """


def moment(harm: Callable[[Scene], object]) -> Fault:
    """Return a fault that is done in a moment and need not be undone."""

    async def fault(scene: Scene) -> None:
        harm(scene)
        await trio.lowlevel.checkpoint()

    return fault
