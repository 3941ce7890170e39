"""A slow or hanging disk under the durable outbox: who waits for it, and for how long."""

import math
import sqlite3
import threading
import time
from collections.abc import AsyncGenerator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from random import Random
from typing import Any

import pytest
import trio
import trio.testing
from attrs import define, field

from tests.helpers.unit import Unit
from tests.test_outbox import UNIT, error_log, event, sample, texts_of
from tests.test_outbox_sqlite import numbers, rows
from trio_runner import DurableOutbox, EngineDispatcher, EngineRunner, OutboxClosed, OutboxInUse
from trio_runner._outbox_sqlite._commits import Commits
from trio_runner.protocol import engine_messages as em
from trio_runner.simulation import Aggregator, SimulatedDisk


@define(eq=False)
class HangingDisk:
    """A disk whose commits take a time (s), or hang while `works` is not set.

    The next `good` commits succeed, and those after them fail with `error`.
    """

    commit_s: float = 0.0
    good: float = math.inf
    error: BaseException = field(factory=lambda: sqlite3.OperationalError("disk I/O error"))
    works: threading.Event = field(factory=threading.Event)
    reached: threading.Event = field(factory=threading.Event)
    """Set when a commit has reached the disk."""

    def __attrs_post_init__(self) -> None:
        self.works.set()

    def connect(self, *arguments: Any, **options: Any) -> sqlite3.Connection:
        disk = self

        class Connection(sqlite3.Connection):
            def execute(self, sql: str, parameters: Any = (), /) -> sqlite3.Cursor:
                if sql == "COMMIT":
                    disk.reached.set()
                    time.sleep(disk.commit_s)
                    disk.works.wait()
                    disk.good -= 1
                    if disk.good < 0:
                        raise disk.error
                return super().execute(sql, parameters)

        return sqlite3.connect(*arguments, factory=Connection, **options)


@pytest.fixture
def disk() -> Iterator[HangingDisk]:
    disk = HangingDisk()
    yield disk
    disk.works.set()


def are_daemons() -> list[bool]:
    """Return of each thread that an outbox has started whether it lets the process end."""
    return [thread.daemon for thread in threading.enumerate() if thread.name == "outbox"]


@contextmanager
def committed(outbox: DurableOutbox) -> Iterator[threading.Event]:
    """Commit in another thread when that is wanted, as a runner does; yield the event for that."""
    wanted, is_over, done = threading.Event(), threading.Event(), threading.Event()

    def keep_committing() -> None:
        while wanted.wait() and not is_over.is_set():
            wanted.clear()
            outbox.commit()
            done.set()

    thread = threading.Thread(target=keep_committing, daemon=True)
    thread.start()
    outbox.commit_wanted = wanted.set
    yield done
    outbox.commit_wanted = None
    is_over.set()
    wanted.set()


async def test_no_disk_holds_up_trios_thread(path: Path, disk: HangingDisk) -> None:
    """Each call returns at once, and the event goes out once it is on the disk."""
    with DurableOutbox(path, connect=disk.connect) as outbox, committed(outbox) as done:
        disk.works.clear()
        began = time.perf_counter()
        outbox.put(event("one"))
        for _ in range(20):
            assert outbox.head() is None
            assert len(outbox) == outbox.statistics().waiting == 1
        assert time.perf_counter() - began < 0.05
        assert rows(path) == []
        disk.works.set()
        await trio.to_thread.run_sync(done.wait, 5)
        assert outbox.head() is not None
        assert rows(path) == [1]


def test_a_disk_that_is_quick_again_is_told_after_a_minute(
    path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """It was slow at 2 s; at 61.9 s that is too soon to say, at 62 s it is said once."""
    now_s = 0.0
    with DurableOutbox(path, clock=lambda: now_s) as outbox:
        outbox.commit_wanted = lambda: None  # and nobody does it
        entered = outbox.enter(event("one"))
        assert entered is not None
        now_s = 2.0
        assert outbox.head() is entered
        told = list[int]()
        for at_s in (3.0, 61.9, 62.0, 200.0):
            now_s = at_s
            outbox.commit()
            told.append(sum(line.endswith("is quick again") for line in caplog.messages))
    assert told == [0, 0, 1, 1]
    assert caplog.text.count("it is slow, or hangs") == 1


def test_a_disk_to_which_nobody_writes_is_not_slow(path: Path) -> None:
    """Samples without a runner wait for the next event."""
    now_s = 0.0
    with DurableOutbox(path, clock=lambda: now_s) as outbox:
        outbox.put(sample(1))
        now_s = 10.0
        assert outbox.statistics().degraded is None


def test_an_engines_thread_waits_no_longer_than_the_disk_takes(path: Path) -> None:
    """A healthy one takes milliseconds."""
    with DurableOutbox(path) as outbox, committed(outbox):
        began = time.perf_counter()
        outbox.put(event("one"))
        assert time.perf_counter() - began < 0.9
        assert rows(path) == [1]


def test_an_engines_thread_waits_for_a_hanging_disk_a_second_at_most(
    path: Path, disk: HangingDisk, caplog: pytest.LogCaptureFixture
) -> None:
    """The event is then in memory, told as degraded, and can be sent; the next does not wait."""
    with DurableOutbox(path, connect=disk.connect) as outbox, committed(outbox):
        disk.works.clear()
        began = time.perf_counter()
        outbox.put(event("one"))
        assert 0.9 < time.perf_counter() - began < 1.5
        assert "it is slow, or hangs" in caplog.text
        assert outbox.statistics().degraded == "the disk has not written for 1 s"
        began = time.perf_counter()
        entered = outbox.enter(event("two"))
        assert entered is not None
        assert entered.is_queued
        outbox.secure(entered)
        assert outbox.head() is not None
        assert time.perf_counter() - began < 0.1
        disk.works.set()
        while outbox.statistics().degraded is not None:
            time.sleep(0.01)
    assert numbers(path) == [1, 2]
    assert caplog.text.count("hangs") == 1


def test_a_tick_with_many_events_waits_for_a_slow_disk_a_second_at_most(
    path: Path, disk: HangingDisk
) -> None:
    """Six events take 0.3 s a commit. The next tick waits for a tenth of the time since."""
    with DurableOutbox(path, connect=disk.connect) as outbox, committed(outbox):
        disk.commit_s = 0.3
        began = time.perf_counter()
        for number in range(6):
            outbox.put(event(str(number)))
        # Four commits would take 1.2 s.
        assert 0.9 < time.perf_counter() - began < 1.1
        assert outbox.statistics().degraded == (
            "the disk is slow: WebPushNotificationMsg 6 is not on it yet"
        )
        head = outbox.head()
        assert head is not None
        assert head.sequence_number == 1
        began = time.perf_counter()
        outbox.put(event("six"))
        assert time.perf_counter() - began < 0.1
        disk.commit_s = 0
    assert numbers(path) == list(range(1, 8))


def test_a_put_without_a_runner_waits_for_a_hanging_disk_a_second_at_most(
    path: Path, disk: HangingDisk, caplog: pytest.LogCaptureFixture
) -> None:
    """Before the runner runs and after it has ended, an engine's control loop still goes on."""
    with DurableOutbox(path, connect=disk.connect) as outbox:
        outbox.put(event("zero"))
        assert rows(path) == [1]
        disk.works.clear()
        began = time.perf_counter()
        outbox.put(event("one"))
        assert 0.9 < time.perf_counter() - began < 1.5
        assert outbox.statistics().degraded == "the disk has not written for 1 s"
        assert are_daemons() == [True]
        began = time.perf_counter()
        outbox.put(event("two"))
        assert time.perf_counter() - began < 0.1
        disk.works.set()
    assert numbers(path) == [1, 2, 3]
    assert caplog.text.count("it is slow, or hangs") == 1


async def test_in_trios_thread_too_a_put_without_a_runner_waits_a_second_at_most(
    path: Path, disk: HangingDisk
) -> None:
    """The disk is real, so another thread can wait for it."""
    with DurableOutbox(path, connect=disk.connect) as outbox:
        disk.works.clear()
        began = time.perf_counter()
        outbox.put(event("one"))
        assert 0.9 < time.perf_counter() - began < 1.5
        disk.works.set()
    assert numbers(path) == [1]


async def test_an_error_log_goes_out_when_it_is_written_whatever_is_logged_meanwhile(
    path: Path, disk: HangingDisk
) -> None:
    """A log that grew while it is written would never be done, as each commit finds another entry.

    What is already on the disk goes out with the first, when it is written in that form.
    """
    with DurableOutbox(path, connect=disk.connect) as outbox:
        outbox.commit_wanted = lambda: None
        outbox.put(error_log("one"))
        outbox.put(error_log("two"))
        outbox.commit()
        head = outbox.head()
        assert head is not None
        assert not outbox.make_ready(head)
        disk.works.clear()
        disk.reached.clear()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(trio.to_thread.run_sync, outbox.commit)
            await trio.to_thread.run_sync(disk.reached.wait, 5)
            outbox.put(error_log("three"))
            assert outbox.head() is None
            disk.works.set()
        assert outbox.head() is head
        assert outbox.make_ready(head)
        assert texts_of(outbox.take()) == ["one", "two"]
        outbox.commit_wanted = None


def test_a_commit_that_waited_for_a_slow_one_and_fails_withholds_nothing(
    path: Path, disk: HangingDisk, caplog: pytest.LogCaptureFixture
) -> None:
    """The first one's event is on the disk, and the second one's is in memory; both can be sent.

    Otherwise the second event, the beginning of a run, would wait for what went before to be off
    the disk.
    """
    with DurableOutbox(path, connect=disk.connect) as outbox:
        outbox.commit_wanted = lambda: None
        disk.works.clear()
        disk.reached.clear()
        outbox.enter(event("one"))
        commits = [threading.Thread(target=outbox.commit) for _ in range(2)]
        commits[0].start()
        disk.reached.wait(5)
        outbox.enter(UNIT.create_run_started_msg("a", 1.0))
        commits[1].start()
        assert outbox.head() is None
        disk.good = 1
        disk.works.set()
        for commit in commits:
            commit.join()
        assert rows(path) == [1]
        assert outbox.statistics().degraded == "disk I/O error"
        for number in (1, 2):
            head = outbox.head()
            assert head is not None
            assert head.sequence_number == number
            outbox.delivered(outbox.take())
        disk.good = math.inf
        outbox.commit_wanted = None
    assert caplog.text.count("cannot be written (disk I/O error)") == 1


def test_a_commit_that_was_interrupted_is_made_up_for_by_the_next(
    path: Path, disk: HangingDisk
) -> None:
    """After Ctrl-C nobody knows what is on the disk, so the next commit writes all that waits."""
    with DurableOutbox(path, connect=disk.connect) as outbox:
        outbox.commit_wanted = lambda: None
        outbox.enter(event("one"))
        disk.good, disk.error = 0, KeyboardInterrupt()
        with pytest.raises(KeyboardInterrupt):
            outbox.commit()
        assert outbox.statistics().degraded == "interrupted by KeyboardInterrupt()"
        disk.good = math.inf
        outbox.commit()
        assert outbox.statistics().degraded is None
        assert rows(path) == [1]
        outbox.commit_wanted = None


def test_a_disk_that_has_recovered_is_still_the_one_that_was_given(
    path: Path, disk: HangingDisk
) -> None:
    """It fails once more, as no other would."""
    now_s = 0.0
    with DurableOutbox(path, connect=disk.connect, clock=lambda: now_s) as outbox:
        for number in (1, 2):
            disk.good = 0
            outbox.put(event(str(number)))
            assert outbox.statistics().degraded == "disk I/O error"
            disk.good, now_s = math.inf, now_s + 31
            outbox.commit()
            assert outbox.statistics().degraded is None
            assert rows(path) == list(range(1, number + 1))


def test_a_commit_of_a_closed_outbox_returns_at_once(path: Path) -> None:
    """A runner may still ask for one."""
    outbox = DurableOutbox(path)
    outbox.close()
    began = time.perf_counter()
    outbox.commit()
    assert time.perf_counter() - began < 0.5


def test_closing_does_not_wait_for_a_hanging_disk(
    path: Path, disk: HangingDisk, caplog: pytest.LogCaptureFixture
) -> None:
    """It takes 3 s, even if the disk hangs from that moment on; what is written later is whole."""
    outbox = DurableOutbox(path, connect=disk.connect)
    outbox.put(event("one"))
    disk.works.clear()
    began = time.perf_counter()
    outbox.close()
    assert 2.9 < time.perf_counter() - began < 4
    assert f"The outbox {path} is left behind because its disk hangs" in caplog.text
    assert are_daemons() == [True]  # so that the process can end
    with pytest.raises(OutboxClosed):
        outbox.put(event("two"))
    disk.works.set()
    while True:
        try:
            assert numbers(path) == [1]
            break
        except OutboxInUse:
            time.sleep(0.01)


def test_a_commit_that_hung_while_the_outbox_was_closed_releases_its_file(
    path: Path, disk: HangingDisk
) -> None:
    """The thread that closed it has gone on, so no other is left to do that."""
    outbox = DurableOutbox(path, connect=disk.connect)
    outbox.commit_wanted = lambda: None
    outbox.enter(event("one"))
    disk.works.clear()
    disk.reached.clear()
    commit = threading.Thread(target=outbox.commit, daemon=True)
    commit.start()
    disk.reached.wait(5)
    outbox.close()
    disk.works.set()
    commit.join()
    assert numbers(path) == [1]


async def test_closing_in_trios_thread_waits_for_a_hanging_disk_3_s_at_most(
    path: Path, disk: HangingDisk, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another thread closes it: SQLite's own connection is not that of a disk in virtual time."""
    connect = disk.connect
    outbox = DurableOutbox(path, connect=connect)
    monkeypatch.setattr(sqlite3, "connect", connect)
    outbox.put(sample(1))
    disk.works.clear()
    began = time.perf_counter()
    outbox.close()
    assert 2.9 < time.perf_counter() - began < 4
    disk.works.set()


async def test_a_run_event_goes_out_after_the_disk_knows_what_was_delivered(path: Path) -> None:
    """What follows a delivered run event waits until the disk knows that it was delivered."""
    wanted: list[None] = []
    with DurableOutbox(path) as outbox:
        outbox.commit_wanted = lambda: wanted.append(None)
        outbox.put(sample(1))
        outbox.put(UNIT.create_run_started_msg("a", 1.0))
        outbox.put(sample(3))
        outbox.commit()
        outbox.delivered(outbox.take())
        wanted.clear()
        assert outbox.head() is None
        assert wanted
        outbox.commit()
        assert rows(path) == [2, 3]
        wanted.clear()
        outbox.delivered(outbox.take())
        assert wanted
        assert outbox.head() is None
        outbox.commit()
        assert outbox.head() is not None
        outbox.commit_wanted = None


# Under a runner, on the real clock


STILL_S_MAX = 0.05 + 0.15
"""For how long Trio's thread may do nothing (s), with what a loaded machine adds."""


@define(eq=False)
class Pulse:
    """Measures the longest time (s) in which Trio's thread did nothing else."""

    longest_s: float = 0.0

    async def beat(self) -> None:
        last = time.perf_counter()
        while True:
            await trio.sleep(0.005)
            now = time.perf_counter()
            self.longest_s, last = max(self.longest_s, now - last - 0.005), now


async def test_a_disk_that_needs_more_than_a_second_never_holds_up_trios_thread(
    path: Path, disk: HangingDisk
) -> None:
    """1.2 s a commit, and events of the engine's thread: 50 ms at most, and all arrive in order."""
    aggregator, unit, pulse = Aggregator(), Unit(clock=time.time), Pulse()
    with DurableOutbox(path, connect=disk.connect) as outbox:
        async with trio.open_nursery() as nursery:
            opener = aggregator.in_memory(nursery)
            dispatcher = EngineDispatcher("a.example", handlers=unit, open_stream=opener)
            runner = EngineRunner(dispatcher, unit, unit, outbox=outbox)
            await nursery.start(runner.run)
            disk.commit_s = 1.2
            waited_s: list[float] = []

            def engine() -> None:
                for number in range(3):
                    began = time.perf_counter()
                    runner.on_notify_command(str(number))
                    waited_s.append(time.perf_counter() - began)

            nursery.start_soon(pulse.beat)
            await trio.to_thread.run_sync(engine)
            runner.on_notify_command("3")
            await aggregator.wait_until(lambda: len(notified(aggregator)) == 4)
            disk.commit_s = 0
            await runner.shutdown()
            nursery.cancel_scope.cancel()
    assert notified(aggregator) == ["0", "1", "2", "3"]
    assert 0.5 < max(waited_s) < 1.3
    assert pulse.longest_s < STILL_S_MAX


def notified(aggregator: Aggregator) -> list[str]:
    told = aggregator.messages(em.WebPushNotificationMsg)
    return [str(message.notification.body) for message in told]


@pytest.mark.parametrize("is_down", [False, True])
async def test_a_disk_that_hangs_does_not_hold_up_the_end(
    path: Path, disk: HangingDisk, caplog: pytest.LogCaptureFixture, is_down: bool
) -> None:
    """It takes 3 s at most, without a link for the flush and with one that has nothing to flush."""
    aggregator, unit, pulse = Aggregator(), Unit(clock=time.time), Pulse()
    if is_down:
        aggregator.down()
    outbox = DurableOutbox(path, connect=disk.connect)
    async with trio.open_nursery() as nursery:
        opener = aggregator.in_memory(nursery)
        dispatcher = EngineDispatcher("a.example", handlers=unit, open_stream=opener)
        runner = EngineRunner(dispatcher, unit, unit, outbox=outbox)
        await nursery.start(runner.run)
        disk.works.clear()
        nursery.start_soon(pulse.beat)
        runner.on_notify_command("hello")
        await trio.sleep(1.2)
        began = time.perf_counter()
        await runner.shutdown()
        assert time.perf_counter() - began < 3
        nursery.cancel_scope.cancel()
    assert pulse.longest_s < STILL_S_MAX
    assert notified(aggregator) == ([] if is_down else ["hello"])
    doubtful = (
        "kept in {} only as far as its disk has taken them (the disk has not written for 1 s)"
    )
    assert (doubtful.format(path) in caplog.text) == is_down
    outbox.close()
    assert "is left behind because its disk hangs" in caplog.text


# In virtual time


async def test_without_a_runner_an_event_is_on_a_simulated_disk_at_once(
    tmp_path: Path, autojump_clock: trio.testing.MockClock
) -> None:
    """No other thread would know its clock."""
    disk = SimulatedDisk(tmp_path, Random(1))
    with DurableOutbox(disk.path, connect=disk.connect, clock=trio.current_time) as outbox:
        outbox.put(event("one"))
        assert rows(disk.path) == [1]


# Under a runner, in virtual time


async def test_an_event_goes_out_as_soon_as_a_slow_disk_has_it(
    tmp_path: Path, autojump_clock: trio.testing.MockClock
) -> None:
    """A commit takes 0.4 s, and is asked for at once and not at the next half second."""
    aggregator, unit, disk = Aggregator(), Unit(), SimulatedDisk(tmp_path, Random(1))
    async with running(disk, aggregator, unit) as runner:
        await trio.sleep(3.01)
        disk.commit_s = 0.4
        runner.on_notify_command("hello")
        await aggregator.wait_until(lambda: notified(aggregator))
        assert trio.current_time() == pytest.approx(3.41)
        assert runner.statistics().outbox.degraded is None


async def test_while_the_disk_hangs_an_event_goes_out_from_memory_and_the_end_is_in_time(
    tmp_path: Path, autojump_clock: trio.testing.MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    """It goes out at 1 s, with the next sample. The end waits only a second for the last commit."""
    aggregator, unit, disk = Aggregator(), Unit(), SimulatedDisk(tmp_path, Random(1))
    async with running(disk, aggregator, unit) as runner:
        await trio.sleep(3.01)
        with disk.hanging():
            runner.on_notify_command("hello")
            await aggregator.wait_until(lambda: notified(aggregator))
            assert 4.01 <= trio.current_time() < 4.01 + 0.3
            assert runner.statistics().outbox.degraded == "the disk has not written for 1 s"
            assert caplog.text.count("it is slow, or hangs") == 1
            await trio.sleep(10)
            began = trio.current_time()
            await runner.shutdown()
            assert trio.current_time() - began == pytest.approx(1)
    assert counts(aggregator) == list(range(1, unit.count + 1))


def counts(aggregator: Aggregator) -> list[int]:
    told = aggregator.messages(em.TagsUpdatedMsg)
    return [tag.value for message in told for tag in message.tags if isinstance(tag.value, int)]


@asynccontextmanager
async def running(
    disk: SimulatedDisk, aggregator: Aggregator, unit: Unit
) -> AsyncGenerator[EngineRunner, None]:
    """Run an engine with its outbox on a simulated disk."""
    with DurableOutbox(disk.path, connect=disk.connect, clock=trio.current_time) as outbox:
        async with trio.open_nursery() as nursery:
            dispatcher = EngineDispatcher(
                "a.example", handlers=unit, open_stream=aggregator.in_memory(nursery)
            )
            runner = EngineRunner(dispatcher, unit, unit, outbox=outbox, offload=disk.offload)
            await nursery.start(runner.run)
            yield runner
            nursery.cancel_scope.cancel()


@define(eq=False)
class Waiting:
    """A condition on which a thread waits until `over_after_s`, or as long as it may, by `now`."""

    now: float
    over_after_s: float = math.inf
    waited_s: list[float] = field(factory=list)

    def wait_for(self, predicate: Callable[[], bool], timeout: float | None = None) -> bool:
        assert timeout is not None
        self.waited_s.append(min(timeout, self.over_after_s))
        self.now += self.waited_s[-1]
        return self.over_after_s <= timeout

    def notify_all(self) -> None:
        """Wake nobody."""

    def __enter__(self) -> bool:
        return True

    def __exit__(self, *_: object) -> None:
        """Release nothing."""


def test_an_engines_thread_waits_a_second_at_once_and_a_tenth_of_the_time_on_average() -> None:
    """What it has waited is made up for by ten times as long: 0.5 s in 5 s, 1 s in 10 s.

    At 100 s all of 1 s is free, at 101 s and right after that nothing. By 106 s 0.5 s are, and by
    108.5 s 0.2 s more. The commit that takes 0.125 s at 208.7 s leaves 0.875 s.
    """
    disk = Waiting(100.0)
    commits = Commits(lambda: disk.now, disk)
    for at in (100.0, 101.0, 101.0, 106.0, 108.5):
        disk.now = at
        commits.wait_until(lambda: False)
    assert disk.waited_s == pytest.approx([1, 0, 0, 0.5, 0.2])
    disk.now, disk.over_after_s = 208.7, 0.125
    commits.wait_until(lambda: True)
    disk.over_after_s = math.inf
    commits.wait_until(lambda: False)
    assert disk.waited_s[5:] == pytest.approx([0.125, 0.875])


def test_a_disk_that_was_slow_counts_as_quick_after_a_minute_and_is_told_of_once() -> None:
    """60 s after it was slow for the last time, and the next time it is slow is news again."""
    disk = Waiting(0.0)
    commits = Commits(lambda: disk.now, disk)
    assert not commits.became_quick()
    told = []
    for at in (10.0, 20.0, 100.0):
        disk.now = at
        told.append(commits.became_slow())
        disk.now += 59.9
        told.append(commits.became_quick())
        disk.now = at + 60
        told += [commits.became_quick() for _ in range(2) if at > 10]
    assert told == [True, False, False, False, True, False, True, False, True, False]


def test_a_disk_is_slow_when_something_has_waited_for_a_second() -> None:
    """Whether no commit has taken it, or one has that does not end."""
    disk = Waiting(10.0)
    commits = Commits(lambda: disk.now, disk)
    seen = []
    for act in (commits.want, commits.want, commits.begin, commits.end, commits.begin):
        act()
        seen.append(commits.is_slow)
        disk.now += 0.5
    assert seen == [False, False, True, False, False]
    assert (commits.begun, commits.ended) == (2, 1)
    disk.now += 0.5
    assert commits.is_slow
    commits.end()
    assert not commits.is_slow
    assert (commits.begun, commits.ended) == (2, 2)
