"""When to dial: how long an engine waits before its next try, and how a herd of them is let in.

Each engine has a `Backoff`. The runner reports to it how each dial went, and when a link was lost;
it returns how long to wait before the next dial. The engines of one process also share `Turns`,
which keep their dials 2 ms apart.

An engine knows nothing of the others, and an aggregator does not tell how many there are. So a herd
is bounded only by what each engine does by itself, and by what it has seen. These are the rules:

1. *A rhythm.* While there is no link, an engine dials again and again. Its waits are drawn from 3/8
   of the longest wait up to the longest. At first that is 0.75 s to 2 s, 1.375 s on average. The
   first wait is drawn as if the engine had been dialling in this rhythm all along.
2. *The longer away, the slower.* The host may refuse at once: it is up, the aggregator is not, and
   a try costs nothing. Then the longest wait is a fifteenth of the time away, from 2 s (until 30 s)
   to 10 s (from 150 s on). After other failures in a row it is 2, 2, 4, 8 and then 10 s.
3. *What was seen.* A dial that gets through has stood in line if it took longer than the quickest
   one ever did, by more than half of the learnt wait. The learnt wait is 2 s at first, and the
   longest wait is never less. A dial that stood in line doubles it, up to 10 s. Each other dial
   that gets through reduces it by a quarter, down to 2 s. So the first herd teaches the next one.
4. *Patience.* An engine whose connection was accepted but not let in in time has stood in line too.
   Leaving the line wastes the work that the engine waits for, which is done all the same. So its
   next dial has 40 s instead of 10.
5. *`Retry-After`.* The rhythm begins anew after it. Its longest wait is then the time that was
   asked for, 60 s at the most. So engines that were told the same do not come together.
6. *Turns.* Engines of one process do know of each other. Their dials begin 2 ms apart, which makes
   50 in 100 ms, however many engines there are.

What follows from them, for N engines, each in its own process, that lose their links at one moment:

- By rule 1 they dial N / 1.375 times a second, evenly, refused dials too. At any moment, half of
  them will dial within 0.69 s.
- How many engines dial no more than 60 times in 100 ms, which is 600 times a second? On average,
  N / 1.375 s <= 600 / s holds up to N = 825. By chance, the fullest of hundreds of such intervals
  has 4 or 5 square roots more than the average. 450 engines dial 33 times on average, and
  33 + 4.5 * 33 ** 0.5 = 59. From 150 s away on, it is 5 times as many engines. It is also more once
  herds have taught them.
- By rule 4, if an aggregator lets R engines in per second, all N are back within 3 * N / R. This
  holds as long as the line of N / R is not over 40 s. With 10 s for each dial, no engine would get
  in once the line is 20 s long.

No rule does better in the first herd. All engines draw from one distribution, since none knows more
than another. If half of N are to dial within m seconds, then some 100 ms of these hold at least
N / 2 / (10 * m) of the dials on average. That is over 60 if N > 1,200 * m. For m = 0.69 s, this is
over 825. And if no wait is over 10 s, N engines that are refused dial at least N / 10 times a
second. That is over 600 for N > 6,000, whatever they have learnt. More dials than that are
harmless: a refused dial costs the aggregator nothing, and one that is accepted stands in the
aggregator's line.
"""

import math
from random import Random

from attrs import define, field

from trio_runner._errors import NetworkError, RegistrationRefused

MAX_RECONNECT_WAIT_SECONDS = 10
"""The longest wait before a reconnect (s), unless a server asks for a longer one. The name is Open
Pectus's."""

RHYTHM_S = 2
"""The longest wait in the rhythm that every engine begins with (s)."""

SHORTEST = 3 / 8
"""The shortest wait, as a part of the longest."""

AWAY_PER_WAIT = 15
"""While an engine is refused at once, its longest wait is its time away divided by this."""

LATE = 1 / 2
"""A dial stood in line if it took longer than the quickest one by this part of the learnt wait."""

RETRY_AFTER_SPREAD_S_MAX = 60
"""Over how long engines that were told to stay away come back, at the most (s)."""

PATIENCE = 4
"""How many times longer than usual a dial may take after one that was accepted but not let in in
time: 40 s instead of 10."""

TURN_S = 0.002
"""The time between two dials of one process (s)."""


@define
class Backoff:
    """The waits of one engine, drawn by the rules above; times are in seconds.

    Report how each dial went: call `let_in` if it got through, `wait_s` if it did not. Call
    `wait_s` also when a link was lost.
    """

    _rng: Random
    _tries: int = field(default=0, init=False)
    _herd_s: float = field(default=RHYTHM_S, init=False)
    """The learnt wait: the longest wait is never less (s)."""
    _quickest_s: float = field(default=math.inf, init=False)
    _has_waited: bool = field(default=False, init=False)
    patience: int = field(default=1, init=False)
    """How many times longer than usual the next dial may take."""

    def wait_s(self, failure: NetworkError, away_s: float = 0) -> float:
        """Return how long to wait now, given the last failure and how long we have been away."""
        self._has_waited = True
        self.patience = PATIENCE if failure.in_line else 1
        longest_s = self._longest(failure, away_s)
        is_first = not self._tries and not isinstance(failure, RegistrationRefused)
        # From 2**4 on the cap rules. An engine that waits for months must not compute 2**1000000.
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
        """Draw what is left of a wait at a random moment of the rhythm.

        For waits that are spread evenly from a to b, with the mean M, the rest x has the density
        (1 - F(x)) / M: even up to a, then falling to 0 at b. This inverts its distribution.
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
        """Start over with short waits, because a link has served for a while."""
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
