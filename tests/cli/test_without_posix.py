"""The command without the POSIX names that Windows lacks; `without_posix` says what this shows."""

import signal
import sys
from pathlib import Path

from tests.helpers.command import Command, ran, running
from trio_runner import DurableOutbox
from trio_runner.protocol import engine_messages as em

POORER = [sys.executable, "-m", "tests.cli.without_posix"]


async def test_every_module_can_be_imported() -> None:
    """No module asks for a missing name when it is imported."""
    command = await ran("import-all", program=POORER)
    assert (command.code, command.err) == (0, "")
    assert "trio_runner._cli._signals\n" in command.out
    assert "trio_runner.simulation.stand_ins._disk\n" in command.out


async def test_help_is_given() -> None:
    """The command and each of its subcommands give help."""
    for arguments in ([], ["demo"], ["simulated"], ["simulate"], ["outbox", "show"]):
        command = await ran(*arguments, "--help", program=POORER)
        assert (command.code, command.err) == (0, "")
        assert command.out.startswith("usage: trio-runner")


async def test_the_demo_is_played_until_it_is_interrupted() -> None:
    """It goes on until the link was there and is lost; then it ends in order."""
    async with running("demo", program=POORER) as command:
        await command.until("Nothing answers at")
        command.send(signal.SIGINT)
    assert (command.code, command.err) == (0, "")
    assert "Interrupted. Nothing lost" in command.out


async def test_outages_can_be_simulated() -> None:
    """Network, disk and processes are included."""
    command = await ran("simulate", "--seed", "1", "--hours", "1/60", program=POORER)
    assert (command.code, command.err) == (0, "")


async def test_an_outbox_is_made_shown_exported_and_discarded(tmp_path: Path) -> None:
    """The command does it; in between, the test puts something in that waits."""
    path = tmp_path / "skid.outbox"
    async with running("simulated", "-ap", "9", "--outbox", str(path), program=POORER) as command:
        await command.until("Disconnected -> Failed")
        command.send(signal.SIGTERM)
    assert command.code == 0
    with DurableOutbox(path) as outbox:
        outbox.put(em.TagsUpdatedMsg(tags=[]))

    async def look(*arguments: str) -> Command:
        command = await ran("outbox", arguments[0], str(path), *arguments[1:], program=POORER)
        assert (command.code, command.err) == (0, "")
        return command

    assert "TagsUpdated" in (await look("show")).out
    assert "TagsUpdatedMsg" in (await look("export")).out
    assert (await look("discard", "--yes")).out.startswith("Deleted ")
    assert "There are no messages" in (await look("discard")).out
