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
    """Return what has come to those who would be ended by it."""
    return []


@pytest.fixture(autouse=True)
def _handled(ended: list[signal.Signals]) -> Iterator[None]:
    """Note a signal that nobody else takes, instead of ending the tests."""
    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)
    before = {number: signal.getsignal(number) for number in numbers}
    for number in numbers:
        signal.signal(number, lambda came, _: ended.append(signal.Signals(came)))
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


def test_ctrl_break_is_one_of_them_where_there_is_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """SIGBREAK is how Windows asks; it has that alone besides Ctrl-C."""
    assert _signals.signals() == [signal.SIGINT, signal.SIGTERM]
    monkeypatch.setattr(signal, "SIGBREAK", signal.SIGUSR1, raising=False)
    assert _signals.signals() == [signal.SIGINT, signal.SIGTERM, signal.SIGUSR1]


async def test_ctrl_break_stops(
    monkeypatch: pytest.MonkeyPatch, ended: list[signal.Signals], autojump_clock: MockClock
) -> None:
    """In order, as SIGTERM does."""
    monkeypatch.setattr(signal, "SIGBREAK", signal.SIGUSR1, raising=False)
    stopping = trio.Event()
    async with trio.open_nursery() as nursery:
        await nursery.start(stop_on_signal, stopping.set)
        signal.raise_signal(signal.SIGUSR1)
        await stopping.wait()
    assert ended == []


async def test_second_signal_within_a_second_is_the_same(
    ended: list[signal.Signals], autojump_clock: MockClock
) -> None:
    """`timeout` sends to the process and then to its group; behind the second it ends at once."""
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


async def test_reason_is_told(caplog: pytest.LogCaptureFixture, autojump_clock: MockClock) -> None:
    """The log says what came, and what another one would do."""
    caplog.set_level("INFO", "trio_runner")
    async with trio.open_nursery() as nursery:
        await nursery.start(stop_on_signal, nursery.cancel_scope.cancel)
        signal.raise_signal(signal.SIGTERM)
    assert caplog.messages == ["Stopping: SIGTERM came. Another one, 1 s from now, ends it at once"]
