"""The command without the names of POSIX that Windows lacks; `without_posix` says what it shows."""

import signal
import sys
from pathlib import Path

from tests.helpers.command import Command, ran, running
from trio_runner import DurableOutbox
from trio_runner.protocol import engine_messages as em

POORER = [sys.executable, "-m", "tests.cli.without_posix"]


async def test_every_module_can_be_imported() -> None:
    """None asks for a name that is not there, at its top."""
    command = await ran("import-all", program=POORER)
    assert (command.code, command.err) == (0, "")
    assert "trio_runner._cli._signals\n" in command.out
    assert "trio_runner.simulation.stand_ins._disk\n" in command.out


async def test_help_is_given() -> None:
    """Of the command and of each of its parts."""
    for arguments in ([], ["demo"], ["simulated"], ["simulate"], ["outbox", "show"]):
        command = await ran(*arguments, "--help", program=POORER)
        assert (command.code, command.err) == (0, "")
        assert command.out.startswith("usage: trio-runner")


async def test_demo_is_played_until_it_is_interrupted() -> None:
    """Far enough to have connected, and lost the link; it ends in order."""
    async with running("demo", program=POORER) as command:
        await command.until("Nothing answers at")
        command.send(signal.SIGINT)
    assert (command.code, command.err) == (0, "")
    assert "Interrupted. Nothing lost" in command.out


async def test_outages_are_simulated() -> None:
    """Network, disk and processes included."""
    command = await ran("simulate", "--seed", "1", "--hours", "1/60", program=POORER)
    assert (command.code, command.err) == (0, "")


async def test_outbox_is_made_shown_exported_and_discarded(tmp_path: Path) -> None:
    """By the command; what waits in it is put in by the test between."""
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
