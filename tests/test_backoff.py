"""The waits before a dial."""

from random import Random

import pytest

from trio_runner import (
    MAX_RECONNECT_WAIT_SECONDS,
    AggregatorUnreachable,
    LinkLost,
    NetworkError,
    SecretRefused,
)
from trio_runner._backoff import Backoff


class Extreme(Random):
    """Draws the ends of every range, so that a test sees the range."""

    def uniform(self, a: float, b: float) -> float:
        self.range = (a, b)
        return b


@pytest.mark.parametrize(
    ("failure", "longest_s"),
    # min(10, 2**n) for n = 0, 1, 2, ...; 2**4 = 16 is above the cap
    [
        (LinkLost("lost"), [1, 2, 4, 8, 10, 10, 10]),
        (AggregatorUnreachable("down", refused=True), [1, 2, 2, 2, 2, 2, 2]),
        (SecretRefused("wrong"), [10, 10, 10]),
    ],
)
def test_waits_double_up_to_their_cap(failure: NetworkError, longest_s: list[float]) -> None:
    """The longest wait is 1, 2, 4, 8 and then 10 s; 2 s while dials are refused at once.

    A refused registration is tried again after 10 s, no sooner.
    """
    backoff = Backoff(Extreme())
    assert [backoff.wait_s(failure) for _ in longest_s] == longest_s


def test_a_reset_begins_anew_and_no_wait_is_below_a_quarter_second() -> None:
    """After an answered message the first wait is drawn from 0.25 s to 1 s again."""
    rng = Extreme()
    backoff = Backoff(rng)
    for _ in range(10):
        backoff.wait_s(LinkLost("lost"))
    backoff.reset()
    backoff.wait_s(LinkLost("lost"))
    assert rng.range == (0.25, 1)


def test_no_wait_ever_exceeds_open_pectus_bound() -> None:
    """MAX_RECONNECT_WAIT_SECONDS holds for every draw; the mean of the first is 0.625 s."""
    backoff = Backoff(Random(1))
    assert (
        max(backoff.wait_s(LinkLost("lost")) for _ in range(10_000)) <= MAX_RECONNECT_WAIT_SECONDS
    )
