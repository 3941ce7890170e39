"""How long to wait before the next dial."""

from random import Random

from attrs import define, field

from trio_runner._errors import NetworkError, RegistrationRefused

MAX_RECONNECT_WAIT_SECONDS = 10
"""The wait before a reconnect never exceeds this (s); the name is Open Pectus's."""

MIN_WAIT_S = 0.25
"""No dial sooner than this after a failure (s), so that a glitch is no reason for a storm."""

REFUSED_WAITS_S = 0.75, 2
"""The range of waits (s) while the host refuses at once: it is up, so a try costs nothing.

500 engines that dial every 1.375 s on average are 36 dials in 100 ms when the host lets them in.
"""


@define
class Backoff:
    """Waits drawn from `uniform(0.25, min(10, 2**n))`, n the tries since the last success.

    The first try after a failure waits as well (n = 0: up to 1 s), so that many engines do not
    return in one moment. Those that then find their aggregator down, since it is being restarted,
    are spread out further: the wait after a first refused dial is a random part of one.
    """

    _rng: Random
    _tries: int = field(default=0, init=False)

    def wait_s(self, failure: NetworkError) -> float:
        """Return how long to wait now (s), given how the last link or dial failed.

        After a refusal of the registration it is the longest wait: only a person can change that.
        Where a server said how long to stay away, the wait begins behind that.
        """
        if isinstance(failure, RegistrationRefused):
            return MAX_RECONNECT_WAIT_SECONDS
        return failure.retry_after_s + self._drawn_s(failure)

    def _drawn_s(self, failure: NetworkError) -> float:
        tries = self._tries
        # Past 2**4 the cap rules; an engine that waits for months shall not compute 2**1000000.
        self._tries = min(tries + 1, 4)
        if not failure.refused or not tries:
            return self._rng.uniform(MIN_WAIT_S, min(MAX_RECONNECT_WAIT_SECONDS, 2**tries))
        wait_s = self._rng.uniform(*REFUSED_WAITS_S)
        # As if each had been dialling in this rhythm all along: at no time do many of them dial.
        return wait_s if tries > 1 else MIN_WAIT_S + wait_s * self._rng.uniform(0, 1)

    def reset(self) -> None:
        """Begin anew: a link has served for a while."""
        self._tries = 0
