"""How long to wait before the next dial."""

from random import Random

from attrs import define, field

from trio_runner._errors import NetworkError, RegistrationRefused

MAX_RECONNECT_WAIT_SECONDS = 10
"""The wait before a reconnect never exceeds this (s); the name is Open Pectus's."""

MIN_WAIT_S = 0.25
"""No dial sooner than this after a failure (s), so that a glitch is no reason for a storm."""

REFUSED_WAIT_S_MAX = 2
"""The longest wait (s) while the host refuses at once: it is up, so a try costs nothing."""


@define
class Backoff:
    """Waits drawn from `uniform(0.25, min(cap, 2**n))`, n the tries since the last success.

    The first try after a failure waits as well (n = 0: up to 1 s), so that many engines do not
    return to a restarted aggregator in one moment.
    """

    _rng: Random
    _tries: int = field(default=0, init=False)

    def wait_s(self, failure: NetworkError) -> float:
        """Return how long to wait now (s), given how the last link or dial failed.

        After a refusal of the registration it is the longest wait: only a person can change that.
        """
        if isinstance(failure, RegistrationRefused):
            return MAX_RECONNECT_WAIT_SECONDS
        cap_s = REFUSED_WAIT_S_MAX if failure.refused else MAX_RECONNECT_WAIT_SECONDS
        longest_s = min(cap_s, 2**self._tries)
        # Past 2**4 the cap rules; an engine that waits for months shall not compute 2**1000000.
        self._tries = min(self._tries + 1, 4)
        return self._rng.uniform(MIN_WAIT_S, longest_s)

    def reset(self) -> None:
        """Begin anew: the aggregator has answered a message."""
        self._tries = 0
