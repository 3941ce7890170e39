"""What is written to stderr: for people, for systemd's journal, and for programs."""

import json
import os
import pty
import re
import signal
import sys
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
import trio

from tests.helpers.command import COMMAND, ENVIRONMENT, Command, ran, running

TIME = r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d,\d{3} "
"""How a line for people begins in a file."""

TELLS_ALL = """
import logging, threading, warnings
from trio_runner._cli._log import log_to_stderr

def fail():
    raise ValueError("of a thread")

log_to_stderr({log_format!r}, lambda: "Skid")
try:
    raise OSError(28, "No space\\nleft")
except OSError:
    logging.getLogger("trio_runner").exception("It is %d %%\\nfull", 100)
warnings.warn("old")
thread = threading.Thread(target=fail, name="driver")
thread.start()
thread.join()
raise RuntimeError("the end: größer")
"""


def records(text: str) -> list[dict[str, Any]]:
    """Return the record of each line; every line must be a JSON object."""
    return [json.loads(line) for line in text.splitlines()]


async def signalled(*arguments: str, program: list[str] = COMMAND) -> Command:
    """Run the simulated engine without an aggregator until its first failed dial, and end it."""
    whole = ("simulated", "-ap", "9", "--name", "Skid", "--outbox", "memory", *arguments)
    async with running(*whole, program=program) as command:
        await command.until("Disconnected -> Failed")
        command.send(signal.SIGTERM)
    assert command.code == 0
    return command


async def test_each_line_has_its_time_and_no_colours() -> None:
    """This is so where stderr is no terminal."""
    command = await signalled()
    assert [line for line in command.err.splitlines() if not re.match(TIME, line)] == []
    assert "\x1b" not in command.err


async def test_a_terminal_has_colours() -> None:
    """They also have the time of day only."""
    ours, theirs = pty.openpty()
    process = await trio.lowlevel.open_process(
        [*COMMAND, "simulated", "-ap", "9", "--outbox", "memory"],
        stderr=theirs,
        env={**ENVIRONMENT, "TERM": "xterm-256color"},
    )
    os.close(theirs)
    text, is_signalled = "", False
    while "ShutdownComplete" not in text:
        text += (await trio.to_thread.run_sync(os.read, ours, 1000)).decode()
        if "Nothing answers" in text and not is_signalled:
            process.send_signal(signal.SIGTERM)
            is_signalled = True
    await process.wait()
    os.close(ours)
    assert "\x1b[" in text
    assert not re.search(TIME, text)


async def test_each_line_of_json_is_one_object() -> None:
    """It has the time with its offset, the level, the logger, the unit and the message."""
    command = await signalled("--log-format", "json")
    told = records(command.err)
    assert command.out == ""
    assert "looking for the aggregator" in told[1]["message"]
    assert {tuple(record) for record in told} == {("time", "level", "logger", "unit", "message")}
    assert {record["unit"] for record in told} == {"Skid"}
    assert {record["level"] for record in told} == {"INFO", "WARNING"}
    times = [datetime.fromisoformat(record["time"]) for record in told]
    assert all(time.utcoffset() is not None for time in times)
    assert times == sorted(times)
    assert "Changing state: Started -> Failed" in [record["message"] for record in told]


async def test_with_json_nothing_else_is_written() -> None:
    """Tracebacks, Python's warnings, and errors that end a thread or the process are in it."""
    command = await told_all("json")
    error, warning, thread, end = records(command.err)
    assert error["message"] == "It is 100 %\nfull"
    assert error["error"] == r"OSError(28, 'No space\nleft')"
    assert error["traceback"].startswith("Traceback (most recent call last):\n")
    assert (warning["level"], warning["logger"]) == ("WARNING", "py.warnings")
    assert "UserWarning: old" in warning["message"]
    assert thread["message"] == "The thread driver ended with an error"
    assert thread["error"] == "ValueError('of a thread')"
    assert (end["level"], end["error"]) == ("CRITICAL", "RuntimeError('the end: größer')")


async def told_all(log_format: str) -> Command:
    """Run a program that reports errors in all ways, with an encoding that has few characters."""
    script = TELLS_ALL.format(log_format=log_format)
    environment = {"PYTHONWARNINGS": "default", "PYTHONUTF8": "0", "PYTHONIOENCODING": "ascii"}
    command = await ran("-c", script, program=[sys.executable], environment=environment)
    assert command.code == 1
    return command


def with_journal(stream: str) -> list[str]:
    """Return the command, told that the journal reads what this stream writes."""
    script = f'export JOURNAL_STREAM=$(stat -L -c %d:%i {stream}); exec "$@"'
    return ["bash", "-c", script, "bash", *COMMAND]


async def test_the_journal_gets_the_level_but_no_second_time() -> None:
    """The journal notes the time itself, and reads the level from the beginning of a line."""
    command = await signalled(program=with_journal("/dev/stderr"))
    lines = command.err.splitlines()
    assert [line for line in lines if not re.match(r"<6>INFO    |<4>WARNING ", line)] == []
    assert "<4>WARNING Nothing answers at" in command.err


async def test_a_redirected_stream_is_not_taken_for_the_journals(tmp_path: Path) -> None:
    """The variable is about the service's own streams."""
    (tmp_path / "other").touch()
    command = await signalled(program=with_journal(str(tmp_path / "other")))
    assert [line for line in command.err.splitlines() if not re.match(TIME, line)] == []


async def test_each_line_of_an_error_has_its_level_in_the_journal() -> None:
    """Otherwise the journal would take the rest of a traceback for information."""
    script = TELLS_ALL.format(log_format="text").partition("warnings.warn")[0]
    python = [*with_journal("/dev/stderr")[:4], sys.executable]
    command = await ran("-c", script, program=python)
    lines = command.err.splitlines()
    assert len(lines) > 5
    assert [line for line in lines if not line.startswith("<3>")] == []


@pytest.mark.parametrize("arguments", [["--version"], ["simulated", "--version"]])
async def test_the_version_is_told(arguments: list[str]) -> None:
    """It goes to stdout, with the versions of Python and, if installed, of Open Pectus."""
    command = await ran(*arguments)
    assert (command.code, command.err) == (0, "")
    assert re.fullmatch(r"trio-runner [\d.]+, Python [\d.]+(, openpectus [\d.]+)?\n", command.out)
