"""The command on a Windows Python: the demo, an outbox that outlives a kill, and how it ends.

It is CPython for Windows with the wheels for Windows. But Wine is not Windows: these tests show
that nothing in the package fails when it asks a Windows for files, sockets and processes. They do
not show what a real one does: its file locks and virus scanners, its consoles, log-offs and
services. What Wine lacks is worked around in `shims` and in `console`; for Ctrl-Break that is not
possible.
"""

import json
import signal
from collections.abc import AsyncGenerator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import trio

from tests.helpers.command import Command, running, sampled
from tests.helpers.install import Unavailable
from tests.helpers.required import go_without
from trio_runner._cli._console import CLOSED, LOGGED_OFF
from trio_runner.protocol import engine_messages as em
from trio_runner.simulation import Aggregator

from ._wine import WindowsPython, windows_path, windows_python

CTRL_C = 0

DEADLINE_S = 120
"""Each file that is opened travels between Wine's processes, and other tests may run too."""

pytestmark = pytest.mark.timeout(3 * DEADLINE_S)


@pytest.fixture(scope="session")
def windows() -> Iterator[WindowsPython]:
    """Return a Python for Windows."""
    try:
        python = windows_python()
    except Unavailable as error:
        go_without(str(error))
    with python.kept_up():
        yield python


@asynccontextmanager
async def trio_runner(
    windows: WindowsPython, *arguments: str, module: str = "trio_runner"
) -> AsyncGenerator[Command, None]:
    """Run the command under Wine."""
    program, environment = [*windows.program, "-m", module], windows.environment
    start = running(*arguments, program=program, environment=environment, deadline_s=DEADLINE_S)
    try:
        async with start as command:
            yield command
    finally:
        print(command.out, command.err)  # noqa: T201 - shown if the test fails


async def outbox(windows: WindowsPython, action: str, path: Path) -> str:
    """Return what a look at an outbox says."""
    async with trio_runner(windows, "outbox", action, windows_path(path)) as command:
        pass
    assert (command.code, command.err) == (0, ""), command.err
    return command.out


async def test_help_is_given(windows: WindowsPython) -> None:
    """It is the same as anywhere else."""
    async with trio_runner(windows, "--help") as command:
        pass
    assert (command.code, command.err) == (0, ""), command.err
    assert command.out.startswith("usage: trio-runner")


async def test_nothing_is_lost_in_the_demo(windows: WindowsPython) -> None:
    """The demo tells its story in lines, since there is no console."""
    async with trio_runner(windows, "demo") as command:
        pass
    assert (command.code, command.err) == (0, ""), command.err
    assert "state: CatchingUp -> Reconnected" in command.out
    assert "Nothing lost." in command.out


async def test_what_waits_outlives_a_kill(windows: WindowsPython, tmp_path: Path) -> None:
    """It is shown, and the next process delivers it unchanged."""
    path = tmp_path / "skid.outbox"
    at_path = ("simulated", "--outbox", windows_path(path), "-ap")
    async with trio_runner(windows, *at_path, "9") as command:
        await command.until("Disconnected -> Failed")
        await sampled(path)
        command.send(signal.SIGKILL)
    assert f"The outbox is {windows_path(path)}: nothing waits" in command.err

    shown = await outbox(windows, "show", path)
    rows = [json.loads(row) for row in (await outbox(windows, "export", path)).splitlines()]
    waiting = [row["sequence_number"] for row in rows if row["_type"] == "TagsUpdatedMsg"]
    assert f"{len(waiting)}   TagsUpdated\r\n" in shown
    assert waiting

    aggregator = Aggregator()
    async with trio.open_nursery() as nursery:
        port = await nursery.start(aggregator.run)
        async with trio_runner(windows, *at_path, str(port)) as command:
            await aggregator.wait_until(lambda: len(samples(aggregator)) > len(waiting))
            command.send(signal.SIGKILL)
        nursery.cancel_scope.cancel()
    assert f"{len(rows)} message" in command.err.splitlines()[0]
    assert samples(aggregator)[: len(waiting)] == waiting


def samples(aggregator: Aggregator) -> list[int]:
    """Return the numbers of the samples that have come, in order."""
    received = [r for engine in aggregator.engines.values() for r in engine.received]
    return [r.sequence_number for r in received if isinstance(r.message, em.TagsUpdatedMsg)]


@pytest.mark.parametrize(
    ("events", "name"), [([LOGGED_OFF, CTRL_C], "SIGINT"), ([CLOSED], "SIGBREAK")]
)
async def test_the_console_ends_the_command_in_order(
    events: list[int], name: str, windows: WindowsPython, tmp_path: Path
) -> None:
    """Ctrl-C and a closed console do, but the log-off of a person does not."""
    arguments = ("simulated", "-ap", "9", "--outbox", windows_path(tmp_path / "skid.outbox"))
    numbers = ",".join(map(str, events))
    async with trio_runner(windows, numbers, *arguments, module="tests.windows.console") as command:
        pass
    assert command.code == 0
    assert f"event {events[-1]} comes" in command.out
    assert f"Stopping, because of {name}." in command.err
    assert command.err.splitlines()[-1].endswith("Stopped -> ShutdownComplete")
