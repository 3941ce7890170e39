"""The waits before a dial."""

from bisect import bisect_left
from random import Random
from statistics import median

import pytest

from trio_runner import (
    MAX_RECONNECT_WAIT_SECONDS,
    AggregatorUnreachable,
    LinkLost,
    NetworkError,
    SecretRefused,
)
from trio_runner._backoff import Backoff

LOST = LinkLost("lost")
REFUSED = AggregatorUnreachable("down", refused=True)


class Longest(Random):
    """Draws the upper end of every range."""

    def uniform(self, a: float, b: float) -> float:
        return b


class Shortest(Random):
    """Draws the lower end of every range."""

    def uniform(self, a: float, b: float) -> float:
        return a


@pytest.mark.parametrize(
    ("failure", "shortest_s", "longest_s"),
    [
        # min(10, 2**n) for n = 0, 1, 2, ...; 2**4 = 16 is above the cap.
        (LOST, [0.25] * 7, [1, 2, 4, 8, 10, 10, 10]),
        # The second is 0.25 + 0.75 * 0 and 0.25 + 2 * 1, a part of those that follow.
        (REFUSED, [0.25, 0.25, 0.75, 0.75], [1, 2.25, 2, 2]),
        (SecretRefused("wrong"), [10, 10], [10, 10]),
    ],
)
def test_waits_double_up_to_their_cap(
    failure: NetworkError, shortest_s: list[float], longest_s: list[float]
) -> None:
    """The longest wait is 1, 2, 4, 8 and then 10 s; 2 s while dials are refused at once.

    A refused registration is tried again after 10 s, no sooner.
    """
    shortest, longest = Backoff(Shortest()), Backoff(Longest())
    assert [shortest.wait_s(failure) for _ in shortest_s] == shortest_s
    assert [longest.wait_s(failure) for _ in longest_s] == longest_s


def test_a_reset_begins_anew() -> None:
    """After an answered message the first wait is drawn from 0.25 s to 1 s again."""
    backoff = Backoff(Longest())
    for _ in range(10):
        backoff.wait_s(LOST)
    backoff.reset()
    assert backoff.wait_s(LOST) == 1


def test_no_wait_ever_exceeds_open_pectus_bound() -> None:
    """MAX_RECONNECT_WAIT_SECONDS holds for every draw."""
    backoff = Backoff(Random(1))
    assert max(backoff.wait_s(LOST) for _ in range(10_000)) <= MAX_RECONNECT_WAIT_SECONDS


@pytest.mark.parametrize("away_s", [1, 1.5, 2, 5, 30])
def test_500_engines_come_back_to_a_restarted_aggregator_evenly_spread(away_s: float) -> None:
    """Never more than 60 get through to it in 100 ms, and all do within 2.25 s.

    The wait after the first refused dial is densest where every engine may dial,
    ln(2 / 0.75) / (2 - 0.75) = 0.785 a second: 39 of 500 in 100 ms; later on it is
    500 / 1.375 s = 36. The median of what is left of a wait is 1.375 / 2 = 0.69 s.
    """
    for restart in range(10):
        back_s = []
        for engine in range(500):
            backoff = Backoff(Random(f"{restart} {engine}"))
            at = backoff.wait_s(LOST)
            while at < away_s:
                at += backoff.wait_s(REFUSED)
            back_s.append(at - away_s)
        back_s.sort()
        assert max(bisect_left(back_s, at + 0.1) - n for n, at in enumerate(back_s)) <= 60
        assert median(back_s) < 0.8
        assert back_s[-1] <= 2.25
