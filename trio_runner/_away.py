"""How long the aggregator has been away, and what the log says about it.

An outage, even of a whole night, takes few lines: a WARNING with the reason when it begins, another
for each new reason, a summary every 10 minutes, and a line when everything that waited is
delivered. The first dial that fails also tells that the runner goes on trying. Links that break
again and again are one trouble, told in the same way, until a link has been healthy.
"""

import logging
import math

import trio
from attrs import define, field

from trio_runner._errors import LinkLost, NetworkError, RegistrationRefused
from trio_runner._outbox import Outbox, OutboxStatistics
from trio_runner._say_once import SayOnce
from trio_runner._states import HEALTHY_S

logger = logging.getLogger(__name__)

SUMMARY_S = 600
"""The time between two summaries of a trouble (s)."""

REMIND_S = 3600
"""The same while the registration is refused (s): waiting does not help, a person must act."""


@define(eq=False)
class Away:
    """Knows since when there has been no steady state, and why."""

    _outbox: Outbox
    say: SayOnce = field(factory=lambda: SayOnce(logger), init=False)
    """Logs each thing only once while no link is healthy."""
    since: float | None = field(default=None, init=False)
    """When the last steady state ended, or the runner began (s on Trio's clock).

    None in steady state, and before the start.
    """
    last_failure: NetworkError | None = field(default=None, init=False)
    failures: dict[str, int] = field(factory=dict, init=False)
    """How many dials and links failed, by the class of the failure."""
    _before: OutboxStatistics | None = field(default=None, init=False)
    """The outbox's statistics at the beginning of the outage, or None without one."""
    _linked: tuple[float, int] | None = field(default=None, init=False)
    """When the outage's first link was introduced (s), and how much had been delivered by then."""
    _steady_since: float = field(default=-math.inf, init=False)
    """When the last steady state began; infinity once it has ended."""
    _trouble_since: float = field(default=0.0, init=False)
    """When the last healthy link was lost, or the first dial failed (s)."""
    _lost: int = field(default=0, init=False)
    """How many links were lost since then."""
    _lost_at: float = field(default=-math.inf, init=False)
    """When the last of them was lost (s)."""
    _summary_due: float = field(default=math.inf, init=False)
    _has_promised: bool = field(default=False, init=False)
    """Whether the log says of this trouble that the runner goes on trying."""

    def without_link(self) -> None:
        """Note that there is no link, though none has failed: the runner begins, or has ended."""
        self.since = trio.current_time() if self.since is None else self.since

    def for_s(self) -> float:
        """Return how long there has been no steady state (s); 0 in steady state."""
        return 0 if self.since is None else trio.current_time() - self.since

    def failed(self, failure: NetworkError) -> None:
        """Note why a link was lost or a dial failed; log it if that is news."""
        now = trio.current_time()
        if now - self._steady_since > HEALTHY_S:
            self.say.forget()
            self._trouble_since, self._lost, self._summary_due = now, 0, math.inf
            self._has_promised = False
        self._steady_since = math.inf
        self.last_failure = failure
        kind = type(failure).__name__
        self.failures[kind] = self.failures.get(kind, 0) + 1
        if isinstance(failure, LinkLost):
            self._lost, self._lost_at = self._lost + 1, now
        if self._before is None:
            self._before = self._outbox.statistics()
            self.since = now if self.since is None else self.since
        self._summary_due = min(self._summary_due, now + self._summary_every_s())
        reason, _, _ = str(failure).partition(". ")
        self.say(logging.WARNING, "%s%s", failure, self._promise(failure), about=reason)
        if now >= self._summary_due:
            self._sum_up(now)

    def _promise(self, failure: NetworkError) -> str:
        """Return what to add to the first failed dial, after which the log is silent for long."""
        if self._has_promised or isinstance(failure, LinkLost):
            return ""
        self._has_promised = True
        longest = duration(self._summary_every_s())
        return f" The runner goes on trying and will say more within {longest}."

    def _summary_every_s(self) -> float:
        return REMIND_S if isinstance(self.last_failure, RegistrationRefused) else SUMMARY_S

    def _sum_up(self, now: float) -> None:
        assert self.since is not None
        self._summary_due = now + self._summary_every_s()
        outbox = self._outbox.statistics()
        what = f"No link to the aggregator for {duration(now - self.since)}"
        if self._lost > 1 and now - self._lost_at < SUMMARY_S:
            in_s = duration(now - self._trouble_since)
            what = f"Links to the aggregator do not last: {self._lost} were lost in {in_s}"
        logger.warning(
            "%s; messages waiting: %d, %.0f kB%s. %s",
            what,
            outbox.waiting,
            outbox.bytes_waiting / 1000,
            self._given_up(outbox),
            self.last_failure,
        )

    def _given_up(self, outbox: OutboxStatistics) -> str:
        thinned = outbox.thinned - (self._before.thinned if self._before is not None else 0)
        return f"; samples given up: {thinned}" if thinned else ""

    def introduced(self) -> None:
        """Note that a link is introduced, so that waiting messages can go over it."""
        if self._linked is None:
            self._linked = trio.current_time(), self._outbox.statistics().delivered

    def over(self) -> None:
        """Note that the steady state begins; if it ends an outage, sum that up."""
        now = self._steady_since = trio.current_time()
        if self._before is not None and self.since is not None and self._linked is not None:
            outbox, (linked_at, delivered) = self._outbox.statistics(), self._linked
            away_s = now - self.since
            text = (
                f"The aggregator is back after {duration(away_s)}; messages caught up:"
                f" {outbox.delivered - delivered}, in {duration(now - linked_at)}"
                f"{self._given_up(outbox)}"
            )
            if away_s > HEALTHY_S:
                self.say.forget()
            self.say(logging.INFO, "%s", text, about="back")
            if away_s >= SUMMARY_S:
                self._outbox.warnings.tell(logging.WARNING, text)
        self.since = self._before = self._linked = None


def duration(seconds: float) -> str:
    """Return a duration as people say it, in the largest unit of which it has at least two."""
    lengths_s = {"d": 86_400, "h": 3600, "min": 60}
    unit = next((unit for unit, length_s in lengths_s.items() if seconds >= 2 * length_s), "s")
    number = seconds / lengths_s.get(unit, 1)
    return f"{number:.0f} {unit}" if number >= 10 else f"{number:.2g} {unit}"
