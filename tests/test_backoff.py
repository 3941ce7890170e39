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
        # The first is what is left of a wait of up to 2 s; then min(10, 2**n) for n = 1, 2, 3, ...,
        # and 3/8 of it.
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


def test_the_longer_a_host_has_refused_the_longer_are_the_waits() -> None:
    """A fifteenth of the time away, from 2 s to 10 s."""
    backoff = Backoff(Longest())
    waits_s = [backoff.wait_s(REFUSED, away_s) for away_s in (0, 30, 45, 60, 150, 3600)]
    assert waits_s == [2, 2, 3, 4, 10, 10]


def test_a_reset_begins_anew() -> None:
    """When a link has served for a while the first wait is up to 2 s again."""
    backoff = Backoff(Longest())
    for _ in range(10):
        backoff.wait_s(LOST)
    backoff.reset()
    assert backoff.wait_s(LOST) == 2


def test_no_wait_ever_exceeds_open_pectus_bound() -> None:
    """MAX_RECONNECT_WAIT_SECONDS holds for every draw."""
    backoff = Backoff(Random(1))
    assert max(backoff.wait_s(LOST) for _ in range(10_000)) <= MAX_RECONNECT_WAIT_SECONDS


def test_the_first_wait_is_what_is_left_of_one_at_any_moment() -> None:
    """Drawn from its distribution: as often as a rhythm of waits of 0.75 to 2 s has it so.

    At the moments k * 0.01 s of one long rhythm, how long it is until the next dial.
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


def test_who_has_stood_in_line_comes_at_longer_intervals_next_time() -> None:
    """A dial that is let in late by half of the longest wait doubles it, up to 10 s.

    Each that is not takes a quarter from it: 10, 7.5, 5.625, ..., down to 2 s.
    """
    backoff = Backoff(Longest())
    backoff.let_in(0.1)

    def outage(took_s: float) -> float:
        wait_s = backoff.wait_s(LOST)
        backoff.let_in(took_s)
        backoff.reset()
        return wait_s

    assert [outage(1.2), outage(2.2), outage(4.2)] == [2, 4, 8]
    assert [outage(5) for _ in range(3)] == [10, 7.5, 10]  # 4.9 s late: under 5, over 3.75
    for _ in range(10):
        outage(0.1)
    assert outage(0.1) == 2


def test_the_first_dial_of_all_teaches_how_far_it_is_and_nothing_else() -> None:
    """3 s over a slow line is no sign of a crowd, neither at the start nor later."""
    backoff = Backoff(Longest())
    for _ in range(3):
        backoff.let_in(3)
        assert backoff.wait_s(LOST) == 2
        backoff.reset()


def test_who_stands_in_line_stays_longer_next_time() -> None:
    """Behind a dial that was not answered in time the next one has four times as long."""
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
    [(1, 1 + 2), (20, 20 + 20), (600, 600 + 60)],  # spread over 2 s at least, 60 s at most
)
def test_engines_that_are_asked_to_stay_away_come_back_spread_out(
    asked_s: float, longest_s: float
) -> None:
    """No sooner than asked for, and over as long a time again."""
    failure = AggregatorUnreachable("busy", retry_after_s=asked_s)
    assert Backoff(Shortest()).wait_s(failure) == asked_s
    assert Backoff(Longest()).wait_s(failure) == longest_s


def test_turns_are_two_milliseconds_apart() -> None:
    """One that nobody else wants is now; of many at once each gets its own."""
    turns = Turns()
    assert turns.take(5) == 5
    assert turns.take(6) == 6
    assert [turns.take(6) for _ in range(3)] == pytest.approx([6.002, 6.004, 6.006])
    assert turns.take(6.1) == 6.1
