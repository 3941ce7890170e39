"""Threads that meet in the intake and the outbox: every order of them keeps the promises."""

from collections.abc import Callable, Generator
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from random import Random
from unittest.mock import patch

import pytest

from tests.threads.play import Play
from tests.threads.scheduler import Deadlock, Scheduler, SeededLock
from trio_runner import DurableOutbox
from trio_runner._outbox import Entry
from trio_runner._outbox._logs import WaitingLogs

SEEDS = 1000


@pytest.mark.timeout(300)
def test_no_promise_is_broken_in_1_000_schedules() -> None:
    """Every event arrives in order, on its side of its run; no thread waits for another's disk."""
    for seed in range(SEEDS):
        Play(seed).run()


# Races, each of which takes one precaution away


def no_run_lock(play: Play) -> None:
    """Let a run begin between asking whether it is still the same and queueing."""
    assert isinstance(play.intake._lock, SeededLock)
    play.intake._lock.excludes = False


def no_line_lock(play: Play) -> None:
    """Let threads change the line at the same time."""
    assert isinstance(play.outbox._lock, SeededLock)
    play.outbox._lock.excludes = False


@contextmanager
def sent_before_it_is_written() -> Generator[None, None, None]:
    """Let the end of a run go out while what went before it is still on the disk."""

    def may_go(self: DurableOutbox, head: Entry) -> bool:
        return True

    with patch.object(DurableOutbox, "_may_go", may_go):
        yield


@contextmanager
def grown_while_it_is_written() -> Generator[None, None, None]:
    """Let a log take in entries until it is sent, and count it as queued when it is written."""

    def withhold(self: WaitingLogs, log: Entry, characters: int) -> None:
        add(self, log, characters)
        for earlier, _ in self._logs:
            earlier.is_queued = False

    add = WaitingLogs.add
    with patch.object(WaitingLogs, "add", withhold):
        yield


@contextmanager
def line_held_over_a_write() -> Generator[None, None, None]:
    """Let Trio's thread wait for the disk."""
    commit = DurableOutbox.commit

    def locked(self: DurableOutbox) -> None:
        with self._lock:
            commit(self)

    with patch.object(DurableOutbox, "commit", locked):
        yield


def found(spoil: Callable[[Play], None] = lambda _: None) -> int | None:
    """Return the first seed that finds a race."""
    for seed in range(3 * SEEDS):
        try:
            Play(seed, spoil).run()
        except Exception:
            return seed
    return None


@pytest.mark.timeout(300)
@pytest.mark.parametrize("spoil", [no_run_lock, no_line_lock])
def test_a_lock_that_keeps_nobody_out_is_found(spoil: Callable[[Play], None]) -> None:
    """Threads change there as before, but none waits."""
    assert found(spoil) is not None


def test_a_deadlock_is_found() -> None:
    """Two locks are taken in two orders, so in some schedule each thread waits for the other."""

    def both(first: SeededLock, second: SeededLock) -> None:
        with first, second:
            pass

    def meet() -> None:
        for seed in range(1000):
            scheduler = Scheduler(Random(seed))
            one, other = scheduler.Lock(), scheduler.Lock()
            scheduler.start("a", partial(both, one, other))
            scheduler.start("b", partial(both, other, one))
            scheduler.run()

    with pytest.raises(Deadlock, match="a, b wait for one another"):
        meet()


def test_a_wait_ends_in_virtual_time() -> None:
    """One thread holds the lock for 5 s, and the other gives up after 1 s."""
    scheduler = Scheduler(Random(1))
    lock, gave_up_at = scheduler.Lock(), list[float]()

    def hold() -> None:
        with lock:
            scheduler.wait_for(lambda: False, 5)

    def give_up() -> None:
        scheduler.wait_for(lambda: lock.owner is not None)
        if not lock.acquire(timeout=1):
            gave_up_at.append(scheduler.now)

    scheduler.start("holds", hold)
    scheduler.start("gives up", give_up)
    scheduler.run()
    assert (gave_up_at, scheduler.now) == ([1.0], 5.0)


@pytest.mark.timeout(300)
@pytest.mark.parametrize(
    "race",
    [
        sent_before_it_is_written,
        grown_while_it_is_written,
        line_held_over_a_write,
    ],
)
def test_races_with_the_disk_are_found(
    race: Callable[[], AbstractContextManager[None]],
) -> None:
    """The first two need a kill between two steps."""
    with race():
        assert found() is not None
