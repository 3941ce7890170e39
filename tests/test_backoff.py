"""The waits before a dial."""

from bisect import bisect
from random import Random

import pytest

from trio_runner import (
    MAX_RECONNECT_WAIT_SECONDS,
    AggregatorUnreachable,
    LinkLost,
    NetworkError,
    SecretRefused,
)
from trio_runner._backoff import Backoff, Turns

LOST = LinkLost("lost")
REFUSED = AggregatorUnreachable("down", refused=True)
IN_LINE = AggregatorUnreachable("no answer", in_line=True)


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
        # The first wait is what is left of one of up to 2 s. Then it is min(10, 2**n) for n = 1, 2,
        # 3, ..., and 3/8 of that.
        (LOST, [0, 0.75, 1.5, 3, 3.75, 3.75], [2, 2, 4, 8, 10, 10]),
        (REFUSED, [0, 0.75, 0.75, 0.75], [2, 2, 2, 2]),
        (SecretRefused("wrong"), [3.75, 3.75], [10, 10]),
    ],
)
def test_waits_double_up_to_their_cap(
    failure: NetworkError, shortest_s: list[float], longest_s: list[float]
) -> None:
    """The longest wait is 2, 2, 4, 8 and then 10 s; 2 s while dials are refused at once.

    A refused registration is tried again after 10 s at the latest.
    """
    shortest, longest = Backoff(Shortest()), Backoff(Longest())
    assert [shortest.wait_s(failure) for _ in shortest_s] == shortest_s
    assert [longest.wait_s(failure) for _ in longest_s] == longest_s


def test_waits_grow_the_longer_a_host_has_refused() -> None:
    """They are a fifteenth of the time away, from 2 s to 10 s."""
    backoff = Backoff(Longest())
    waits_s = [backoff.wait_s(REFUSED, away_s) for away_s in (0, 30, 45, 60, 150, 3600)]
    assert waits_s == [2, 2, 3, 4, 10, 10]


def test_after_a_reset_the_waits_begin_anew() -> None:
    """When a link has served for a while, the first wait is up to 2 s again."""
    backoff = Backoff(Longest())
    for _ in range(10):
        backoff.wait_s(LOST)
    backoff.reset()
    assert backoff.wait_s(LOST) == 2


def test_no_wait_ever_exceeds_the_bound_of_open_pectus() -> None:
    """MAX_RECONNECT_WAIT_SECONDS holds for every draw."""
    backoff = Backoff(Random(1))
    assert max(backoff.wait_s(LOST) for _ in range(10_000)) <= MAX_RECONNECT_WAIT_SECONDS


def test_the_first_wait_is_what_a_running_rhythm_would_leave_of_one() -> None:
    """It is drawn as if the engine had been dialling in a rhythm of 0.75 to 2 s all along.

    The draws are compared with the time until the next dial, at the moments k * 0.01 s of one long
    rhythm.
    """
    rng = Random(1)
    dials, at = list[float](), 0.0
    while at < 2000:
        at += rng.uniform(0.75, 2)
        dials.append(at)
    left = sorted(dials[bisect(dials, k * 0.01)] - k * 0.01 for k in range(190_000))
    drawn = sorted(Backoff(Random(n)).wait_s(LOST) for n in range(20_000))
    for part in (0.1, 0.3, 0.5, 0.7, 0.9, 0.99):
        assert drawn[int(part * len(drawn))] == pytest.approx(left[int(part * len(left))], abs=0.03)


def test_an_engine_that_stood_in_line_dials_less_often_next_time() -> None:
    """A dial that is let in late by half of the longest wait doubles that wait, up to 10 s.

    Each dial that is not late takes a quarter from it: 10, 7.5, 5.625, ..., down to 2 s.
    """
    backoff = Backoff(Longest())
    backoff.let_in(0.1)

    def outage(took_s: float) -> float:
        wait_s = backoff.wait_s(LOST)
        backoff.let_in(took_s)
        backoff.reset()
        return wait_s

    assert [outage(1.2), outage(2.2), outage(4.2)] == [2, 4, 8]
    assert [outage(5) for _ in range(3)] == [10, 7.5, 10]  # 4.9 s late is under 5 and over 3.75
    for _ in range(10):
        outage(0.1)
    assert outage(0.1) == 2


def test_the_first_dial_only_measures_the_distance() -> None:
    """3 s over a slow path are no sign of a crowd, neither at the start nor later."""
    backoff = Backoff(Longest())
    for _ in range(3):
        backoff.let_in(3)
        assert backoff.wait_s(LOST) == 2
        backoff.reset()


def test_an_engine_that_stands_in_line_has_more_patience_for_the_next_dial() -> None:
    """After a dial that was not answered in time, the next one has four times as long."""
    backoff = Backoff(Random(1))
    patience = []
    for failure in (LOST, IN_LINE, IN_LINE, REFUSED, IN_LINE):
        backoff.wait_s(failure)
        patience.append(backoff.patience)
    assert patience == [1, 4, 4, 1, 4]
    backoff.let_in(0)
    assert backoff.patience == 1


@pytest.mark.parametrize(
    ("asked_s", "longest_s"),
    [(1, 1 + 2), (20, 20 + 20), (600, 600 + 60)],  # spread over 2 s at least and 60 s at most
)
def test_engines_that_are_asked_to_stay_away_come_back_spread_out(
    asked_s: float, longest_s: float
) -> None:
    """They come no sooner than they were asked to, and spread over as long a time again."""
    failure = AggregatorUnreachable("busy", retry_after_s=asked_s)
    assert Backoff(Shortest()).wait_s(failure) == asked_s
    assert Backoff(Longest()).wait_s(failure) == longest_s


def test_turns_are_two_milliseconds_apart() -> None:
    """An engine alone has its turn at once; of many at the same time, each has its own turn."""
    turns = Turns()
    assert turns.take(5) == 5
    assert turns.take(6) == 6
    assert [turns.take(6) for _ in range(3)] == pytest.approx([6.002, 6.004, 6.006])
    assert turns.take(6.1) == 6.1
