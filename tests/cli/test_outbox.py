"""The outbox of an engine that has ended: how people look after it, what is refused."""

import json
import os
import pty
import stat
import sys
from pathlib import Path

import pytest
import trio

from tests.helpers.command import ENVIRONMENT, Command, ran
from trio_runner import DurableOutbox
from trio_runner.protocol import engine_messages as em


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Return an outbox: an event and two samples wait, one may have arrived, one is aside."""
    path = tmp_path / "skid.outbox"
    with DurableOutbox(path) as outbox:
        outbox.claim("lab_Skid")
        outbox.put(em.RunStartedMsg(run_id="run-1", started_tick=1.0))
        for _ in range(3):
            outbox.put(em.TagsUpdatedMsg(tags=[]))
        outbox.delivered(outbox.take())
        outbox.set_aside(outbox.take(), "no\nthanks")
        outbox.take()
    return path


def check_error(command: Command, code: int, told: str) -> None:
    assert (command.code, command.out) == (code, "")
    assert told in command.err
    assert command.err.count("\n") == 1


async def test_show_tells_what_is_in_it(path: Path) -> None:
    """Unit, open run, what waits by type, what may have arrived, what was set aside and why."""
    command = await ran("outbox", "show", str(path))
    assert (command.code, command.err) == (0, "")
    lines = [" ".join(line.split()) for line in command.out.splitlines()]
    assert lines[0].startswith(f"Outbox {path} (schema 1, file of ")
    assert lines[1:3] == ["unit lab_Skid", "open run run-1"]
    assert lines[3].startswith("waiting 2 messages, ")
    assert lines[4] == "2 TagsUpdated"
    assert [line.split()[0] for line in lines[5:7]] == ["oldest", "newest"]
    assert lines[7] == "sent before 1 of these: may have arrived, will be sent again"
    assert lines[8] == "set aside 1 message"
    assert lines[9].startswith("2 TagsUpdated, ")
    assert lines[9].endswith(": no thanks")


async def test_show_tells_of_names_that_the_console_cannot_show(tmp_path: Path) -> None:
    """Old consoles have 256 letters: the others are told by their numbers."""
    path = tmp_path / "skid.outbox"
    with DurableOutbox(path) as outbox:
        outbox.claim("lab_Фильтр")
    command = await ran("outbox", "show", str(path), environment={"PYTHONIOENCODING": "cp850"})
    assert (command.code, command.err) == (0, "")
    assert r"lab_\u0424" in command.out


async def test_export_writes_lines_of_json(path: Path, tmp_path: Path) -> None:
    """To stdout, or to a new file that its owner alone can read; one that is there stays."""
    command = await ran("outbox", "export", str(path))
    assert [json.loads(row)["sequence_number"] for row in command.out.splitlines()] == [3, 4]
    command = await ran("outbox", "export", str(path), "--set-aside")
    assert [json.loads(row)["sequence_number"] for row in command.out.splitlines()] == [2]
    file = tmp_path / "rows.json"
    command = await ran("outbox", "export", str(path), "--output", str(file))
    assert (command.code, command.out) == (0, f"2 messages written to {file}.\n")
    assert len(file.read_text().splitlines()) == 2
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    before = path.read_bytes()
    command = await ran("outbox", "export", str(path), "--output", str(path))
    check_error(command, 2, f"cannot write {path}: File exists")
    assert path.read_bytes() == before


async def test_discard_deletes_when_told_to(path: Path) -> None:
    """With `--yes` at once, and then there is nothing left; without a terminal it refuses."""

    async def discard(*options: str) -> Command:
        return await ran("outbox", "discard", str(path), *options)

    check_error(await discard(), 2, "give --yes")
    command = await discard("--yes")
    assert (command.code, command.out) == (0, "Deleted 3 messages.\n")
    command = await discard()
    assert (command.code, command.out) == (0, f"There are no messages in {path}.\n")


@pytest.mark.parametrize(("answer", "code", "told"), [("y", 0, "Deleted 3"), ("", 1, "Nothing")])
async def test_discard_asks_first(answer: str, code: int, told: str, path: Path) -> None:
    """At a terminal it asks, and only a yes deletes."""
    ours, theirs = pty.openpty()
    try:
        process = await trio.lowlevel.open_process(
            [sys.executable, "-m", "trio_runner", "outbox", "discard", str(path)],
            stdin=theirs,
            stdout=theirs,
            stderr=theirs,
            env=ENVIRONMENT,
        )
        os.write(ours, f"{answer}\n".encode())
        with trio.fail_after(20):
            assert await process.wait() == code
        shown = os.read(ours, 65536).decode()
    finally:
        os.close(theirs)
        os.close(ours)
    assert "Delete 3 messages for good? [y/N]" in shown
    assert told in shown


async def test_what_is_no_outbox_is_told_of_in_one_line(path: Path, tmp_path: Path) -> None:
    """Nothing there, a text, another unit's: exit code 1, or 2 of an engine."""
    check_error(await ran("outbox", "show", str(tmp_path / "no")), 1, "There is no outbox")
    text = tmp_path / "text"
    text.write_text("notes\n" * 1000)
    check_error(await ran("outbox", "discard", "--yes", str(text)), 1, "is not an outbox")
    check_error(await ran("simulated", "--outbox", str(text)), 2, "is not an outbox")
    check_error(await ran("simulated", "--outbox", str(path)), 2, "wait 2 messages of lab_Skid")
