"""Where an engine's outbox is, and what is said about it."""

import logging
import re
import signal
import stat
import time
from argparse import ArgumentTypeError
from contextlib import closing
from itertools import pairwise
from pathlib import Path

import pytest
import trio

from tests.helpers.command import Command, running, sampled
from tests.test_outbox import event
from tests.test_outbox_slow_disk import HangingDisk
from trio_runner import DurableOutbox, Outbox, OutboxError, OutboxNotWritable
from trio_runner._cli import _keeping
from trio_runner._cli._keeping import Keeping, bytes_of
from trio_runner.protocol import engine_messages as em
from trio_runner.simulation import SimulatedEngine


@pytest.fixture
def state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return the user's state folder, which does not exist yet."""
    monkeypatch.delenv("STATE_DIRECTORY", raising=False)
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    return tmp_path / "state"


@pytest.fixture
def log(caplog: pytest.LogCaptureFixture) -> pytest.LogCaptureFixture:
    """Return what is logged."""
    caplog.set_level(logging.INFO, "trio_runner")
    return caplog


def opened(keeping: Keeping, unit: str = "Skid") -> Outbox:
    """Return the outbox of a unit, closed; it still knows where it is."""
    with closing(keeping.open(unit, SimulatedEngine(unit))) as outbox:
        return outbox


def path_of(outbox: Outbox) -> Path:
    """Return where an outbox on disk is."""
    assert isinstance(outbox, DurableOutbox)
    return outbox.path


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("64M", 64 * 1024**2),
        ("2g", 2 * 1024**3),
        ("2048K", 2 * 1024**2),
        ("1048576", 1024**2),
        ("5MB", 5 * 1024**2),
        ("5MiB", 5 * 1024**2),
    ],
)
def test_a_size_is_read_with_its_letter(text: str, number: int) -> None:
    """Letters mean powers of 1024; without a letter it is in bytes."""
    assert bytes_of(text) == number


@pytest.mark.parametrize("text", ["", "M", "-1M", "1.5G", "64X", "1000", "0", "1" * 20, "٣M"])
def test_a_wrong_size_is_refused(text: str) -> None:
    """A text that is no number, and a size that would hold next to nothing."""
    with pytest.raises(ArgumentTypeError):
        bytes_of(text)


def test_by_default_each_engine_has_a_file_in_the_users_state_folder(
    state: Path, log: pytest.LogCaptureFixture
) -> None:
    """The folder is closed to others, and simulated engines are kept apart from real ones."""
    paths = [path_of(opened(Keeping("engine"), unit)) for unit in ("A", "B")]
    folder = state / "trio-runner" / "engine"
    assert paths == [folder / "A.outbox", folder / "B.outbox"]
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert path_of(opened(Keeping("simulated"), "A")) == folder.parent / "simulated" / "A.outbox"
    told = f"The outbox is {folder / 'A.outbox'}: nothing waits in it from before"
    assert log.messages[0] == told


def test_a_service_has_its_own_state_folder(state: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is the folder that systemd gives, or the first of several."""
    monkeypatch.setenv("STATE_DIRECTORY", f"{state}/one:{state}/two")
    assert path_of(opened(Keeping("engine"))) == state / "one" / "engine" / "Skid.outbox"


def test_a_path_may_be_a_file_or_a_folder(state: Path, tmp_path: Path) -> None:
    """It is a folder if there is one; several units need a folder, which is made."""
    assert path_of(opened(Keeping("engine", str(tmp_path / "it")))) == tmp_path / "it"
    assert path_of(opened(Keeping("engine", str(tmp_path)))) == tmp_path / "Skid.outbox"
    several = Keeping("engine", str(tmp_path / "new"), is_for_several=True)
    assert path_of(opened(several)) == tmp_path / "new" / "Skid.outbox"
    with pytest.raises(OutboxError, match="Several UODs need a folder"):
        opened(Keeping("engine", str(tmp_path / "it"), is_for_several=True))
    assert not state.exists()


def test_an_outbox_in_memory_is_logged(state: Path, log: pytest.LogCaptureFixture) -> None:
    """It is in memory if that is asked for, and nothing is written."""
    outbox = opened(Keeping("engine", "memory", 2**20))
    assert (outbox.is_durable, outbox.bytes_max) == (False, 2**20)
    assert log.messages == [
        "The outbox is in memory: what waits is lost when the process ends",
    ]
    assert not state.exists()


def test_the_given_bound_is_that_of_the_outbox(state: Path) -> None:
    """It is that of an outbox on disk as of one in memory."""
    assert opened(Keeping("engine", None, 2**20)).bytes_max == 2**20


def test_the_log_says_what_waits_from_before(state: Path, log: pytest.LogCaptureFixture) -> None:
    """It says how many messages wait."""
    for told in ("nothing waits", "1 message waits", "2 messages wait"):
        with closing(Keeping("engine").open("Skid", SimulatedEngine("Skid"))) as outbox:
            outbox.put(em.TagsUpdatedMsg(tags=[]))
        assert log.messages[-1].endswith(f"Skid.outbox: {told} in it from before")


@pytest.mark.parametrize("where", [None, "it"])
def test_the_engine_runs_even_if_its_file_cannot_be_had(
    where: str | None,
    state: Path,
    tmp_path: Path,
    log: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """It is in use or the disk is full: an error is logged, and the engine runs from memory."""
    keeping = Keeping("engine", where and str(tmp_path / where))
    path = path_of(opened(keeping))
    with DurableOutbox(path):
        assert opened(keeping).is_durable is False
    assert log.records[-1].levelname == "ERROR"
    assert "is in use by another process" in log.messages[-1]
    assert "What waits is kept in MEMORY ONLY" in log.messages[-1]

    def refuse(path: Path, **_: object) -> None:
        raise OutboxNotWritable(f"The outbox {path} cannot be written: disk full.")

    monkeypatch.setattr(_keeping, "DurableOutbox", refuse)
    assert opened(keeping).is_durable is False
    assert "disk full. What waits is kept in MEMORY ONLY" in log.messages[-1]


def test_a_folder_that_cannot_be_made_is_logged(state: Path, log: pytest.LogCaptureFixture) -> None:
    """The home is read-only, or there is none."""
    state.write_text("no folder")
    assert opened(Keeping("engine")).is_durable is False
    assert f"Cannot keep an outbox in the folder {state}" in log.messages[-1]
    assert log.records[-1].levelname == "ERROR"


@pytest.mark.parametrize("is_anothers", [False, True])
def test_a_wrong_file_is_refused_only_if_it_was_given(
    is_anothers: bool, state: Path, log: pytest.LogCaptureFixture
) -> None:
    """It is a text, or another unit's outbox. Without a given path nobody could choose another."""
    path = path_of(opened(Keeping("engine")))
    path.unlink()
    if is_anothers:
        with DurableOutbox(path) as outbox:
            outbox.claim("pc_Other")
            outbox.put(em.TagsUpdatedMsg(tags=[]))
    else:
        path.write_text("notes\n" * 1000)
    with pytest.raises(OutboxError):
        opened(Keeping("engine", str(path)))
    assert opened(Keeping("engine")).is_durable is False
    assert "MEMORY ONLY" in log.messages[-1]


async def test_a_disk_that_hangs_at_the_end_does_not_hold_up_trios_thread(
    tmp_path: Path, log: pytest.LogCaptureFixture
) -> None:
    """The outbox is left behind after 3 s, even by a cancelled task; all else turns meanwhile."""
    disk = HangingDisk()
    outbox = DurableOutbox(tmp_path / "it.outbox", connect=disk.connect)
    turns = [trio.current_time()]

    async def turn() -> None:
        while True:
            await trio.sleep(0.01)
            turns.append(trio.current_time())

    async with trio.open_nursery() as nursery:
        nursery.start_soon(turn)
        began = time.perf_counter()
        with trio.CancelScope() as scope:
            async with _keeping.closing(outbox):
                outbox.put(event("one"))
                disk.works.clear()
                scope.cancel()
        took_s = time.perf_counter() - began
        nursery.cancel_scope.cancel()
    disk.works.set()
    assert 2.9 < took_s < 4
    assert max(b - a for a, b in pairwise(turns)) < 0.5
    assert "is left behind because its disk hangs" in log.text


async def test_the_simulated_engine_keeps_what_waits_by_default(tmp_path: Path) -> None:
    """The first lines of its log say where; the next process says what it found there."""

    async def play(*arguments: str) -> Command:
        environment = {"XDG_STATE_HOME": str(tmp_path)}
        async with running(
            *("simulated", "-ap", "9", "--name", "Skid", *arguments), environment=environment
        ) as command:
            await command.until("Disconnected -> Failed")
            if not arguments:
                await sampled(path)
            command.send(signal.SIGTERM)
        assert command.code == 0
        return command

    path = tmp_path / "trio-runner" / "simulated" / "Skid.outbox"
    first, *_ = (await play()).err.splitlines()
    assert f"The outbox is {path}: nothing waits in it from before" in first
    first, *_ = (await play("--outbox-max", "2M")).err.splitlines()
    assert re.search(r": \d+ messages? waits? in it from before", first)
    command = await play("--outbox", "memory")
    first, *_ = command.err.splitlines()
    assert "The outbox is in memory" in first
