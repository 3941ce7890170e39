"""The plot in braille characters."""

from trio_runner._cli._plot import Field, axis, plot, ticks

BLANK = "\u2800"


def test_an_empty_plot_is_blank() -> None:
    """Without points, all cells are blank."""
    assert plot(Field(3, 2, x_max=6, y_max=1), []) == [BLANK * 3] * 2


def test_the_corners_are_where_they_belong() -> None:
    """Time runs to the right, values run upwards, and what is outside lies at the edge."""
    field = Field(2, 1, x_max=4, y_max=1, gap_s=0)
    # 4 x 4 dots: 0 s is column 0 and 9 s is past the end; 0 is the lowest row and 5 is too high.
    assert plot(field, [(0, 0)]) == ["\u2840" + BLANK]
    assert plot(field, [(9, 5)]) == [BLANK + "\u2808"]


def test_near_points_are_joined_and_distant_ones_are_not() -> None:
    """A hole in the data is a hole in the line."""
    field = Field(4, 1, x_max=8, y_max=1, gap_s=3)
    assert plot(field, [(0, 0), (3, 0)]) == ["\u28c0\u28c0" + 2 * BLANK]
    assert plot(field, [(0, 0), (7, 0)]) == ["\u2840" + 2 * BLANK + "\u2880"]


def test_a_filled_hole_has_a_dot_in_each_column() -> None:
    """Samples that come later fill the hole."""
    field = Field(8, 1, x_max=8, y_max=1)
    before = [(0.5, 0.5), (1.5, 0.5), (6.5, 0.5), (7.5, 0.5)]
    after = [(number + 0.5, 0.5) for number in range(8)]
    assert [column for column in plot(field, before)[0] if column == BLANK] == [BLANK] * 4
    assert BLANK not in plot(field, after)[0]


def test_the_axis_marks_the_outage() -> None:
    """The outage is marked, with its label if there is room."""
    field = Field(20, 1, x_max=20, y_max=1)
    assert axis(field, None, "away") == "─" * 20
    assert axis(field, (4, 13), "away") == "────▒▒ away ▒▒──────"
    assert axis(field, (4, 6), "away") == "────▒▒▒─────────────"


def test_the_ticks_stand_below_their_times() -> None:
    """A time that does not fit at the end is left out."""
    assert ticks(Field(20, 1, x_max=20, y_max=1), 5) == "0 s  5    10   15   "
