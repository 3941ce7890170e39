"""The demo as a picture on a terminal, redrawn ten times a second."""

import sys
from math import ceil
from urllib.parse import unquote

import trio
from attrs import frozen
from rich.console import Console, Group, RenderableType
from rich.layout import Layout
from rich.live import Live
from rich.panel import Panel
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from trio_runner import RecoverState, Statistics
from trio_runner._cli._plot import Field, Point, axis, plot, ticks
from trio_runner._cli._story import HANDLING_S, PLOTTED, PLOTTED_UNIT, Backlog, Demo
from trio_runner._cli._summary import Outage, Summary, count

REDRAW_S = 0.1
X_MAX_S, Y_MAX = 24.0, 1.2
LABEL_WIDTH = 5
TOP_HEIGHT, OUTBOX_HEIGHT = 9, 4
CHANGES_SHOWN = 5

MEANING: dict[RecoverState, tuple[str, str]] = {
    "Started": ("yellow", "dials for the first time"),
    "Connected": ("green", "sends samples as they are taken"),
    "Failed": ("red", "the link is lost, or a dial failed"),
    "Disconnected": ("red", "waits, then dials again"),
    "Reconnecting": ("yellow", "has a link; introduces the engine"),
    "CatchingUp": ("yellow", "sends what has waited"),
    "Reconnected": ("green", "sends samples as they are taken"),
    "Stopped": ("yellow", "sends what is left and ends"),
    "ShutdownComplete": ("green", "has ended"),
}
"""The colour of each state, and what the runner does in it."""


@frozen
class Picture:
    """What there is to see at one moment; times are in seconds since the start."""

    now_s: float
    chapter: str
    chapter_ends_s: float | None
    address: str
    statistics: Statistics
    changes: list[tuple[float, RecoverState]]
    linked_s: float | None
    backlog: Backlog | None
    outage: Outage | None
    points: list[Point]


def picture(demo: Demo) -> Picture:
    """Return what there is to see of the demo now."""
    return Picture(
        now_s=demo.now_s,
        chapter=demo.chapter,
        chapter_ends_s=demo.chapter_ends_s,
        address=demo.address,
        statistics=demo.runner.statistics(),
        changes=demo.changes,
        linked_s=demo.linked_s,
        backlog=demo.backlog,
        outage=demo.outage,
        points=demo.points,
    )


def terminal() -> Console | None:
    """Return the terminal to draw on, or None if the output is not one that can show it."""
    if sys.stdout is None or not sys.stdout.isatty():
        return None
    console = Console()
    # An old Windows console has neither a second screen nor braille in its fonts.
    is_unable = console.is_dumb_terminal or console.legacy_windows
    is_able = not is_unable and console.encoding.startswith("utf")
    return console if is_able else None


async def show(demo: Demo, console: Console) -> None:
    """Play the demo and show it; leave the screen as it was."""
    with Live(console=console, screen=True, auto_refresh=False) as live:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(_redraw, demo, console, live)
            await demo.play()
            nursery.cancel_scope.cancel()


async def _redraw(demo: Demo, console: Console, live: Live) -> None:
    while True:
        live.update(frame(picture(demo), *console.size), refresh=True)
        await trio.sleep(REDRAW_S)


def conclude(demo: Demo, summary: Summary, console: Console) -> None:
    """Print the final plot and the summary."""
    seen = picture(demo)
    if seen.points:
        console.print(_plot_panel(seen, console.width, 10))
    verdict, *figures = summary.lines
    console.print(Text(verdict, "bold red" if summary.exit_code else "bold green"))
    for line in figures:
        console.print(Text(line))


def frame(seen: Picture, width: int, height: int) -> RenderableType:
    """Return the picture for a screen of this size; the plot takes the remaining height."""
    top = Layout(size=TOP_HEIGHT)
    half = width // 2
    top.split_row(
        Layout(_state_panel(seen), size=half), Layout(_link_panel(seen), size=width - half)
    )
    rest = max(height - 1 - TOP_HEIGHT - OUTBOX_HEIGHT, 4)
    whole = Layout()
    whole.split_column(
        Layout(_headline(seen), size=1),
        top,
        Layout(_outbox_panel(seen), size=OUTBOX_HEIGHT),
        Layout(_plot_panel(seen, width, rest), size=rest),
    )
    return whole


def _line(*parts: str | tuple[str, str]) -> Text:
    return Text.assemble(*parts, no_wrap=True, overflow="ellipsis")


def _panel(content: RenderableType, title: str) -> Panel:
    return Panel(content, title=title, title_align="left", border_style="dim")


def _headline(seen: Picture) -> Text:
    chapter = seen.chapter
    if seen.chapter_ends_s is not None:
        chapter += f" {max(0, ceil(seen.chapter_ends_s - seen.now_s))} s"
    return _line(("trio-runner demo", "bold"), f"  {seen.now_s:4.1f} s  ", (chapter, "italic"))


def _state_panel(seen: Picture) -> Panel:
    state = seen.statistics.state
    colour, meaning = MEANING[state]
    lines = [_line((state, f"bold {colour}")), _line(meaning)]
    for time_s, after in seen.changes[: -CHANGES_SHOWN - 1 : -1]:
        lines.append(_line((f"{time_s:6.1f} s  ", "dim"), (after, MEANING[after][0])))
    return _panel(Group(*lines), "State")


def _link_panel(seen: Picture) -> Panel:
    statistics = seen.statistics
    link = ("none", "red") if seen.linked_s is None else (f"since {seen.linked_s:.1f} s", "green")
    dials = f", {count(statistics.dials, 'dial')}"
    rows = [
        _line(("address  ", "dim"), seen.address),
        _line(("engine   ", "dim"), unquote(statistics.engine_id or "no id yet")),
        _line(("link     ", "dim"), link, dials),
    ]
    if statistics.last_failure is not None:
        is_past = seen.linked_s is not None
        rows.append(Text(f"last failure: {statistics.last_failure}", "dim" if is_past else "red"))
    return _panel(Group(*rows), "Link")


def _outbox_panel(seen: Picture) -> Panel:
    outbox = seen.statistics.outbox
    figures = _line(
        f"{outbox.waiting:4} waiting {outbox.bytes_waiting / 1000:7.1f} kB"
        f" {seen.statistics.unanswered:4} in flight {outbox.delivered:6} delivered"
    )
    return _panel(Group(figures, _progress(seen)), "Outbox")


def _progress(seen: Picture) -> RenderableType:
    backlog = seen.backlog
    if seen.outage is None:
        return _line((" Nothing waits.", "dim"))
    if seen.linked_s is None:
        return _line((" What happens is kept until the aggregator is back.", "dim"))
    if backlog is None:
        return _line((" What was kept is sent next.", "dim"))
    if backlog.ended_s is not None:
        each = f" (the stand-in takes {HANDLING_S * 1000:.0f} ms for each)"
        return _line((f" Caught up: {backlog}", "green"), (each, "dim"))
    outbox = seen.statistics.outbox
    done = outbox.delivered - backlog.delivered_before
    total = done + outbox.waiting
    grid = Table.grid(padding=(0, 1), expand=True)
    grid.add_column(width=12)
    grid.add_column(ratio=1)
    grid.add_column(width=10, justify="right")
    grid.add_row(" catching up", ProgressBar(total=total, completed=done), f"{done} of {total}")
    return grid


def _plot_panel(seen: Picture, width: int, height: int) -> Panel:
    field = Field(max(width - 5 - LABEL_WIDTH, 1), max(height - 4, 1), X_MAX_S, Y_MAX)
    outage = seen.outage
    span = None if outage is None else (outage.began_s, outage.ended_s or seen.now_s)
    labels = {0: f"{Y_MAX:.1f}", field.height // 2: f"{Y_MAX / 2:.1f}"}
    lines = []
    for row, dots in enumerate(plot(field, seen.points)):
        line = Text(f"{labels.get(row, ''):>{LABEL_WIDTH - 1}} │", "dim", no_wrap=True)
        lines.append(line.append_text(_shaded(dots, field, span)))
    lines.append(Text(f"{'0':>{LABEL_WIDTH - 1}} └" + axis(field, span, "away"), "dim"))
    lines.append(Text(" " * (LABEL_WIDTH + 1) + ticks(field, 4), "dim"))
    return _panel(Group(*lines), f"{PLOTTED} ({PLOTTED_UNIT}), as the aggregator holds it")


def _shaded(dots: str, field: Field, span: tuple[float, float] | None) -> Text:
    """Return a line of the plot, with the time of the outage in another colour."""
    text = Text(dots, "not dim cyan")
    if span is not None:
        text.stylize("yellow on grey19", field.column(span[0]), field.column(span[1]) + 1)
    return text
