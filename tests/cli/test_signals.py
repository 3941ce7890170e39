"""What the signals do that ask a command to end."""

import signal
from collections.abc import Iterator

import pytest
import trio
from trio.testing import MockClock

from trio_runner._cli import _signals
from trio_runner._cli._signals import SAME_S, stop_on_signal


@pytest.fixture
def ended() -> list[signal.Signals]:
    """Return the signals that would have ended the process."""
    return []


@pytest.fixture(autouse=True)
def _handled(ended: list[signal.Signals]) -> Iterator[None]:
    """Note a signal that nobody else takes, instead of letting it end the tests."""
    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)
    before = {number: signal.getsignal(number) for number in numbers}
    for number in numbers:
        signal.signal(number, lambda came, _: ended.append(signal.Signals(came)))
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


def test_ctrl_break_is_one_of_the_signals_if_the_system_has_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Windows asks with SIGBREAK, and besides Ctrl-C has only that."""
    assert _signals.signals() == [signal.SIGINT, signal.SIGTERM]
    monkeypatch.setattr(signal, "SIGBREAK", signal.SIGUSR1, raising=False)
    assert _signals.signals() == [signal.SIGINT, signal.SIGTERM, signal.SIGUSR1]


async def test_ctrl_break_stops_the_command(
    monkeypatch: pytest.MonkeyPatch, ended: list[signal.Signals], autojump_clock: MockClock
) -> None:
    """It stops in order, as with SIGTERM."""
    monkeypatch.setattr(signal, "SIGBREAK", signal.SIGUSR1, raising=False)
    stopping = trio.Event()
    async with trio.open_nursery() as nursery:
        await nursery.start(stop_on_signal, stopping.set)
        signal.raise_signal(signal.SIGUSR1)
        await stopping.wait()
    assert ended == []


async def test_a_second_signal_within_a_second_counts_as_the_first(
    ended: list[signal.Signals], autojump_clock: MockClock
) -> None:
    """`timeout` signals the process and then its group. After that second it ends at once."""
    stops: list[float] = []
    async with trio.open_nursery() as nursery:
        await nursery.start(stop_on_signal, lambda: stops.append(trio.current_time()))
        began = trio.current_time()
        signal.raise_signal(signal.SIGTERM)
        await trio.sleep(SAME_S * 0.9)
        signal.raise_signal(signal.SIGTERM)
        signal.raise_signal(signal.SIGINT)
        await trio.sleep(SAME_S * 0.2)
        assert (stops, ended) == ([began], [])
        signal.raise_signal(signal.SIGTERM)
    assert (stops, ended) == ([began], [signal.SIGTERM])


async def test_the_reason_for_the_end_is_logged(
    caplog: pytest.LogCaptureFixture, autojump_clock: MockClock
) -> None:
    """The log says which signal came, and what another one would do."""
    caplog.set_level("INFO", "trio_runner")
    async with trio.open_nursery() as nursery:
        await nursery.start(stop_on_signal, nursery.cancel_scope.cancel)
        signal.raise_signal(signal.SIGTERM)
    assert caplog.messages == [
        "Stopping, because of SIGTERM. To end at once, send it again after 1 s"
    ]
