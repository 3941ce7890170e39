"""A demo that is cut short, as people start it."""

import errno
import os
import pty
import re
import signal
import sys

import trio

from tests.helpers.command import ENVIRONMENT, running


async def test_the_demo_ends_in_order_when_interrupted_in_its_outage() -> None:
    """After SIGINT or SIGTERM it sums up what there was, with exit code 0 and nothing on stderr."""

    async def interrupt(number: signal.Signals) -> None:
        async with running("demo") as command:
            await command.until("Nothing answers at")
            command.send(number)
        assert (command.code, command.err) == (0, "")
        summary = command.out[command.out.index("Interrupted. Nothing lost") :].splitlines()
        assert re.search(r"\d+ waiting$", summary[1])
        assert re.fullmatch(r"outage   from \d+\.\d s to the end", summary[3])

    async with trio.open_nursery() as nursery:
        nursery.start_soon(interrupt, signal.SIGINT)
        nursery.start_soon(interrupt, signal.SIGTERM)


async def test_a_demo_whose_reader_goes_away_ends_quietly() -> None:
    """A closed stdout ends it with the exit code that shells know, and without a traceback."""
    async with running("demo") as command:
        await command.until("Connected")
        await command.hang_up()
    assert (command.code, command.err) == (128 + signal.SIGPIPE, "")


async def test_the_demo_leaves_the_screen_of_a_terminal_as_it_was() -> None:
    """On a terminal it draws on the alternate screen, and restores the first when interrupted."""
    ours, theirs = pty.openpty()
    try:
        process = await trio.lowlevel.open_process(
            [sys.executable, "-m", "trio_runner", "demo"],
            stdin=theirs,
            stdout=theirs,
            stderr=theirs,
            env={**ENVIRONMENT, "TERM": "xterm-256color", "COLUMNS": "80", "LINES": "24"},
        )
        os.close(theirs)
        with trio.fail_after(20):
            shown = await _read_until(ours, "Connected")
            process.send_signal(signal.SIGINT)
            shown += await _read_until(ours, None)
            assert await process.wait() == 0
    finally:
        os.close(ours)
    enter, leave, show_cursor = "\x1b[?1049h", "\x1b[?1049l", "\x1b[?25h"
    assert shown.index(enter) < shown.index("Inlet pressure") < shown.index(leave)
    assert show_cursor in shown
    assert "Interrupted. Nothing lost" in shown[shown.index(leave) :]
    assert "Traceback" not in shown


async def _read_until(terminal: int, text: str | None) -> str:
    """Read a terminal until it has shown the text, or to its end if that is None."""
    shown = ""
    while text is None or text not in shown:
        await trio.lowlevel.wait_readable(terminal)
        try:
            shown += os.read(terminal, 65536).decode(errors="replace")
        except OSError as error:
            if error.errno != errno.EIO:  # this is how Linux says that the other side is closed
                raise
            break
    return shown
