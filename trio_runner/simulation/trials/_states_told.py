"""A check that a steady link is told all states, and that these show whether a run is on."""

import json
import math
from collections.abc import Callable

import trio
from attrs import define, field

from trio_runner.simulation.trials._ledger import COMMIT_S
from trio_runner.simulation.trials._sampling import TICKS_S
from trio_runner.simulation.trials._watched_link import WatchedLink

RETRY_WAIT_S = 1.0
"""How long nothing is sent after a failure, before the message is sent again (s)."""

STATES = 6
"""How many kinds of state messages there are."""

STATE_PAUSE_S = 60.0 + RETRY_WAIT_S
"""The longest pause before a state message that was not taken is tried again (s)."""


@define(eq=False)
class StatesTold:
    """Follows which states were sent; `expect` is the oracle's.

    `is_in_trouble` tells whether a kind of state may have to wait, since it was tried in vain.
    """

    expect: Callable[[object, str], None]
    is_in_trouble: Callable[[str], bool]
    steady_s: float
    """The time between two samples while there is a link (s)."""
    failed_at: float = field(default=-math.inf, init=False)
    """When the aggregator last did not take a state message (s)."""
    disagreed_at: float = field(default=-math.inf, init=False)
    """When the engine's control state last disagreed with what it had told of runs (s)."""
    shown: bool | None = field(default=None, init=False)
    """Whether a run is on, by the last ControlState that was sent."""
    _sent: set[str] = field(factory=set, init=False)

    def was_sent(self, kind: str) -> bool:
        """Tell whether a state message of this kind was ever sent."""
        return kind in self._sent

    def send(self, kind: str, body: str) -> None:
        """Note a state message that is sent."""
        self._sent.add(kind)
        if kind == "ControlStateMsg":
            self.shown = bool(json.loads(body)["control_state"]["is_running"])

    def fail(self) -> None:
        """Note that a state message was not taken."""
        self.failed_at = trio.current_time()

    def check(self, link: WatchedLink, run: str | None, since: float) -> None:
        """Check a link that is steady, and on which no run event may be waiting.

        `run` is the run that is on, and `since` is when the state or the run last changed (s).
        """
        # A state message must not overtake a run event. After that it goes out at the next tick or
        # answer; over a slow link they go one after the other. The first sample shows what a run
        # has changed, a durable outbox writes that before it is sent, and the next sample sends it.
        known_s = 2 * (self.steady_s + TICKS_S) + COMMIT_S + RETRY_WAIT_S + STATES * link.longest_s
        now = trio.current_time()
        if now - max(since, self.disagreed_at) < known_s:
            return
        if link.has_state_unanswered or link.is_silent:
            return  # over a slow link, state messages go out one after the other
        states = {"UodInfoMsg", "MethodMsg", "ControlStateMsg", "MethodStateMsg"}
        if run is not None:
            states.add("RunLogMsg")
        untold = sorted(s for s in states - link.told if not self.is_in_trouble(s))
        self.expect(not untold, f"{', '.join(untold)} was not sent on this link")
        # A state message that was not taken is tried again after growing pauses.
        has_failed = now - self.failed_at < STATE_PAUSE_S
        has_failed = has_failed or self.is_in_trouble("ControlStateMsg")
        shows = self.shown == (run is not None) or has_failed
        self.expect(shows, f"the run is {run}, but shown was {self.shown}")
