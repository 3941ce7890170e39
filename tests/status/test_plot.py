"""The small plots."""

import re

from trio_runner.status._plot import HEIGHT, WIDTH, plot


def points(svg: str) -> list[tuple[str, float, float]]:
    """Return the command, x and y of each stroke that has both."""
    found = re.findall(r"([ML])([\d.]+) ([\d.]+)", svg)
    return [(command, float(x), float(y)) for command, x, y in found]


def test_the_newest_value_is_at_the_right_edge_and_the_greatest_at_the_top() -> None:
    """Three values of a possible 120: x ends at 120; 0 is at the bottom (30), 8 at the top (0)."""
    assert points(plot([0, 4, 8], WIDTH, "one")) == [
        ("M", 117, 30.0),
        ("L", 119, 15.0),
        ("L", 120, 0.0),
    ]


def test_no_peak_is_lost_where_points_are_merged() -> None:
    """360 points for a width of 120 are merged by threes, counted from the newest."""
    values = [0.0] * 360
    values[100] = 5.0
    heights = [y for _, _, y in points(plot(values, 360, "one"))]
    assert len(heights) == WIDTH
    assert heights.count(0.0) == 1
    assert heights.count(HEIGHT) == WIDTH - 1


def test_a_missing_value_leaves_a_gap() -> None:
    """The line goes on after the gap."""
    svg = plot([1, None, None, 1, 1], WIDTH, "two")
    assert [command for command, _, _ in points(svg)] == ["M", "M", "L"]


def test_nothing_is_drawn_without_values() -> None:
    """There is neither a division by zero nor a stroke."""
    assert 'd=""' in plot([], WIDTH, "one")
    assert 'd=""' in plot([None], WIDTH, "one")
    assert points(plot([0, 0], WIDTH, "one"))[0][2] == HEIGHT
