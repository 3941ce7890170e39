"""Single rules of the oracle: the rate of samples, the shares of path and thread, what is told."""

import pytest
import trio

from trio_runner.simulation.trials._rate import Rate
from trio_runner.simulation.trials._share import StatesShare
from trio_runner.simulation.trials._thread import RunLogTimes
from trio_runner.simulation.trials._told import Told

UNTOLD = "nobody was told that messages are set aside"


class Expected:
    """A stand-in for the oracle's `expect` that keeps the first broken rule, as the oracle does."""

    violation: str | None = None

    def __call__(self, holds: object, what: str) -> None:
        """Note a violation unless `holds` is true."""
        if not holds and self.violation is None:
            self.violation = what


@pytest.mark.parametrize(
    ("apart_s", "wide_since", "moves", "violation"),
    [
        pytest.param(0.4, 0, False, None, id="at the steady rate"),
        pytest.param(0.7, 0, False, "two samples were taken 0.70 s apart on a wide line", id="few"),
        # 20 s of samples, of which at most the last 15 s count as settled.
        pytest.param(0.7, 6, False, None, id="not wide for long"),
        pytest.param(0.7, 0, True, None, id="on the move"),
    ],
)
async def test_on_a_wide_path_samples_come_at_the_steady_rate(
    apart_s: float, wide_since: int, moves: bool, violation: str | None, mock_clock: trio.abc.Clock
) -> None:
    """They come every 0.3 s and a tick, once bandwidth and distance have been steady for 15 s."""
    expected = Expected()
    rate, made_at = Rate(expected, steady_s=0.3), 0.0
    for second in range(20):
        while made_at <= trio.current_time():
            rate.receive(made_at)
            made_at += apart_s
        latency_s = second / 100 if moves else 0.1
        rate.check_second(is_wide=second >= wide_since, latency_s=latency_s, jitter_s=0.0)
        mock_clock.jump(1)  # type: ignore[attr-defined]
    assert expected.violation == violation


@pytest.mark.parametrize(
    ("took_s", "rest_s", "violation"),
    [
        # 2.1 s every 10 s: 3 answers in 30 s, of which 2 count, each without 0.1 s on the way.
        pytest.param(2.1, 7.9, None, id="modest"),
        # A single one that takes 26 s does not count: it could not have waited for anything.
        pytest.param(26.0, 5.0, None, id="large"),
        # 2.1 s every 3 s: after the 7th answer, at 20.1 s, 6 * 2 s count, which are 12 s of the
        # 12 s allowed; after the 8th it is 14 s.
        pytest.param(2.1, 0.9, "RunLogMsg took the line for 14.0 s of 30 s", id="greedy"),
    ],
)
async def test_states_leave_most_of_the_path_to_samples(
    took_s: float, rest_s: float, violation: str | None, mock_clock: trio.abc.Clock
) -> None:
    """State messages of one kind take at most two fifths of the time."""
    expected = Expected()
    share, answered_at = StatesShare(expected), took_s
    for _ in range(60):
        while answered_at <= trio.current_time():
            share.answer("RunLogMsg", took_s)
            answered_at += rest_s + took_s
        share.check_second(is_quiet=True, way_s=0.1)
        mock_clock.jump(1)  # type: ignore[attr-defined]
    assert expected.violation == violation


@pytest.mark.parametrize(
    ("cost_s", "wait_s", "new_run", "violation"),
    [
        pytest.param(0.3, 3.0, False, None, id="a tenth"),
        pytest.param(0.3, 2.9, False, "run logs take more than 10% of Trio's time", id="more"),
        pytest.param(0.3, 0.0, True, None, id="of another run"),
        pytest.param(0.0, 60.0, False, None, id="seldom"),
        pytest.param(0.0, 60.1, False, "no run log was made for 60.1 s", id="too seldom"),
        pytest.param(0.0, 60.1, True, None, id="no run"),
    ],
)
async def test_run_logs_take_a_tenth_of_the_time_at_most(
    cost_s: float, wait_s: float, new_run: bool, violation: str | None, mock_clock: trio.abc.Clock
) -> None:
    """The time is that between the starts of two; the first of a new run may come at once."""
    expected, began = Expected(), trio.current_time()
    times = RunLogTimes(expected)
    times.make(cost_s)
    assert trio.current_time() == pytest.approx(began + cost_s)
    mock_clock.jump(wait_s - cost_s if wait_s else 0)  # type: ignore[attr-defined]
    if new_run:
        times.change_run(ends=False)
    times.make(cost_s)
    assert expected.violation == violation


@pytest.mark.parametrize(
    ("told_after_s", "text", "violation"),
    [
        pytest.param(7, "The aggregator does not take x, it is set aside: no", None, id="told"),
        pytest.param(10, "it is set aside", UNTOLD, id="late"),
        pytest.param(7, "all is well", UNTOLD, id="other"),
    ],
)
async def test_people_are_told_of_what_is_given_up(
    told_after_s: int, text: str, violation: str | None, mock_clock: trio.abc.Clock
) -> None:
    """They are told within 8 s of the first message that is given up, in words that say how."""
    expected = Expected()
    told = Told(expected)
    told.give_up("set aside")
    for second in range(20):
        if second == told_after_s:
            told.log(text)
        told.give_up("set aside")  # nobody has to be told of the later ones
        told.check_second()
        mock_clock.jump(1)  # type: ignore[attr-defined]
    assert expected.violation == violation
