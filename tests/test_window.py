"""The window of unanswered samples: how it follows the aggregator's distance and speed."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trio_runner._window import LINE_S, WINDOW_MAX, Window


def settle(
    distance_s: float, handling_s: float, answers: int, window: Window | None = None
) -> Window:
    """Answer samples as an aggregator of this distance and speed; the window is always full."""
    window = window or Window()
    free_s = 0.0  # when the aggregator is done with what it has
    sent: list[tuple[float, float, int]] = []  # when sent, when answered, beside how many
    now_s = 0.0
    for _ in range(answers):
        while len(sent) < window.limit:
            window.sent()
            free_s = max(free_s, now_s + distance_s / 2) + handling_s
            sent.append((now_s, free_s + distance_s / 2, len(sent) + 1))
        began_s, now_s, unanswered = sent.pop(0)
        window.freed()
        window.answered(now_s, now_s - began_s, unanswered)
    return window


@pytest.mark.parametrize(
    ("handling_s", "limit"),
    # One is under way and the others wait: (limit - 1) * handling_s is at most 0.2 s.
    [(0.05, 5), (0.02, 11), (0.1, 3), (1.0, 1)],
)
@pytest.mark.parametrize("distance_s", [0.0, 0.05, 0.2])
def test_the_work_in_line_stays_under_a_quarter_of_a_second(
    distance_s: float, handling_s: float, limit: int
) -> None:
    """At any distance, a slow aggregator has no more of our work than 0.2 s and one message."""
    window = settle(distance_s, handling_s, 400)
    at_once = round(distance_s / handling_s)  # this many are on the way without waiting
    assert max(1, limit // 2) <= window.limit <= limit + at_once + 1


@pytest.mark.parametrize(("distance_s", "handling_s"), [(0.2, 0.01), (2.0, 0.01), (2.0, 0.001)])
def test_a_window_that_ran_empty_is_not_filled_at_once(
    distance_s: float, handling_s: float
) -> None:
    """What would be on the way both ways must not stand at the aggregator together."""
    window = settle(distance_s, handling_s, 3000)
    start_s = now_s = free_s = 10_000.0
    queued_s, sent, full_s = [0.0], list[tuple[float, float, int]](), math.inf
    while now_s < start_s + 2 * distance_s + 1:
        while len(sent) < window.limit and window.due_at(now_s) <= now_s:
            window.sent()
            arrives_s = now_s + distance_s / 2
            queued_s.append(max(free_s - arrives_s, 0))
            free_s = max(free_s, arrives_s) + handling_s
            sent.append((now_s, free_s + distance_s / 2, len(sent) + 1))
        if len(sent) == window.limit:
            full_s = min(full_s, now_s - start_s)
        due_s = window.due_at(now_s) if len(sent) < window.limit else math.inf
        if due_s < sent[0][1]:
            now_s = due_s
        else:
            began_s, now_s, unanswered = sent.pop(0)
            window.freed()
            window.answered(now_s, now_s - began_s, unanswered)
    assert max(queued_s) <= 0.25
    # The first answer comes after the distance and the work that was sent at once.
    assert full_s <= distance_s + LINE_S


def test_the_window_grows_to_bridge_the_distance() -> None:
    """At 200 ms and 1,000 messages a second the window doubles each round trip, up to its bound."""
    # 1 + 2 + 4 + ... + 128 = 255 answers take 8 round trips; a few passed before the first growth.
    assert settle(0.2, 0.0001, 265).limit == WINDOW_MAX


def test_an_aggregator_that_slows_down_gets_less() -> None:
    """A line that is short at 1 ms a message is far too long at 100 ms: the window shrinks."""
    window = settle(0.0, 0.001, 500)
    assert window.limit > 100
    settle(0.0, 0.1, 300, window)
    assert window.limit <= LINE_S / 0.1 + 2


def test_a_sample_beside_a_state_does_not_measure_the_distance() -> None:
    """It stands in line: at a distance of 0.27 s each took 0.52 s, and the window stays closed."""
    window = Window()
    window.answered(0.0, 0.27, 1)
    for number in range(10):
        window.answered(number, 0.52, 2)
    assert window.distance_s == 0.27
    assert window.in_line_s == pytest.approx(0.25)


def grown(limit: int, distance_s: float = 0.25) -> Window:
    """Return a window of this size over this distance, measured at 0 s."""
    window = Window()
    for number in range(1, limit):
        window.answered(0.0, distance_s, number)
    assert (window.limit, window.distance_s) == (limit, distance_s)
    return window


def test_a_window_grows_by_one_an_answer_and_where_something_queues_by_one_a_window() -> None:
    """Under 0.05 s in the queue each answer adds 1, above that 1 / size, up to room for one more.

    From 4 on these are 4.25, 4.49, 4.71, 4.92 and 5.12. The work of 5.12 may be 0.2 s * 5.12 / 6.12
    = 0.167 s long.
    """
    window = grown(4)
    for limit in (4, 4, 4, 4, 5):
        window.answered(1.0, 0.25 + 0.125, 4)
        assert window.limit == limit
    for _ in range(20):
        window.answered(1.0, 0.25 + 0.168, 5)
    assert window.limit == 5
    for limit in (5, 5, 5, 5, 6):  # 5.32, 5.51, 5.69, 5.86, 6.03
        window.answered(1.0, 0.25 + 0.166, 5)
        assert window.limit == limit
    window.answered(1.0, 0.25 + 0.045, 5)
    assert window.limit == 7


def test_at_its_bounds_a_queue_lets_the_window_grow_by_one_a_window() -> None:
    """A quarter of 0.2 s is no longer hardly anything; and exactly room for one more is room.

    Without distance the window is 2 after the first answer, then 2.5, 2.9 and 3.24.
    """
    window = grown(4, distance_s=0.0)
    window.answered(1.0, LINE_S / 4, 4)
    assert window.limit == 4
    window, size = grown(2, distance_s=0.0), 2.0
    for limit in (2, 2, 3):
        window.answered(1.0, LINE_S * size / (size + 1), 2)
        size += 1 / size
        assert window.limit == limit


def test_a_window_that_is_not_made_use_of_does_not_grow() -> None:
    """It grows if more than half of it was unanswered."""
    window = grown(4)
    window.answered(1.0, 0.25, 2)
    assert window.limit == 4
    window.answered(1.0, 0.25, 3)
    assert window.limit == 5


def test_when_the_last_four_were_late_the_window_falls_to_what_would_have_been_right() -> None:
    """8 in 0.75 s should have taken the distance and 0.2 s: 8 * 0.45 / 0.75 = 4.8."""
    window = grown(8)
    for _ in range(3):
        window.answered(5.0, 0.75, 8)
        assert window.limit == 8
    window.answered(5.0, 0.75, 8)
    assert (window.limit, window.in_line_s) == (4, 0.0)
    # Of two that are unanswered two tell: 2 * 0.45 / 1 = 0.9, and one is always let out.
    window.answered(5.0, 1.0, 2)
    assert window.limit == 4
    window.answered(5.0, 1.0, 2)
    assert window.limit == 1


def test_a_quarter_second_in_the_queue_is_not_late_yet() -> None:
    """Late is what took longer than the distance and 0.25 s."""
    window = grown(8)
    for _ in range(10):
        window.answered(1.0, 0.5, 8)
    assert (window.limit, window.in_line_s) == (8, 0.25)


def test_the_window_closes_until_one_message_tells_the_new_distance() -> None:
    """All were late, and for over 5 s none has been alone: the path may have become longer."""
    window = grown(8)
    for _ in range(4):
        window.answered(5.1, 0.75, 8)
    assert window.limit == 1
    window.answered(5.2, 0.75, 8)  # one that was under way tells nothing
    assert (window.limit, window.distance_s) == (1, 0.25)
    window.answered(6.0, 0.7, 1)
    assert (window.limit, window.distance_s, window.in_line_s) == (8, 0.7, 0.0)
    for _ in range(4):
        window.answered(11.0, 1.2, 8)
    assert window.limit == 6  # measured 5 s ago: 8 * (0.7 + 0.2) / 1.2


def test_the_distance_is_that_of_the_fastest_of_the_last_three_that_were_alone() -> None:
    """A path that has become longer is known as such after three messages."""
    window, distances_s = Window(), []
    for took_s in (0.5, 0.25, 0.5, 0.5, 0.5):
        window.answered(0.0, took_s, 1)
        distances_s.append(window.distance_s)
    assert distances_s == [0.5, 0.25, 0.25, 0.25, 0.5]


def leave(window: Window, now_s: float) -> int:
    """Let all messages leave that the pace allows at an instant; return how many those are."""
    count = 0
    while window.due_at(now_s) <= now_s:
        window.sent()
        count += 1
    return count


def test_messages_leave_at_the_pace_at_which_the_aggregator_works() -> None:
    """Those of 0.2 s leave at once; then one leaves in the time in which one is worked on.

    With 8 messages over 0.25 s that is (0.25 + 0.2) / 8 = 0.05625 s, and 0.2 / 0.05625 = 3.56
    leave at once. After those the fourth lacks 0.44 of that time, which is 0.025 s.
    """
    window = grown(8)
    assert leave(window, 100.0) == 3
    assert window.due_at(100.0) == pytest.approx(100.025)
    assert leave(window, 100.03) == 1
    assert window.due_at(100.03) == pytest.approx(100.025 + 0.05625)
    assert leave(window, 200.0) == 3


def test_two_messages_may_leave_at_once_however_slow_the_aggregator_is() -> None:
    """With 2 messages over 0.25 s, one is 0.45 / 2 = 0.225 s of work, more than the 0.2 s."""
    window = grown(2)
    assert leave(window, 100.0) == 2
    assert window.due_at(100.0) == pytest.approx(100.225)


def test_each_answer_lets_one_message_leave_and_two_while_the_window_grows() -> None:
    """Four of four have left. After three quick answers the window is 7, and six may leave."""
    window = grown(4, distance_s=0.0)
    assert leave(window, 1.0) == 4
    for took_s, leaves in ((0.0, 6), (LINE_S, 3)):
        for _ in range(3):
            window.freed()
            window.answered(1.0, took_s, 4)
        assert (window.limit, leave(window, 1.0)) == (7, leaves)


@given(
    steps=st.lists(
        st.tuples(
            st.sampled_from(("sample", "state", "answer")), st.floats(0, 20, allow_subnormal=False)
        ),
        max_size=60,
    )
)
def test_if_nothing_is_unanswered_the_next_message_may_leave_at_once(
    steps: list[tuple[str, float]],
) -> None:
    """Whatever the answer times were, the pace never holds up a link on which nothing comes back.

    A link on which something is unanswered ends when its answer is too late.
    """
    window, now_s = Window(), 1000.0
    sent: list[tuple[str, float, int]] = []
    for what, later_s in steps:
        now_s += later_s
        if what == "answer":
            if sent:
                answer(window, now_s, sent.pop(0))
        elif len(sent) < window.limit and window.due_at(now_s) <= now_s:
            window.sent()
            sent.append((what, now_s, len(sent) + 1))
    while sent:
        answer(window, now_s, sent.pop(0))
    assert window.due_at(now_s) <= now_s


def answer(window: Window, now_s: float, sent: tuple[str, float, int]) -> None:
    """Let a message be answered."""
    what, began_s, unanswered = sent
    window.freed()
    if what == "sample":
        window.answered(now_s, now_s - began_s, unanswered)
