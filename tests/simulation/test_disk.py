"""A durable outbox on the simulated disk: disk full, process killed, power lost, write torn."""

from functools import partial
from pathlib import Path
from random import Random

import pytest
import trio
import trio.testing

from trio_runner import DurableOutbox
from trio_runner._outbox_sqlite._disk import DISK_RETRY_S
from trio_runner.protocol import engine_messages as em
from trio_runner.simulation.stand_ins._disk import SimulatedDisk


class Clock:
    """A clock that stands still until the test puts it forward (s)."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def disk(tmp_path: Path) -> SimulatedDisk:
    return SimulatedDisk(tmp_path, Random(1))


def opened(disk: SimulatedDisk, clock: Clock | None = None) -> DurableOutbox:
    return DurableOutbox(disk.path, connect=disk.connect, clock=clock or Clock())


def event(number: int) -> em.RunStartedMsg:
    return em.RunStartedMsg(run_id=f"run-{number}", started_tick=float(number))


def found(disk: SimulatedDisk) -> list[str]:
    """Return the runs that the next process finds in its outbox, and end that process cleanly."""
    with opened(disk) as outbox:
        count = outbox.statistics().waiting
        return [outbox.take().text.split('"run_id":"')[1].partition('"')[0] for _ in range(count)]


def test_an_event_outlives_the_process_and_a_sample_does_once_committed(
    disk: SimulatedDisk,
) -> None:
    """After a kill, events and committed samples are found; the last sample is not."""
    with opened(disk) as outbox:
        outbox.put(event(1))
        outbox.put(em.TagsUpdatedMsg(tags=[], run_id="committed"))
        outbox.commit()
        outbox.put(em.TagsUpdatedMsg(tags=[], run_id="not committed"))
        disk.die(power=False)
    assert found(disk) == ["run-1", "committed"]


def test_what_was_synced_outlives_a_power_cut(disk: SimulatedDisk) -> None:
    """An outbox syncs each commit, so a power cut loses no more than a kill."""
    with opened(disk) as outbox:
        outbox.put(event(1))
        outbox.put(event(2))
        disk.die(power=True)
    assert found(disk) == ["run-1", "run-2"]


@pytest.mark.parametrize(
    ("power", "left"), [(False, ["run-1", "run-2", "run-3"]), (True, ["run-1"])]
)
def test_what_was_not_synced_is_lost_with_the_power(
    power: bool, left: list[str], disk: SimulatedDisk
) -> None:
    """Everything since the first commit without a sync is lost; a kill alone loses nothing."""
    with opened(disk) as outbox:
        outbox.put(event(1))
        outbox._disk.file.db.execute("PRAGMA synchronous = NORMAL")
        outbox.put(event(2))
        outbox.put(event(3))
        disk.die(power=power)
    assert found(disk) == left


def test_a_dead_process_writes_nothing(disk: SimulatedDisk) -> None:
    """Whatever a dead process still does, it does not change what the next one finds."""
    with opened(disk) as outbox:
        outbox.put(event(1))
        disk.die(power=False)
        outbox.put(event(2))
    assert found(disk) == ["run-1"]


def test_a_full_disk_is_told_and_tried_again(disk: SimulatedDisk) -> None:
    """While the disk is full an event is only in memory; with room, it is on disk 30 s later."""
    clock = Clock()
    with opened(disk, clock) as outbox:
        outbox.put(event(1))
        disk.is_full = True
        outbox.put(event(2))
        assert "full" in str(outbox.statistics().degraded)
        disk.is_full = False
        outbox.commit()
        assert outbox.statistics().degraded is not None
        clock.now = DISK_RETRY_S
        outbox.commit()
        assert outbox.statistics().degraded is None
        disk.die(power=True)
    assert found(disk) == ["run-1", "run-2"]


def test_what_a_full_disk_did_not_take_is_lost_with_the_process(disk: SimulatedDisk) -> None:
    """Only what was on the disk before is found."""
    with opened(disk) as outbox:
        outbox.put(event(1))
        disk.is_full = True
        outbox.put(event(2))
        disk.die(power=False)
        disk.is_full = False
    assert found(disk) == ["run-1"]


@pytest.mark.parametrize("seed", range(20))
def test_a_torn_write_is_there_or_not_and_harms_nothing_else(seed: int, tmp_path: Path) -> None:
    """Wherever the write is torn, earlier events are found, and it is found whole or not at all."""
    deaths: list[int] = []
    disk = SimulatedDisk(tmp_path, Random(seed))

    def lose_power() -> None:
        deaths.append(1)
        disk.die(power=True)

    disk.on_power_loss = lose_power
    with opened(disk) as outbox:
        for number in range(3):
            outbox.put(event(number))
        disk.tears = True
        outbox.put(event(3))
        assert (deaths, disk.tears) == ([1], False)
        outbox.put(event(4))
    before = ["run-0", "run-1", "run-2"]
    left = found(disk)
    assert left in (before, [*before, "run-3"])
    with opened(disk) as outbox:  # the outbox still works after that
        outbox.put(event(9))
        disk.die(power=True)
    assert found(disk) == [*left, "run-9"]


def test_writes_are_torn_at_different_bytes(tmp_path: Path) -> None:
    """Over ten seeds the torn writes in the log have many different lengths."""
    logs = set()
    for seed in range(10):
        folder = tmp_path / str(seed)
        folder.mkdir()
        disk = SimulatedDisk(folder, Random(seed))
        disk.on_power_loss = partial(disk.die, power=True)
        with opened(disk) as outbox:
            disk.tears = True
            outbox.put(event(1))
        logs.add(disk.path.with_name("unit.outbox-wal").stat().st_size)
    assert len(logs) > 5


def test_the_power_does_not_fail_while_a_process_starts(disk: SimulatedDisk) -> None:
    """Seed 2054: the cut killed no process, but what the new one wrote was lost when it died."""
    disk.on_power_loss = lambda: disk.die(power=True)
    disk.tears = True
    with disk.powered(), opened(disk) as outbox:
        outbox.put(event(1))
        assert disk.path.parent.name == "0"
    assert disk.tears
    disk.tears = False
    assert found(disk) == ["run-1"]


async def test_a_commit_takes_its_time_on_a_slow_disk_and_waits_on_one_that_hangs(
    disk: SimulatedDisk, autojump_clock: trio.testing.MockClock
) -> None:
    """It takes 1.2 s; held by two faults it waits for both; a cancelled commit is not done."""
    done_at: list[float] = []

    def work() -> None:
        done_at.append(trio.current_time())

    disk.commit_s = 1.2
    await disk.offload(work)
    disk.commit_s = 0
    async with trio.open_nursery() as nursery:
        with disk.hanging():
            nursery.start_soon(disk.offload, work)
            with disk.hanging():
                await trio.sleep(10)
            with trio.move_on_after(5):
                await disk.offload(lambda: pytest.fail("was cancelled"))
            assert done_at == pytest.approx([1.2])
    assert done_at == pytest.approx([1.2, 16.2])


async def test_a_disk_knows_what_would_have_held_up_trios_thread(
    disk: SimulatedDisk, autojump_clock: trio.testing.MockClock
) -> None:
    """A commit on a slow or hanging disk does, unless it is offloaded or marked as elsewhere."""
    waits: list[str] = []
    disk.on_wait = lambda: waits.append("wait")
    with opened(disk) as outbox:
        outbox.put(event(1))
        assert waits == []
        disk.commit_s = 1.0
        outbox.put(event(2))
        assert waits == ["wait"]
        with disk.elsewhere():
            outbox.put(event(3))
        outbox.commit_wanted = lambda: None
        outbox.put(event(4))
        await disk.offload(outbox.commit)
        outbox.commit_wanted, disk.commit_s = None, 0.0
        assert waits == ["wait"]
        with disk.hanging():
            outbox.put(event(5))
        assert waits == ["wait", "wait"]


@pytest.mark.parametrize("seed", range(10))
def test_a_log_that_the_disk_spoils_is_told(
    seed: int, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Whichever bit is spoilt, everything is found or the damage is told."""
    disk = SimulatedDisk(tmp_path, Random(seed))
    assert not disk.spoil_log()
    with opened(disk) as outbox:
        for number in range(5):
            outbox.put(event(number))
        disk.die(power=False)
    assert disk.spoil_log()
    left = found(disk)
    assert left == [f"run-{n}" for n in range(5)] or "is damaged: in its write-ahead log" in (
        caplog.text
    )
