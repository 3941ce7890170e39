"""What a command that is a service tells systemd, and when systemd would kill it."""

import os
import shutil
import signal
import socket
import subprocess
import sys
import uuid
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import trio
import trio.testing
from attrs import define, field

from tests.helpers.command import running
from tests.helpers.unit import Unit, World, world
from tests.test_outbox import event
from tests.test_outbox_slow_disk import HangingDisk
from trio_runner import DurableOutbox, EngineDispatcher, EngineRunner
from trio_runner._cli._systemd import STILL_S, Hearts, Teller
from trio_runner.simulation import Aggregator

EXAMPLES = Path(__file__).parents[2] / "examples"

SKID = ("simulated", "--name", "Skid", "--outbox", "memory")

BLOCKING = """
import sys, threading
from pathlib import Path
from trio_runner import _cli
from trio_runner.simulation import SimulatedEngine

class Blocking(SimulatedEngine):
    def create_tag_updates_msg(self, run_id):
        if Path(sys.argv[1]).exists():
            print("It blocks now", flush=True)
            threading.Event().wait()
        return super().create_tag_updates_msg(run_id)

from trio_runner._cli import _simulated
_simulated.SimulatedEngine = Blocking
sys.exit(_cli.main(sys.argv[2:]))
"""
"""The command with an engine that blocks Trio's thread as soon as a file exists."""


@define(eq=False)
class Systemd:
    """The socket at which systemd listens, and what has been told."""

    address: str
    _socket: trio.socket.SocketType
    told: list[str] = field(factory=list)

    async def next(self) -> str:
        """Wait for a datagram."""
        self.told.append((await self._socket.recv(4096)).decode())
        return self.told[-1]

    async def until(self, text: str) -> None:
        """Wait until something that contains the text has been told."""
        while text not in await self.next():
            pass

    async def starves(self, watchdog_s: float) -> None:
        """Check that nothing comes for this long (s), except what is already under way."""
        with trio.move_on_after(0.2):
            while True:
                await self.next()
        with trio.move_on_after(watchdog_s) as watchdog:
            await self.next()
        assert watchdog.cancelled_caught, self.told


@asynccontextmanager
async def systemd(address: str) -> AsyncGenerator[Systemd, None]:
    """Listen as systemd does, at an address that is abstract if it begins with `@`."""
    with trio.socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listening:
        await listening.bind(address.replace("@", "\0", 1))
        yield Systemd(address, listening)


@pytest.mark.parametrize("kind", ["path", "abstract"])
async def test_systemd_is_told_the_start_the_state_and_the_end(kind: str, tmp_path: Path) -> None:
    """It is told that the ticker turns, then how things go in words, and that the engine stops."""
    address = str(tmp_path / "notify") if kind == "path" else f"@{uuid.uuid4()}"
    async with systemd(address) as it:
        environment = {"NOTIFY_SOCKET": address, "WATCHDOG_USEC": "2000000"}
        async with running(*SKID, "-ap", "9", environment=environment) as command:
            await it.until("STATUS=Skid: no link")
            command.send(signal.SIGTERM)
            await it.until("STOPPING=1\nSTATUS=stopping")
    assert command.code == 0
    assert it.told[0] == "READY=1"
    assert "WATCHDOG=1" in it.told
    (status,) = [text for text in it.told if "no link" in text]
    assert "waiting: " in status
    assert "Nothing answers at http://127.0.0.1:9" in status
    assert "systemd" not in command.err


async def test_systemd_is_told_of_the_link() -> None:
    """It is told that the engine is connected, and how much waits."""
    aggregator = Aggregator()
    async with systemd(f"@{uuid.uuid4()}") as it, trio.open_nursery() as nursery:
        port = await nursery.start(aggregator.run)
        environment = {"NOTIFY_SOCKET": it.address}
        async with running(*SKID, "-ap", str(port), environment=environment) as command:
            await it.until("STATUS=Skid: connected, waiting: ")
            command.send(signal.SIGTERM)
        nursery.cancel_scope.cancel()
    assert command.code == 0
    assert "WATCHDOG=1" not in it.told, "there is none"


async def test_a_loop_that_stands_still_starves_the_watchdog(tmp_path: Path) -> None:
    """A watchdog of 1 s, else fed four times in it, gets nothing, so systemd would kill it."""
    now = tmp_path / "now"
    program = [sys.executable, "-c", BLOCKING, str(now)]
    environment = {"WATCHDOG_USEC": "1000000"}
    async with systemd(f"@{uuid.uuid4()}") as it:
        environment["NOTIFY_SOCKET"] = it.address
        async with running(*SKID, "-ap", "9", program=program, environment=environment) as command:
            for _ in range(8):
                await it.until("WATCHDOG=1")
            now.touch()
            await command.until("It blocks now")
            await it.starves(1)
            command.send(signal.SIGKILL)
    assert command.code == -signal.SIGKILL


async def test_a_watchdog_of_another_process_is_not_fed() -> None:
    """That may be one that started this process."""
    async with systemd(f"@{uuid.uuid4()}") as it:
        environment = {
            "NOTIFY_SOCKET": it.address,
            "WATCHDOG_USEC": "1000000",
            "WATCHDOG_PID": str(os.getpid()),
        }
        async with running(*SKID, "-ap", "9", environment=environment) as command:
            await it.until("no link")
            command.send(signal.SIGTERM)
            await it.until("STOPPING=1")
    assert "WATCHDOG=1" not in it.told


async def test_the_engine_runs_even_if_systemd_cannot_be_told(tmp_path: Path) -> None:
    """This is logged once."""
    environment = {"NOTIFY_SOCKET": str(tmp_path / "none"), "WATCHDOG_USEC": "400000"}
    async with running(*SKID, "-ap", "9", environment=environment) as command:
        await command.until("Cannot notify systemd")
        await command.until("Started -> Failed")
        command.send(signal.SIGTERM)
    assert command.code == 0
    assert command.err.count("Cannot notify systemd") == 1


# What starves the watchdog, in virtual time


@define(eq=False)
class Watched:
    """A unit with a runner, and with an engine's thread that the test ticks."""

    name: str
    runner: EngineRunner | None
    ticks: int | None = None
    failed: str | None = None


async def beat(hearts: Hearts, *ticking: Watched, seconds: int) -> str | None:
    """Let time pass while these units' threads tick; return why the watchdog would not be fed."""
    for _ in range(seconds):
        await trio.sleep(1)
        for unit in ticking:
            unit.ticks = (unit.ticks or 0) + 1
        why = hearts.why_starved()
    return why


def never_run(w: World) -> EngineRunner:
    """Return a runner whose ticker stands still, since it never runs."""
    unit = Unit()
    return EngineRunner(EngineDispatcher(handlers=unit), unit, unit)


@pytest.mark.parametrize("up", [True, False])
async def test_tickers_that_turn_feed_the_watchdog(
    up: bool, autojump_clock: trio.testing.MockClock
) -> None:
    """They turn with a link, and every 5 s without; an engine not started need not tick."""
    async with world(up=up) as w:
        hearts = Hearts([Watched("A", w.runner)], STILL_S)
        assert [await beat(hearts, seconds=1) for _ in range(100)] == [None] * 100


async def test_a_ticker_that_stands_still_starves_the_watchdog(
    autojump_clock: trio.testing.MockClock,
) -> None:
    """The other unit's ticker turns; this one has not for over 10 s since the first look."""
    async with world() as w:
        hearts = Hearts([Watched("A", w.runner), Watched("B", never_run(w))], STILL_S)
        assert await beat(hearts, seconds=11) is None
        assert await beat(hearts, seconds=1) == "the ticker of B stands still"


async def test_a_failed_unit_and_one_without_a_runner_are_not_waited_for(
    autojump_clock: trio.testing.MockClock,
) -> None:
    """The other units go on."""
    async with world() as w:
        units = [
            Watched("A", w.runner),
            Watched("B", never_run(w), failed="it ended with an error"),
            Watched("C", None),
        ]
        assert await beat(Hearts(units, STILL_S), seconds=30) is None


async def test_a_hanging_driver_starves_the_watchdog_if_no_other_engine_works(
    autojump_clock: trio.testing.MockClock,
) -> None:
    """The other unit still controls its hardware, and the end of the process would end that."""
    async with world() as w, world() as v:
        a, b = Watched("A", w.runner, ticks=0), Watched("B", v.runner, ticks=0)
        hearts = Hearts([a, b], STILL_S)
        assert await beat(hearts, a, b, seconds=30) is None
        assert await beat(hearts, a, seconds=30) is None
        both = "the thread of A, B stands still: a driver hangs"
        assert await beat(hearts, seconds=30) == both
        assert await beat(hearts, b, seconds=1) is None


async def test_a_disk_that_hangs_does_not_starve_the_watchdog(tmp_path: Path) -> None:
    """It is told: the engine goes on from memory, and the end of the process would lose that."""
    disk, told = HangingDisk(), list[str]()
    outbox = DurableOutbox(tmp_path / "it.outbox", connect=disk.connect)

    async def send(text: str) -> None:
        await trio.lowlevel.checkpoint()
        told.append(text)

    async with world(outbox=outbox) as w:  # type: ignore[arg-type]
        units = [Watched("A", w.runner)]
        teller = Teller(units, send, Hearts(units, STILL_S), has_watchdog=True)
        await w.settled()
        disk.works.clear()
        w.runner.post(event("one"))
        for _ in range(30):  # 1 s until the disk counts as slow, and 2 s of that
            await teller.tell()
            await trio.sleep(0.1)
        disk.works.set()
    outbox.close()
    assert told.count("WATCHDOG=1") == 30
    fails = "the outbox's disk fails: the disk has not written for 1 s"
    assert any(fails in text for text in told)


# The files under examples/


ANALYZE = shutil.which("systemd-analyze")


@pytest.mark.skipif(ANALYZE is None, reason="systemd-analyze is not here: install systemd")
@pytest.mark.parametrize("name", ["pectus.service", "pectus@.service"])
def test_systemd_accepts_the_unit_files(name: str, tmp_path: Path) -> None:
    """There is nothing that systemd finds wrong, and it would find a key that it does not know."""
    text = (EXAMPLES / name).read_text().replace("/opt/pectus/bin/trio-runner", sys.executable)
    assert verified(tmp_path / name, text) == ""
    wrong = text.replace("Type=notify", "Tpye=notify")
    assert "Unknown key" in verified(tmp_path / f"wrong-{name}", wrong)


def verified(path: Path, text: str) -> str:
    """Return what systemd says about a unit file."""
    path.write_text(text)
    result = subprocess.run(
        [str(ANALYZE), "verify", str(path)], capture_output=True, text=True, timeout=60
    )
    return result.stderr + (f"exit code {result.returncode}" if result.returncode else "")
