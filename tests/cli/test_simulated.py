"""The simulated engine against an aggregator, as people start it."""

import re
import signal
import socket
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import trio

from tests.helpers.command import running, sampled
from trio_runner._cli._signals import SAME_S
from trio_runner.protocol import SuccessMessage
from trio_runner.protocol import aggregator_messages as am
from trio_runner.protocol import engine_messages as em
from trio_runner.simulation import Aggregator

SALT = "salt"
SIGNALS = [signal.SIGINT, signal.SIGTERM]


@pytest.fixture
def closed_port() -> int:
    """Return a port at which nothing answers."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        port: int = sock.getsockname()[1]
    return port


@asynccontextmanager
async def serving(aggregator: Aggregator) -> AsyncGenerator[int, None]:
    """Serve on TCP while the block runs; yield the port."""
    async with trio.open_nursery() as nursery:
        port: int = await nursery.start(aggregator.run)
        yield port
        nursery.cancel_scope.cancel()


@pytest.mark.parametrize("number", SIGNALS)
async def test_without_an_aggregator_it_says_so_once_and_ends_in_order(
    number: signal.Signals, closed_port: int, tmp_path: Path
) -> None:
    """Many dials fail with one warning, and a signal ends it with exit code 0."""
    at = ("-ap", str(closed_port), "--outbox", str(tmp_path))
    async with running("simulated", *at) as command:
        await command.until("Disconnected -> Failed")
        await sampled(tmp_path / "Filtration Skid.outbox")
        command.send(number)
    assert command.code == 0
    assert command.out == (
        f"Filtration Skid: looking for the aggregator at http://127.0.0.1:{closed_port}."
        " Ctrl-C ends it.\n"
    )
    assert command.err.count("Nothing answers at") == 1
    assert "The runner goes on trying and will say more within 10 min.\n" in command.err
    assert "Changing state: Started -> Failed" in command.err
    assert command.err.endswith("Changing state: Stopped -> ShutdownComplete\n")
    assert "Traceback" not in command.err
    assert re.search(
        r"Stopped; messages not delivered: \d+\. They are kept in .*/Filtration Skid\.outbox and go"
        r" out at the next start\n",
        command.err,
    )


async def test_an_engine_is_connected_and_takes_commands_from_the_aggregator() -> None:
    """It registers with its name and secret, waits for Start, runs, and flushes the run's end."""
    aggregator = Aggregator(secret=SALT, version="0.2.0")
    async with (
        serving(aggregator) as port,
        running(
            *("simulated", "--aggregator_port", str(port), "--name", "Skid 7"),
            *("-secret", SALT, "-ignore"),
        ) as command,
    ):
        await command.until("Changing state: Started -> Connected")
        record = aggregator.engine()
        assert record.registrations[0].message.uod_name == "Skid 7"
        assert record.unit.run is None, "a run is not started by itself"
        start = am.ExecuteControlCommandMsg(name="Start")
        assert isinstance(await aggregator.call(record.engine_id, start), SuccessMessage)
        await aggregator.wait_until(lambda: record.unit.run and record.unit.tags)
        command.send(signal.SIGTERM)
    assert command.code == 0
    assert command.out.endswith(f"Skid 7: open http://127.0.0.1:{port} and start a run there\n")
    assert len(record.messages(em.RunStartedMsg)) == 1
    assert len(record.messages(em.RunStoppedMsg)) == 1, "a run left open would stay open there"
    assert "Incomming control command from aggregator: Start\n" in command.err
    assert "Starting engine" not in command.err, "it was not the link that started it"
    assert "Traceback" not in command.err


async def test_a_refused_secret_is_told() -> None:
    """The log says what people must do."""
    async with (
        serving(Aggregator(secret=SALT)) as port,
        running("simulated", "-ap", str(port)) as command,
    ):
        await command.until("refused the secret")
        command.send(signal.SIGINT)
    assert command.code == 0


@pytest.mark.parametrize("second", SIGNALS)
async def test_a_second_signal_ends_it_at_once(second: signal.Signals) -> None:
    """A mute aggregator makes the flush long; a second later another signal cuts it."""
    aggregator = Aggregator()
    async with (
        serving(aggregator) as port,
        running("simulated", "-ap", str(port)) as command,
    ):
        await command.until("Changing state: Started -> Connected")
        # After three samples all states have been told, so that the next message is a sample.
        await aggregator.wait_until(lambda: len(aggregator.messages(em.TagsUpdatedMsg)) >= 3)
        aggregator.muted = True
        taken = len(aggregator.messages(em.TagsUpdatedMsg))
        await aggregator.wait_until(lambda: len(aggregator.messages(em.TagsUpdatedMsg)) > taken)
        command.send(signal.SIGINT)
        await command.until("Changing state: Connected -> Stopped")
        command.send(second)  # it comes at once, so it counts as the same
        await trio.sleep(SAME_S + 0.5)
        assert command.code is None
        command.send(second)
    assert command.code == -second
    assert "Traceback" not in command.err
