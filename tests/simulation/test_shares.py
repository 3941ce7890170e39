"""Single rules of the oracle: rates, shares of link and thread, bounds, and what people hear."""

import pytest
import trio

from trio_runner._outbox._shrinking import LEFT_OUT
from trio_runner.protocol import dumps
from trio_runner.simulation.trials._error_logs import ErrorLogs
from trio_runner.simulation.trials._held_up import HeldUp
from trio_runner.simulation.trials._rate import Rate
from trio_runner.simulation.trials._share import StatesShare
from trio_runner.simulation.trials._state_changes import StateChanges
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
        pytest.param(0.7, 0, False, "two samples were taken 0.70 s apart on a wide path", id="few"),
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


GAP = "two samples were taken 1.30 s apart on a wide path"


@pytest.mark.parametrize(
    ("before_s", "gaps_at", "violation"),
    [
        pytest.param(0.4, (30,), None, id="once"),
        pytest.param(0.4, (30, 50), GAP, id="twice"),
        # All answers are late at once, or none is.
        pytest.param(0.1, (30,), GAP, id="much longer"),
        pytest.param(0.5, (30,), GAP, id="no longer"),
    ],
)
async def test_a_distance_that_jitter_has_hidden_may_be_measured_once(
    before_s: float, gaps_at: tuple[int, ...], violation: str | None, mock_clock: trio.abc.Clock
) -> None:
    """A way of 0.4 to 0.45 s is 0.5 to 0.55 s then: answers are 0.1 to 0.3 s later.

    The measurement costs the samples of a round trip: the gap may be 0.45 + 2 * 0.55 s long.
    """
    expected = Expected()
    rate, made_at = Rate(expected, steady_s=0.3), 0.0
    for second in range(60):
        while made_at <= trio.current_time():
            rate.receive(made_at)
            made_at += 0.3
        if second in gaps_at:
            made_at += 1.0
        latency_s = before_s if second < 5 else 0.5
        rate.check_second(is_wide=True, latency_s=latency_s, jitter_s=0.05)
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
        pytest.param(7, "The aggregator does not take x, so it is set aside: no", None, id="told"),
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
    told.await_word("messages are set aside")
    for second in range(20):
        if second == told_after_s:
            told.log(text)
        told.await_word("messages are set aside")  # nobody has to be told of the later ones
        told.check_second()
        mock_clock.jump(1)  # type: ignore[attr-defined]
    assert expected.violation == violation


@pytest.mark.parametrize(
    ("away_s", "is_told"), [(599.0, False), (601.0, True)], ids=["shorter", "ten minutes"]
)
async def test_people_are_told_of_an_outage_of_ten_minutes(
    away_s: float, is_told: bool, mock_clock: trio.abc.Clock
) -> None:
    """It begins with the end of the steady state, and ends with the next one."""
    expected = Expected()
    states = StateChanges(expected)
    states.begin_life()
    mock_clock.jump(1000)  # type: ignore[attr-defined]
    assert not states.change("Started", "Connected")
    mock_clock.jump(1000)  # type: ignore[attr-defined]
    assert not states.change("Connected", "Failed")
    assert not states.change("Failed", "Disconnected")
    mock_clock.jump(away_s)  # type: ignore[attr-defined]
    assert not states.change("Disconnected", "Reconnecting")
    assert not states.change("Reconnecting", "CatchingUp")
    assert states.change("CatchingUp", "Reconnected") == is_told
    assert expected.violation is None


@pytest.mark.parametrize(
    ("waits", "violation"),
    [
        pytest.param("aaaaaa", None, id="5 s"),
        pytest.param("aaaaaaa", "('a', '') waits for notices that have failed 3 times", id="6 s"),
        pytest.param("aaaabbbb", None, id="another"),
        pytest.param("aaaa aaaa", None, id="not always"),
    ],
)
async def test_a_notice_that_fails_again_and_again_holds_up_no_run(
    waits: str, violation: str | None, mock_clock: trio.abc.Clock
) -> None:
    """Where answers take no time, a run event has 5 s from when nothing else is in front of it."""
    expected = Expected()
    held_up = HeldUp(expected)
    for key in waits:
        held_up.check_second((key, "") if key.strip() else None, 0.0)
        mock_clock.jump(1)  # type: ignore[attr-defined]
    assert expected.violation == violation


@pytest.mark.parametrize(
    ("kept", "said", "violation"),
    [
        pytest.param([*range(500), *range(700, 1200)], 200, None, id="halves"),
        pytest.param(
            [*range(400), *range(600, 1200)],
            200,
            "of an error log (400, 600) entries were kept",
            id="not halves",
        ),
        pytest.param(
            [*range(500), *range(700, 1200)],
            199,
            "199 entries are said to be left out, 200 are",
            id="miscounted",
        ),
        pytest.param([*range(1200)], 0, "an error log of 1200 entries was sent", id="all"),
        pytest.param([*range(1000)], 0, None, id="not too many"),
    ],
)
def test_of_many_errors_the_first_and_the_last_are_sent(
    kept: list[int], said: int, violation: str | None
) -> None:
    """500 of each, with the number of those between them."""
    expected = Expected()
    made = [("errors", str(number)) for number in range(1200)]
    logs = ErrorLogs(expected, made, {}, {key: place for place, key in enumerate(made)})
    keys = [made[number] for number in kept]
    lines = [text for _, text in keys]
    if said:
        middle = next(place for place, number in enumerate(kept) if number != place)
        lines.insert(middle, LEFT_OUT.format(said))
    body = dumps({"log": {"entries": [{"message": line} for line in lines]}})
    left_out = logs.left_out(keys, body)
    assert expected.violation == violation
    assert violation or len(left_out) == said
