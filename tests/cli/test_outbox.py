"""The outbox of an engine that has ended: what people can do with it, and what is refused."""

import json
import os
import pty
import sqlite3
import stat
import sys
from contextlib import closing
from pathlib import Path

import pytest
import trio

from tests.helpers.command import COMMAND, ENVIRONMENT, Command, ran
from tests.helpers.ports import free_port
from trio_runner import DurableOutbox
from trio_runner.protocol import engine_messages as em
from trio_runner.simulation import Aggregator


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Return an outbox: an event and two samples wait, one may have arrived, one is set aside."""
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


async def test_show_tells_what_is_in_the_outbox(path: Path) -> None:
    """It tells the unit, the open run, what waits, what may have arrived, what is aside and why."""
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


async def test_the_outbox_of_a_running_engine_can_be_seen_but_not_changed(path: Path) -> None:
    """Show, export and check say since when it runs; the others say to stop it first."""
    with DurableOutbox(path):
        command = await ran("outbox", "show", str(path))
        assert (command.code, command.err) == (0, "")
        assert command.out.splitlines()[1].startswith("in use       by a running engine, as of 20")
        command = await ran("outbox", "export", str(path))
        assert (command.code, len(command.out.splitlines())) == (0, 2)
        assert "is in use by a running engine, as of 20" in command.err
        command = await ran("outbox", "check", str(path))
        assert command.code == 0
        assert command.out.startswith("In use by a running engine, as of 20")
        for arguments in (["requeue"], ["discard", "--yes"], ["deliver", "-ahn", "127.0.0.1"]):
            command = await ran("outbox", arguments[0], str(path), *arguments[1:])
            check_error(command, 1, "in use by a running engine")
            assert "Stop that engine first." in command.err
    assert (await ran("outbox", "show", str(path))).out.count("TagsUpdated") == 2


async def test_check_tells_whether_a_file_is_whole_and_what_to_do(path: Path) -> None:
    """The exit code is 0 if the file is whole, and 1 if it is not."""
    command = await ran("outbox", "check", str(path))
    assert (command.code, command.err) == (0, "")
    assert command.out == f"{path} is intact, with 3 messages in it.\n"
    with closing(sqlite3.connect(path, isolation_level=None)) as db:
        db.execute("UPDATE messages SET body = x'00' WHERE sequence_number = 3")
    command = await ran("outbox", "check", str(path))
    assert (command.code, command.err) == (1, "")
    assert command.out.startswith(f"{path} IS DAMAGED; 2 messages in it can be read:\n")
    assert "  message 3 cannot be read\n" in command.out
    assert "trio-runner outbox export" in command.out


async def test_requeue_says_how_many_wait_again(path: Path) -> None:
    """The sample that is set aside belongs to no run and one is on, so it would be thrown away."""
    command = await ran("outbox", "requeue", str(path))
    assert (command.code, command.err) == (0, "")
    first, second = command.out.splitlines()
    assert first == f"0 messages wait again in {path}."
    assert second.startswith("1 message stays set aside: their run has ended")


async def test_deliver_says_so_if_there_is_nothing_to_deliver(tmp_path: Path) -> None:
    """The aggregator is not asked."""
    path = tmp_path / "skid.outbox"
    with DurableOutbox(path) as outbox:
        outbox.claim("lab_Skid")
    command = await ran("outbox", "deliver", str(path), "-ahn", "127.0.0.1")
    assert (command.code, command.err) == (0, "")
    assert command.out == f"Nothing waits in {path}.\n"


async def test_deliver_shows_how_far_it_is_at_a_terminal(path: Path) -> None:
    """There is a bar, and after it what was delivered: two samples and the end of the run."""
    aggregator, to = Aggregator(), ("-ahn", "127.0.0.1", "--for-all")
    ours, theirs = pty.openpty()
    try:
        async with trio.open_nursery() as nursery:
            port = str(await nursery.start(aggregator.run))
            process = await trio.lowlevel.open_process(
                [*COMMAND, "outbox", "deliver", str(path), *to, "-ap", port],
                stdin=theirs,
                stdout=theirs,
                stderr=theirs,
                env={**ENVIRONMENT, "TERM": "xterm", "COLUMNS": "100"},
            )
            with trio.fail_after(20):
                assert await process.wait() == 1  # one had been set aside before
            nursery.cancel_scope.cancel()
        shown = os.read(ours, 65536).decode()
    finally:
        os.close(theirs)
        os.close(ours)
    assert f"Skid to http://127.0.0.1:{port}" in shown
    assert "3/3" in shown
    assert "Delivered 3 messages of lab_Skid." in shown
    assert [run.run_id for run in aggregator.recent_runs] == ["run-1"]


async def test_deliver_says_what_is_left_when_it_gives_up(path: Path) -> None:
    """The exit code is 1; why there is no link is told once, and all is kept."""
    options = ("-ahn", "127.0.0.1", "-ap", str(free_port()), "--give-up-after", "2", "--for-all")
    command = await ran("outbox", "deliver", str(path), *options)
    assert command.code == 1
    assert command.err.count("connection refused") == 1
    lines = command.out.splitlines()
    assert lines[0] == "Delivered 0 messages of lab_Skid."
    assert lines[1] == f"3 messages still wait in {path}."  # including the end of the run
    assert lines[2].startswith("1 message set aside, which the aggregator did not take")


async def test_deliver_needs_an_aggregator_and_a_time(path: Path) -> None:
    """It does not guess where to deliver."""
    check_error(await ran("outbox", "deliver", str(path)), 2, "-ahn")
    options = ("-ahn", "127.0.0.1", "--give-up-after")
    check_error(
        await ran("outbox", "deliver", str(path), *options, "0"), 2, "'0' is not a number of"
    )
    check_error(
        await ran("outbox", "deliver", str(path), *options, "x"), 2, "'x' is not a number of"
    )


async def test_show_escapes_names_that_the_console_cannot_show(tmp_path: Path) -> None:
    """Old consoles have 256 characters; the other ones are shown by their numbers."""
    path = tmp_path / "skid.outbox"
    with DurableOutbox(path) as outbox:
        outbox.claim("lab_Фильтр")
    command = await ran("outbox", "show", str(path), environment={"PYTHONIOENCODING": "cp850"})
    assert (command.code, command.err) == (0, "")
    assert r"lab_\u0424" in command.out


async def test_export_writes_lines_of_json(path: Path, tmp_path: Path) -> None:
    """They go to stdout, or to a new file that only its owner can read; an existing file stays."""
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


async def test_discard_deletes_without_asking_when_told_to(path: Path) -> None:
    """With `--yes` it deletes at once and leaves nothing; without a terminal it refuses."""

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


async def test_a_file_that_is_no_outbox_is_told_in_one_line(path: Path, tmp_path: Path) -> None:
    """Nothing, a text, or another unit's file: the exit code is 1, and 2 for an engine."""
    check_error(await ran("outbox", "show", str(tmp_path / "no")), 1, "There is no outbox")
    text = tmp_path / "text"
    text.write_text("notes\n" * 1000)
    check_error(await ran("outbox", "discard", "--yes", str(text)), 1, "is not an outbox")
    check_error(await ran("simulated", "--outbox", str(text)), 2, "is not an outbox")
    check_error(
        await ran("simulated", "--outbox", str(path)), 2, "holds messages of lab_Skid (2 waiting)"
    )
