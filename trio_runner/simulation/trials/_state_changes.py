"""A check of the runner's states: changes are legal, and no wait before a dial is too long."""

from collections.abc import Callable

import trio
from attrs import define, field

from trio_runner.simulation.stand_ins._sometimes import sometimes
from trio_runner.simulation.trials._watched_link import ROUNDING_S

EDGES = {
    "Started": "Connected Failed Stopped",
    "Connected": "Failed Stopped",
    "Failed": "Disconnected Stopped",
    "Disconnected": "Reconnecting Failed Stopped",
    "Reconnecting": "CatchingUp Failed Stopped",
    "CatchingUp": "Reconnected Failed Stopped",
    "Reconnected": "Failed Stopped",
    "Stopped": "ShutdownComplete",
    "ShutdownComplete": "",
}
"""The legal changes of state, by the design."""

WAIT_S = 10.0
"""The longest wait before a dial (s)."""

DIAL_S, DIAL_IN_LINE_S = 10.0, 40.0
"""The longest dial, and the longest after one that was accepted but not let in in time (s)."""

OUTAGE_S = 600.0
"""How long a time without steady state people are told of when it is over (s)."""


@define(eq=False)
class StateChanges:
    """Follows the state of one process after the other; `expect` is the oracle's."""

    expect: Callable[[object, str], None]
    now: str = field(default="Started", init=False)
    """The present state."""
    since: float = field(default=0.0, init=False)
    """When it was entered (s)."""
    dial_s: float = field(default=DIAL_S, init=False)
    """How long the next dial may take (s)."""
    _steady_until: float = field(default=0.0, init=False)
    """When the last steady state ended, or the process began (s)."""

    def begin_life(self) -> None:
        """Note that a process has started."""
        self.now, self.since = "Started", trio.current_time()
        self._steady_until = self.since

    @property
    def is_steady(self) -> bool:
        """Whether there is a link over which all that had waited is delivered."""
        return self.now in ("Connected", "Reconnected")

    @property
    def is_ending(self) -> bool:
        """Whether the process is being stopped."""
        return self.now in ("Stopped", "ShutdownComplete")

    def change(self, before: str, after: str) -> bool:
        """Check that a change of state is legal; return whether it ends an outage of `OUTAGE_S`."""
        self.expect(before == self.now, f"the state was {self.now}, but {before} was left")
        sometimes(f"{before} -> {after}")
        legal = EDGES[before].split()
        self.expect(after in legal, f"the state went from {before} to {after}")
        now = trio.current_time()
        if self.is_steady:
            self._steady_until = now
        self.now, self.since = after, now
        return after == "Reconnected" and now - self._steady_until >= OUTAGE_S + ROUNDING_S

    def end_dial(self, *, in_line: bool) -> None:
        """Note that a dial has ended; `in_line` says whether it was accepted but never let in."""
        sometimes("dial in line", in_line)
        self.dial_s = DIAL_IN_LINE_S if in_line else DIAL_S

    def check_second(self) -> None:
        """Check that the runner has not been without a dial for too long."""
        if self.now == "Disconnected":
            waited = trio.current_time() - self.since
            in_time = waited <= WAIT_S + self.dial_s + ROUNDING_S
            self.expect(in_time, f"no dial ended for {waited:.1f} s")
