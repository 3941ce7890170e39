"""A small plot of the last hour, as SVG in the page."""

from collections.abc import Iterator, Sequence

WIDTH, HEIGHT = 120, 30
"""The plot's size in its own units; the page stretches it. A unit of width is half a minute."""


def plot(values: Sequence[float | None], full: int, kind: str) -> str:
    """Return the SVG of values at equal distances, with the newest at the right edge.

    `full` values fill the width. A value of None makes a gap in the line.
    """
    top = max((value for value in values if value is not None), default=0) or 1
    path = "".join(_strokes(_merged(values, full), top))
    return (
        f'<svg viewBox="0 -1 {WIDTH} {HEIGHT + 2}" preserveAspectRatio="none" aria-hidden="true">'
        f'<path class="{kind}" d="{path}"/></svg>'
    )


def _merged(values: Sequence[float | None], full: int) -> list[float | None]:
    """Return at most `WIDTH` values: the largest of each group, so that no peak is lost."""
    each = max(1, full // WIDTH)
    groups = [values[max(0, end - each) : end] for end in range(len(values), 0, -each)]
    return [max((v for v in group if v is not None), default=None) for group in groups[::-1]]


def _strokes(values: Sequence[float | None], top: float) -> Iterator[str]:
    """Yield the commands of the path; a lone value becomes a short stroke."""
    before: float | None = None
    for x, value in enumerate(values, start=WIDTH - len(values)):
        if value is not None:
            y = f"{HEIGHT * (1 - value / top):.1f}"
            yield f"L{x + 1} {y}" if before is not None else f"M{x} {y}H{x + 1}"
        before = value
