"""A line plot in braille characters, each of which is a field of 2 x 4 dots."""

from collections.abc import Iterator, Sequence
from itertools import pairwise

from attrs import frozen

DOTS = ((0x01, 0x08), (0x02, 0x10), (0x04, 0x20), (0x40, 0x80))
"""The bit of each dot, by row and column, in a braille character."""

BLANK = 0x2800
"""The braille character without dots."""

Point = tuple[float, float]
"""A time (s) and a value."""


@frozen
class Field:
    """The range of a plot, 0 to `x_max` s and 0 to `y_max`, and its size in characters.

    Points further apart than `gap_s` are not joined, since nothing is known between them.
    """

    width: int
    height: int
    x_max: float
    y_max: float
    gap_s: float = 1.0

    def column(self, x: float) -> int:
        """Return a time's column; for a time outside, the column at the nearest end."""
        return min(max(int(x / self.x_max * self.width), 0), self.width - 1)

    def dot(self, point: Point) -> tuple[int, int]:
        """Return the column and row of a point's dot, counted from the top left."""
        columns, rows = 2 * self.width, 4 * self.height
        column = min(max(int(point[0] / self.x_max * columns), 0), columns - 1)
        row = min(max(int((1 - point[1] / self.y_max) * rows), 0), rows - 1)
        return column, row


def plot(field: Field, points: Sequence[Point]) -> list[str]:
    """Return the lines of the plot from the top, each as wide as the field."""
    cells = [[BLANK] * field.width for _ in range(field.height)]
    for column, row in _dots(field, points):
        cells[row // 4][column // 2] |= DOTS[row % 4][column % 2]
    return ["".join(map(chr, line)) for line in cells]


def _dots(field: Field, points: Sequence[Point]) -> Iterator[tuple[int, int]]:
    for point in points:
        yield field.dot(point)
    for before, after in pairwise(points):
        if 0 <= after[0] - before[0] <= field.gap_s:
            yield from _line(field.dot(before), field.dot(after))


def _line(start: tuple[int, int], end: tuple[int, int]) -> Iterator[tuple[int, int]]:
    across, down = end[0] - start[0], end[1] - start[1]
    steps = max(abs(across), abs(down), 1)
    for step in range(steps + 1):
        yield start[0] + round(across * step / steps), start[1] + round(down * step / steps)


def axis(field: Field, span: tuple[float, float] | None, label: str) -> str:
    """Return the line of the time axis, with the span between two times marked."""
    line = ["─"] * field.width
    if span is not None:
        first, last = field.column(span[0]), field.column(span[1])
        text = f" {label} " if len(label) + 4 <= last - first + 1 else ""
        line[first : last + 1] = text.center(last - first + 1, "▒")
    return "".join(line)


def ticks(field: Field, every_s: int) -> str:
    """Return the line of times below the axis."""
    line = [" "] * field.width
    for time_s in range(0, int(field.x_max) + 1, every_s):
        text = str(time_s) if time_s else "0 s"
        at = field.column(time_s)
        if at + len(text) <= field.width:
            line[at : at + len(text)] = text
    return "".join(line)
