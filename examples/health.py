"""Tell a watchdog, a lamp or a load balancer whether the link to the aggregator is healthy."""

import math
from collections.abc import Callable

import trio

from trio_runner import EngineRunner

WELL = ("Connected", "Reconnected")


async def watch(
    runner: EngineRunner, tell: Callable[[bool], None], *, patience_s: float = 60
) -> None:
    """Call `tell(True)` when live values flow, `tell(False)` after `patience_s` without.

    It ends with the runner. A short outage is not told. What an earlier process left may still be
    on its way over the first link.
    """
    with runner.state_changes() as changes:
        was_well = runner.state in WELL
        bad_at = math.inf if was_well else trio.current_time() + patience_s
        if was_well:
            tell(True)
        while True:
            with trio.move_on_at(bad_at) as waiting:
                try:
                    change = await changes.receive()
                except trio.EndOfChannel:
                    return
            if waiting.cancelled_caught:
                was_well, bad_at = False, math.inf
                tell(False)
            elif change.after in WELL:
                if not was_well:
                    tell(True)
                was_well, bad_at = True, math.inf
            elif was_well and bad_at == math.inf:
                bad_at = trio.current_time() + patience_s
