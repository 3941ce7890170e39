"""What the aggregator sees when the engine's process has died and a new one begins."""

import shutil
import threading
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from itertools import pairwise
from pathlib import Path

import pytest
import trio
import trio.testing

from tests.helpers.unit import EPOCH, Middle, Unit, wall_clock
from tests.test_outbox import LINE
from trio_runner import (
    DurableOutbox,
    EngineDispatcher,
    EngineRunner,
    MemoryOutbox,
    OutboxOfAnotherUnit,
)
from trio_runner.protocol import aggregator_messages as am
from trio_runner.protocol import engine_messages as em
from trio_runner.simulation import Aggregator

Clock = trio.testing.MockClock


async def in_place(work: Callable[[], None]) -> None:
    """Do at once what a thread would do, since a mock clock does not wait for threads."""
    work()
    await trio.lowlevel.checkpoint()


@asynccontextmanager
async def process(
    path: Path, aggregator: Aggregator, unit: Unit, *, resume_run: str | None = None
) -> AsyncGenerator[EngineRunner, None]:
    """Run an engine and kill it at the end of the block. Its file stays as it was then."""
    async with trio.open_nursery() as nursery:
        with DurableOutbox(path) as outbox:
            dispatcher = EngineDispatcher(
                "aggregator.example", handlers=unit, open_stream=aggregator.in_memory(nursery)
            )
            runner = EngineRunner(
                dispatcher,
                unit,
                unit,
                outbox=outbox,
                resume_run=resume_run,
                offload=in_place,
                rng=Middle(),
                clock=wall_clock,
            )
            nursery.start_soon(runner.run)  # noqa: ASYNC113
            yield runner
            for end in ("", "-wal"):
                shutil.copy(f"{path}{end}", f"{path}{end}.at-kill")
            aggregator.drop()
            await trio.testing.wait_all_tasks_blocked()  # without a link nothing is flushed
            nursery.cancel_scope.cancel()
    for end in ("", "-wal"):
        shutil.move(f"{path}{end}.at-kill", f"{path}{end}")


def kinds(aggregator: Aggregator, connection: int) -> list[str]:
    """Return what came over the last links, without states and without repeats in a row."""
    names = [
        type(r.message).__name__.removesuffix("Msg")
        for r in aggregator.engine().received
        if r.connection >= connection
        and isinstance(r.message, em.RunStartedMsg | em.RunStoppedMsg | em.TagsUpdatedMsg)
    ]
    return [name for i, name in enumerate(names) if i == 0 or name != names[i - 1]]


def refused_tags(aggregator: Aggregator) -> list[object]:
    return [r for r in aggregator.engine().refused if isinstance(r.message, em.TagsUpdatedMsg)]


def counts(aggregator: Aggregator) -> list[int]:
    return [int(str(m.tags[0].value)) for m in aggregator.messages(em.TagsUpdatedMsg)]


@pytest.mark.parametrize("aggregator_dies", ["never", "first", "second"])
async def test_a_run_that_was_on_is_ended_and_new_samples_are_taken(
    aggregator_dies: str, path: Path, autojump_clock: Clock
) -> None:
    """Nobody has to press anything. The run is stored with its last run log and method state."""
    aggregator, unit = Aggregator(), Unit()
    async with process(path, aggregator, unit) as runner:
        await trio.sleep(1)
        runner.on_start("run-1")
        unit.run_log.append(LINE)
        await trio.sleep(2.05)  # At 3.05 s: the run log came at 1.3 s and was committed at 1.5 s.
        # It loses the run, and the engine has no time to tell it again.
        if aggregator_dies == "first":
            aggregator.down()
            aggregator.kill()
    if aggregator_dies == "second":  # it has kept the run of the engine that it lost
        aggregator.kill()
    aggregator.up()
    unit = Unit(count=unit.count)
    async with process(path, aggregator, unit) as runner:
        await trio.sleep(2)
        assert refused_tags(aggregator) == []
        (run,) = aggregator.recent_runs
        assert (run.run_id, run.run_log.lines) == ("run-1", [LINE])
        assert run.started_tick == EPOCH + 1
        assert run.archive is None
        assert kinds(aggregator, 2) == ["RunStarted", "RunStopped", "TagsUpdated"]
        runner.on_start("run-2")
        runner.on_stop()
        await trio.sleep(0.1)
        assert [run.run_id for run in aggregator.recent_runs] == ["run-1", "run-2"]
        numbers = [r.sequence_number for r in aggregator.engine().received if r.connection == 2]
        old = max(r.sequence_number for r in aggregator.engine().received if r.connection == 1)
        assert all(number > old for number in numbers if number != run_started(aggregator))
        assert list(dict.fromkeys(counts(aggregator))) == list(range(1, unit.count + 1))


def run_started(aggregator: Aggregator) -> int:
    return aggregator.messages(em.RunStartedMsg)[0].sequence_number


@pytest.mark.parametrize("was_told", [True, False])
async def test_an_engine_that_resumes_its_run_goes_on_with_it(
    was_told: bool, path: Path, autojump_clock: Clock
) -> None:
    """Its samples carry the run, which ends when the engine says so. RunStarted may still wait."""
    aggregator, unit = Aggregator(), Unit()
    async with process(path, aggregator, unit) as runner:
        await trio.sleep(1)
        if not was_told:
            aggregator.down()
            aggregator.drop()
        runner.on_start("run-1")
        await trio.sleep(1)
        assert len(aggregator.messages(em.RunStartedMsg)) == was_told
    aggregator.up()
    async with process(path, aggregator, Unit(), resume_run="run-1") as runner:
        assert runner.statistics().run_id == "run-1"
        await trio.sleep(1)
        assert aggregator.messages(em.RunStoppedMsg) == []
        assert aggregator.messages(em.TagsUpdatedMsg)[-1].run_id == "run-1"
        runner.on_stop()
        await trio.sleep(0.5)
        assert refused_tags(aggregator) == []
        assert [run.run_id for run in aggregator.recent_runs] == ["run-1"]


async def test_a_resumed_run_that_is_not_known_begins(path: Path, autojump_clock: Clock) -> None:
    """The engine resumes a run other than the open one. The open one ends, and this one begins."""
    aggregator = Aggregator()
    async with process(path, aggregator, Unit()) as runner:
        await trio.sleep(1)
        runner.on_start("run-1")
        await trio.sleep(1)
    async with process(path, aggregator, Unit(), resume_run="run-2"):
        await trio.sleep(1)
        assert refused_tags(aggregator) == []
        assert [run.run_id for run in aggregator.recent_runs] == ["run-1"]
        run = aggregator.engine().unit.run
        assert run is not None
        assert run.run_id == "run-2"


async def test_a_run_that_the_aggregator_never_heard_of_is_told_whole(
    path: Path, autojump_clock: Clock
) -> None:
    """A run begins without a link and the process is killed: its start, samples and end arrive."""
    aggregator, unit = Aggregator(), Unit()
    aggregator.down()
    async with process(path, aggregator, unit) as runner:
        await trio.sleep(5.05)
        runner.on_start("run-1")
        await trio.sleep(10)
        taken = unit.count
    aggregator.up()
    async with process(path, aggregator, Unit(count=taken)):
        await trio.sleep(1)
        assert refused_tags(aggregator) == []
        assert kinds(aggregator, 0) == [
            "TagsUpdated",
            "RunStarted",
            "TagsUpdated",
            "RunStopped",
            "TagsUpdated",
        ]
        assert [(r.run_id, r.started_tick) for r in aggregator.recent_runs] == [
            ("run-1", EPOCH + 5.05)
        ]
        # All samples of the 15.05 s arrive, and then those of the new process.
        assert counts(aggregator)[:taken] == list(range(1, taken + 1))


@pytest.mark.parametrize("delivered", [True, False])
async def test_a_run_that_had_ended_is_not_ended_again(
    delivered: bool, path: Path, autojump_clock: Clock
) -> None:
    """The run is stored once, whether its end had arrived or still waited."""
    aggregator = Aggregator()
    async with process(path, aggregator, Unit()) as runner:
        await trio.sleep(1)
        runner.on_start("run-1")
        await trio.sleep(1)
        if not delivered:
            aggregator.down()
        runner.on_stop()
        await trio.sleep(0.4)
    aggregator.up()
    async with process(path, aggregator, Unit()):
        await trio.sleep(1)
        assert refused_tags(aggregator) == []
        assert [run.run_id for run in aggregator.recent_runs] == ["run-1"]
        assert len(aggregator.messages(em.RunStoppedMsg)) == 1


async def test_a_run_is_stored_once_if_the_process_dies_right_after_its_end(
    path: Path, autojump_clock: Clock
) -> None:
    """The answer to RunStopped is on the disk before the next run can be told."""
    aggregator = Aggregator()
    async with process(path, aggregator, Unit()) as runner:
        await trio.sleep(1)
        runner.on_start("run-1")
        await trio.sleep(1.02)
        runner.on_stop()
        runner.on_start("run-2")
        await trio.testing.wait_all_tasks_blocked()
    async with process(path, aggregator, Unit()):
        await trio.sleep(1)
        assert [run.run_id for run in aggregator.recent_runs] == ["run-1", "run-2"]
        assert refused_tags(aggregator) == []


async def test_what_is_not_delivered_at_the_end_is_on_disk(
    path: Path, autojump_clock: Clock
) -> None:
    """The last commit follows the last sample, whoever closes the outbox."""
    aggregator, unit = Aggregator(), Unit()
    aggregator.down()
    with DurableOutbox(path) as outbox:
        async with trio.open_nursery() as nursery:
            opener = aggregator.in_memory(nursery)
            dispatcher = EngineDispatcher("a.example", handlers=unit, open_stream=opener)
            runner = EngineRunner(dispatcher, unit, unit, outbox=outbox, offload=in_place)
            nursery.start_soon(runner.run)
            await trio.sleep(0.15)
            assert (len(outbox), unit.count) == (1, 1)
            await runner.shutdown()
            nursery.cancel_scope.cancel()
        shutil.copy(path, tmp := path.with_name("at-end"))
        shutil.copy(f"{path}-wal", f"{tmp}-wal")
    with DurableOutbox(tmp) as left:
        assert [entry.kind for entry in left._line] == [em.TagsUpdatedMsg]


async def insist(command: str) -> None:
    """Go on with a command whatever is cancelled."""
    with trio.CancelScope(shield=True):
        await trio.sleep(100)


@pytest.mark.parametrize(("waits_for", "end_s"), [("an answer", 11.05), ("a handler", 3.55)])
async def test_the_disk_is_written_to_the_end_of_a_stop(
    waits_for: str, end_s: float, path: Path, autojump_clock: Clock
) -> None:
    """A stop may wait 10 s for answers and 1 s for handlers, and the power may fail meanwhile."""
    aggregator, unit = Aggregator(), Unit(on_command=insist)
    written_s: list[float] = []

    async def offload(work: Callable[[], None]) -> None:
        written_s.append(trio.current_time())
        await in_place(work)

    with DurableOutbox(path) as outbox:
        async with trio.open_nursery() as nursery:
            opener = aggregator.in_memory(nursery)
            dispatcher = EngineDispatcher("a.example", handlers=unit, open_stream=opener)
            runner = EngineRunner(dispatcher, unit, unit, outbox=outbox, offload=offload)
            nursery.start_soon(runner.run)
            await trio.sleep(1.05)
            if waits_for == "an answer":
                aggregator.muted = True
                runner.on_notify_command("that is never answered")
            else:
                await aggregator.call("host_Unit", am.CancelMsg(exec_id="1"))  # answered at 2.55
            await runner.shutdown()
            assert trio.current_time() == pytest.approx(end_s)
            nursery.cancel_scope.cancel()
    # Commits come every 0.5 s to the end, and the end itself makes one more.
    assert max(b - a for a, b in pairwise(written_s)) == pytest.approx(0.5)
    assert trio.current_time() - written_s[-1] < 0.5


async def test_a_disk_that_fails_stops_neither_samples_nor_delivery(
    path: Path, autojump_clock: Clock
) -> None:
    """The engine goes on from memory, and its statistics say so."""
    aggregator, unit = Aggregator(), Unit()
    async with process(path, aggregator, unit) as runner:
        await trio.sleep(1.05)
        moved = path.rename(path.with_name("moved"))
        async with aggregator.outage():
            runner.on_notify_command("while the disk is away")
            await trio.sleep(3)
            assert runner.statistics().outbox.degraded is not None
        await trio.sleep(5)
        told = aggregator.messages(em.WebPushNotificationMsg)
        assert [n.notification.body for n in told] == ["while the disk is away"]
        assert counts(aggregator) == list(range(1, unit.count + 1))
        moved.rename(path)


def test_an_outbox_of_another_unit_is_refused_at_once(path: Path) -> None:
    """It is refused before anything is put into it or sent."""
    unit, other = Unit(name="A", clock=lambda: 0.0), Unit(name="B", clock=lambda: 0.0)
    dispatcher = EngineDispatcher("a.example", handlers=unit)
    with DurableOutbox(path) as outbox:
        EngineRunner(dispatcher, unit, unit, outbox=outbox).on_start("run-1")
        with pytest.raises(OutboxOfAnotherUnit, match=r"host_A .*, but this is host_B"):
            EngineRunner(dispatcher, other, other, outbox=outbox)
        assert len(outbox) == 2
        assert other.listeners == []


def test_a_second_runner_on_an_outbox_in_memory_ends_the_run_of_the_first() -> None:
    """Two runners of one process behave as two processes do, and a resumed run goes on."""
    unit, outbox = Unit(clock=lambda: 0.0), MemoryOutbox()
    dispatcher = EngineDispatcher("a.example", handlers=unit)
    EngineRunner(dispatcher, unit, unit, outbox=outbox).on_start("run-1")
    second = EngineRunner(dispatcher, unit, unit, outbox=outbox, resume_run="run-1")
    assert (second.statistics().run_id, second.buffer_size) == ("run-1", 2)
    third = EngineRunner(dispatcher, unit, unit, outbox=outbox)
    assert (third.statistics().run_id, third.buffer_size) == (None, 3)


async def test_the_runner_commits_twice_a_second_in_a_thread(path: Path) -> None:
    """On the real clock with real threads, the sample of 0.1 s is on the disk after 0.5 s."""
    aggregator, unit = Aggregator(), Unit()
    aggregator.down()
    threads, done = set[int](), trio.Event()

    async def offload(work: Callable[[], None]) -> None:
        def note() -> None:
            threads.add(threading.get_ident())
            work()

        await trio.to_thread.run_sync(note)
        done.set()

    async with trio.open_nursery() as nursery:
        with DurableOutbox(path) as outbox:
            opener = aggregator.in_memory(nursery)
            dispatcher = EngineDispatcher("a.example", handlers=unit, open_stream=opener)
            runner = EngineRunner(dispatcher, unit, unit, outbox=outbox, offload=offload)
            nursery.start_soon(runner.run)
            await done.wait()
            assert threads
            assert threading.get_ident() not in threads
            for end in ("", "-wal"):
                shutil.copy(f"{path}{end}", f"{path}.copy{end}")
            await runner.shutdown()
            nursery.cancel_scope.cancel()
    with DurableOutbox(f"{path}.copy") as left:
        assert [entry.kind for entry in left._line] == [em.TagsUpdatedMsg]
