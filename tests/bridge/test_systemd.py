"""What systemd is told about real engines."""

import signal
import uuid
from pathlib import Path

import pytest

from tests.cli.test_systemd import systemd
from tests.helpers.command import running

from .test_command import NOBODY, unit_with, uod_named, when_told, wrong_uod

pytestmark = pytest.mark.timeout(120)

HANG = "threading.Event().wait()"

BLOCKING = """
import threading
from pathlib import Path
from trio_runner.bridge import UodMessageBuilder

usual = UodMessageBuilder.create_control_state_msg

def block(self):
    if Path({now!r}).exists():
        print("It blocks now", flush=True)
        threading.Event().wait()
    return usual(self)

UodMessageBuilder.create_control_state_msg = block
"""
"""Lets a UOD file play an engine that never returns when it is sampled."""


async def test_a_driver_that_hangs_starves_the_watchdog(tmp_path: Path) -> None:
    """The engine's thread has not ticked for 10 s: this is told and logged, and nothing is fed."""
    uod = unit_with(tmp_path, "Hangs", when_told(tmp_path, HANG))
    async with systemd(f"@{uuid.uuid4()}") as it:
        environment = {"NOTIFY_SOCKET": it.address, "WATCHDOG_USEC": "8000000"}
        arguments = (*NOBODY, "-uod", uod, "--start-engine", "at-once")
        async with running("engine", *arguments, environment=environment) as command:
            await it.until("STATUS=Hangs: no link")
            (tmp_path / "now").touch()
            await it.until(
                "STATUS=the thread of Hangs stands still: a driver hangs; Hangs: no link"
            )
            fed = it.told.count("WATCHDOG=1")
            command.send(signal.SIGTERM)
            await it.until("STOPPING=1")
            assert it.told.count("WATCHDOG=1") == fed
    assert it.told[0] == "READY=1"
    assert fed >= 4  # 2 s apart, in the 10 s without a tick
    assert "Not feeding systemd's watchdog: the thread of Hangs stands still" in command.err


async def test_a_uod_that_blocks_trios_thread_starves_the_watchdog(tmp_path: Path) -> None:
    """With a watchdog of 1 s: sampling does not return, and nobody feeds it any more."""
    uod = Path(uod_named(tmp_path, "Blocks"))
    uod.write_text(BLOCKING.format(now=str(tmp_path / "now")) + uod.read_text())
    async with systemd(f"@{uuid.uuid4()}") as it:
        environment = {"NOTIFY_SOCKET": it.address, "WATCHDOG_USEC": "1000000"}
        arguments = (*NOBODY, "-uod", str(uod), "--start-engine", "at-once")
        async with running("engine", *arguments, environment=environment) as command:
            for _ in range(4):
                await it.until("WATCHDOG=1")
            (tmp_path / "now").touch()
            await command.until("It blocks now")
            await it.starves(1)
            command.send(signal.SIGKILL)


async def test_systemd_is_told_of_units_that_have_failed(tmp_path: Path) -> None:
    """The command is ready with the first unit that runs, and feeds the watchdog for that."""
    uods = ("-uod", wrong_uod(tmp_path), "-uod", uod_named(tmp_path, "Good"))
    async with systemd(f"@{uuid.uuid4()}") as it:
        environment = {"NOTIFY_SOCKET": it.address, "WATCHDOG_USEC": "2000000"}
        async with running("engine", *NOBODY, *uods, environment=environment) as command:
            await it.until("; Good: no link")
            command.send(signal.SIGTERM)
    assert command.code == 3
    assert it.told[:2] == ["READY=1", "WATCHDOG=1"]
    assert "STATUS=wrong.py: failed: Failed to create uod instance" in it.told[-1]
