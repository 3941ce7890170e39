"""What happens when a console closes, on any system. `tests/windows` lets Windows do it."""

import signal
import threading
from collections.abc import Iterator

import pytest

from trio_runner._cli import _console
from trio_runner._cli._console import CLOSED, LOGGED_OFF, SHUT_DOWN, on_event

CTRL_C, CTRL_BREAK = 0, 1


@pytest.fixture
def came(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[int]]:
    """Return the signals that have come; another signal stands for SIGBREAK here."""
    numbers: list[int] = []
    before = signal.signal(signal.SIGUSR1, lambda number, _: numbers.append(number))
    monkeypatch.setattr(signal, "SIGBREAK", signal.SIGUSR1, raising=False)
    monkeypatch.setattr(_console, "HELD_S", 0.5)
    yield numbers
    signal.signal(signal.SIGUSR1, before)


@pytest.mark.parametrize("event", [CLOSED, SHUT_DOWN])
def test_the_process_is_held_while_it_ends(event: int, came: list[int]) -> None:
    """Windows ends the process when the handler returns; by then it must have ended in order."""
    handled: list[bool] = []
    thread = threading.Thread(target=lambda: handled.append(on_event(event)))
    thread.start()
    while not came:
        thread.join(0.01)  # Python's handler of the signal runs here
    assert handled == []
    thread.join()
    assert handled == [True]


def test_a_log_off_of_any_user_is_ignored(came: list[int]) -> None:
    """C's own handler would end the engine, so it must not see this event."""
    assert on_event(LOGGED_OFF)
    assert came == []


@pytest.mark.parametrize("event", [CTRL_C, CTRL_BREAK])
def test_keys_of_the_console_are_left_to_python(event: int, came: list[int]) -> None:
    """Python makes signals of them."""
    assert not on_event(event)
    assert came == []
