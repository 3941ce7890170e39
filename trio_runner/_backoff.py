"""When to dial: how long an engine waits before its next try, and how a herd of them is let in.

An engine knows nothing of the others, and an aggregator does not tell how many there are. So all
that bounds a herd is what each one does by itself, and what it has seen:

1. *A rhythm.* While there is no link an engine dials again and again, with waits drawn from 3/8 of
   the longest to the longest: 0.75 s to 2 s at first, 1.375 s on average. The first dial is drawn
   as if the engine had been dialling in this rhythm all along. So N engines that lose their links
   in one moment dial N / 1.375 times a second from then on, evenly, and at any moment half of them
   will within 0.69 s.
2. *The longer away, the slower.* While the host refuses at once (it is up, the aggregator is not,
   and a try costs nothing) the longest wait is a fifteenth of the time away, from 2 s (until 30 s)
   to 10 s (from 150 s on); after other failures it is 2, 4, 8 and then 10 s.
3. *What was seen.* A dial that got through, but took longer than the quickest one ever did by half
   of the longest wait, has stood in line: the longest wait is doubled for the next time, up to
   10 s, and becomes a quarter less with each that did not. The first herd teaches the next one.
4. *Patience.* Whose connection is taken and not answered stands in line too. Leaving it wastes the
   work that it stood for, which is done all the same, so the next dial has 40 s instead of 10.
   Where an aggregator lets R engines in per second, all N are back within 3 * N / R then, if that
   line of N / R is up to 40 s long; with 10 s for each dial none would be from 20 s on.
5. *`Retry-After`.* The rhythm begins anew behind it, with a longest wait as long as was asked for,
   60 s at the most, so that those who were told the same do not come in the same moment.
6. *Turns.* Engines of one process do know of each other: their dials begin 2 ms apart, which is 50
   in 100 ms however many they are.

How many engines of as many processes dial no more than 60 times in 100 ms, which is 600 a second?
N / 1.375 s <= 600 / s holds up to N = 825 on average. Chance has the fullest of hundreds of 100 ms
4 or 5 roots above it: 450 engines are 33 on average, and 33 + 4.5 * 33 ** 0.5 = 59. From 150 s away
on it is 5 times as many, and for those that have learnt it from herds.

No rule does better in the first herd. All engines draw from one distribution, since none knows more
than another. If half of N are to dial within m seconds, then 100 ms somewhere in these hold at
least N / 2 / (10 * m) of the dials on average. That is over 60 if N > 1,200 * m: for m = 0.69 s,
over 825. And if no wait is over 10 s, N engines that are refused dial N / 10 s at least, over 600 a
second for N > 6,000, whatever they have learnt. What is above is harmless: a refused dial costs the
aggregator nothing, and one that is not stands in the aggregator's line.
"""

import math
from random import Random

from attrs import define, field

from trio_runner._errors import NetworkError, RegistrationRefused

MAX_RECONNECT_WAIT_SECONDS = 10
"""The wait before a reconnect never exceeds this (s), unless a server asks for a longer one; the
name is Open Pectus's."""

RHYTHM_S = 2
"""The longest wait (s) in the rhythm that all begin with."""

SHORTEST = 3 / 8
"""Which part of the longest wait the shortest is."""

AWAY_PER_WAIT = 15
"""How many times longer than its longest wait an engine has been away that is refused at once."""

LATE = 1 / 2
"""Who has stood in line was let in later than the quickest by this part of the longest wait."""

RETRY_AFTER_SPREAD_S_MAX = 60
"""Over how long (s) those that are told to stay away come back, at the most."""

PATIENCE = 4
"""How many times longer than usual a dial may take that stands in line."""

TURN_S = 0.002
"""Between two dials of one process (s)."""


@define
class Backoff:
    """The waits of one engine, drawn by the rules above; times are in seconds.

    Say how each dial went: `let_in` if it got through, `wait_s` if it did not, or when its link was
    lost.
    """

    _rng: Random
    _tries: int = field(default=0, init=False)
    _herd_s: float = field(default=RHYTHM_S, init=False)
    """The longest wait at least, as standing in line has taught."""
    _quickest_s: float = field(default=math.inf, init=False)
    _has_waited: bool = field(default=False, init=False)
    patience: int = field(default=1, init=False)
    """How many times longer than usual the next dial may take."""

    def wait_s(self, failure: NetworkError, away_s: float = 0) -> float:
        """Return how long to wait now, given how the last link or dial failed, and since when."""
        self._has_waited = True
        self.patience = PATIENCE if failure.in_line else 1
        longest_s = self._longest(failure, away_s)
        is_first = not self._tries and not isinstance(failure, RegistrationRefused)
        # Past 2**4 the cap rules; an engine that waits for months shall not compute 2**1000000.
        self._tries = min(self._tries + 1, 4)
        if failure.retry_after_s:
            spread_s = min(failure.retry_after_s, RETRY_AFTER_SPREAD_S_MAX)
            return failure.retry_after_s + self._rest_s(max(longest_s, spread_s))
        if is_first:
            return self._rest_s(longest_s)
        return self._rng.uniform(SHORTEST * longest_s, longest_s)

    def _longest(self, failure: NetworkError, away_s: float) -> float:
        if isinstance(failure, RegistrationRefused):  # only a person can change that
            longest_s: float = MAX_RECONNECT_WAIT_SECONDS
        elif failure.refused:
            longest_s = away_s / AWAY_PER_WAIT
        else:
            longest_s = 2**self._tries
        return max(min(longest_s, MAX_RECONNECT_WAIT_SECONDS), self._herd_s)

    def _rest_s(self, longest_s: float) -> float:
        """Draw what is left of a wait at any moment of the rhythm.

        The rest x of waits that are evenly spread from a to b, with the mean M, is more than x with
        the density (1 - F(x)) / M: even up to a, then falling to 0 at b. This is its inverse.
        """
        part = self._rng.uniform(0, 1)
        shortest_s = SHORTEST * longest_s
        mean_s = (shortest_s + longest_s) / 2
        if part * mean_s <= shortest_s:
            return part * mean_s
        return longest_s - math.sqrt(2 * (longest_s - shortest_s) * mean_s * (1 - part))

    def let_in(self, took_s: float) -> None:
        """Note that a dial has got through, and how long that took."""
        late_s, self._quickest_s = took_s - self._quickest_s, min(took_s, self._quickest_s)
        if self._has_waited:
            stood_in_line = late_s > LATE * self._herd_s or self.patience > 1
            learnt_s = self._herd_s * (2 if stood_in_line else 3 / 4)
            self._herd_s = min(max(learnt_s, RHYTHM_S), MAX_RECONNECT_WAIT_SECONDS)
        self.patience = 1

    def reset(self) -> None:
        """Begin anew: a link has served for a while."""
        self._tries = 0


@define
class Turns:
    """Whose turn it is to dial, among the engines of one process."""

    _free_at: float = field(default=-math.inf, init=False)

    def take(self, now: float) -> float:
        """Take the next turn; return when it is (s, on the clock of `now`)."""
        at = max(now, self._free_at)
        self._free_at = at + TURN_S
        return at
