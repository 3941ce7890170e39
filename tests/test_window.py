"""The window of unanswered samples: how it follows the aggregator's distance and speed."""

import pytest

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
            free_s = max(free_s, now_s + distance_s / 2) + handling_s
            sent.append((now_s, free_s + distance_s / 2, len(sent) + 1))
        began_s, now_s, unanswered = sent.pop(0)
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
