"""The picture on a terminal."""

import io

import pytest
from attrs import evolve
from rich.cells import cell_len
from rich.console import Console

from trio_runner import MemoryOutbox, Statistics
from trio_runner._cli._story import Backlog
from trio_runner._cli._summary import Outage
from trio_runner._cli._view import Picture, frame, terminal
from trio_runner._histogram import Durations

CATCHING_UP = Picture(
    now_s=13.2,
    chapter="Catching up",
    chapter_ends_s=None,
    address="http://127.0.0.1:54321",
    statistics=Statistics(
        unit="Filtration Skid",
        state="CatchingUp",
        state_for_s=0.7,
        away_for_s=9.0,
        engine_id="host_Filtration%20Skid",
        run_id="1",
        dials=11,
        links=2,
        failures={"LinkLost": 1, "AggregatorUnreachable": 9},
        bytes_sent=12_345,
        answer_s=Durations().histogram(),
        sample_lag_s=Durations().histogram(),
        unanswered=16,
        last_failure="Nothing answers at http://127.0.0.1:54321: connection refused."
        " Is the aggregator running there?",
        outbox=evolve(MemoryOutbox().statistics(), delivered=42, waiting=21, bytes_waiting=17500),
    ),
    changes=[(0.1, "Connected"), (4.2, "Failed"), (12.4, "Reconnecting"), (12.5, "CatchingUp")],
    linked_s=12.4,
    backlog=Backlog(delivered_before=18, began_s=12.5),
    outage=Outage(4.2, 12.2, 12.4),
    points=[(0.5, 0.1), (1.0, 0.2), (4.0, 0.4)],
)


def render(picture: Picture, width: int, height: int) -> list[str]:
    console = Console(
        file=io.StringIO(), width=width, height=height, force_terminal=True, color_system=None
    )
    with console.capture() as capture:
        console.print(frame(picture, width, height))
    return capture.get().splitlines()


@pytest.mark.parametrize(("width", "height"), [(80, 24), (120, 40)])
def test_the_picture_fits_the_screen_and_cuts_no_word(width: int, height: int) -> None:
    """No line is wider than the screen, and nothing ends in an ellipsis."""
    lines = render(CATCHING_UP, width, height)
    assert len(lines) == height
    assert max(map(cell_len, lines)) == width
    assert [line for line in lines if "…" in line] == []
    assert lines[0].startswith("trio-runner demo  13.2 s  Catching up")
    assert any("there?" in line for line in lines)


def test_the_progress_is_the_share_that_is_delivered() -> None:
    """Of 42 delivered, 18 were so before, which leaves 24; 21 wait: 24 of 45."""
    assert any("24 of 45" in line for line in render(CATCHING_UP, 80, 24))


@pytest.mark.parametrize(("width", "height"), [(40, 12), (20, 5)])
def test_a_small_screen_is_no_error(width: int, height: int) -> None:
    """A terminal that is too small shows as much as fits."""
    assert max(map(cell_len, render(CATCHING_UP, width, height))) <= width


def test_the_countdown_ends_at_zero() -> None:
    """4.3 s that are left are shown as 5 s, and the time left is never negative."""
    soon = evolve(CATCHING_UP, chapter="It ends in", chapter_ends_s=17.5)
    assert render(soon, 80, 24)[0].rstrip().endswith("It ends in 5 s")
    over = evolve(soon, chapter_ends_s=13.0)
    assert render(over, 80, 24)[0].rstrip().endswith("It ends in 0 s")


@pytest.mark.parametrize(
    ("encoding", "legacy", "term", "shows"),
    [
        ("utf-8", False, "xterm", True),
        ("utf-8", True, "xterm", False),
        ("cp850", False, "xterm", False),
        ("utf-8", False, "dumb", False),
    ],
)
def test_the_picture_is_drawn_only_on_consoles_that_can_show_it(
    encoding: str, legacy: bool, term: str, shows: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An old console of Windows, one without Braille and a dumb one get lines instead."""

    class Screen(io.TextIOWrapper):
        def isatty(self) -> bool:
            return True

    monkeypatch.setattr("sys.stdout", Screen(io.BytesIO(), encoding))
    monkeypatch.setenv("TERM", term)
    monkeypatch.setattr("rich.console.detect_legacy_windows", lambda: legacy)
    assert (terminal() is not None) == shows
