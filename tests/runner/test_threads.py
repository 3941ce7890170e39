"""Engines in their own threads, on the real clock."""

import threading
from collections.abc import Callable

import trio

from tests.helpers.unit import Named, Unit
from trio_runner import EngineDispatcher, EngineRunner
from trio_runner.protocol import engine_messages as em
from trio_runner.protocol import models as mdl
from trio_runner.simulation import Aggregator

PATIENCE_S = 20


async def in_thread(engine: Callable[[], None]) -> None:
    """Run an engine's thread to its end."""
    await trio.to_thread.run_sync(engine)


async def test_events_of_threads_keep_their_order_and_are_all_delivered() -> None:
    """Four threads of one engine raise 200 events each; those of each thread arrive in order."""
    unit, aggregator = Unit(clock=lambda: 0.0), Aggregator()
    async with trio.open_nursery() as nursery:
        opener = aggregator.in_memory(nursery)
        dispatcher = EngineDispatcher("aggregator.example", handlers=unit, open_stream=opener)
        runner = EngineRunner(dispatcher, unit, unit)
        unit.clock = lambda: 0.0

        def raise_events(thread: int) -> None:
            for number in range(200):
                unit.listeners[0].on_block_start(Named(name=f"{thread}:{number}"))

        with trio.fail_after(PATIENCE_S):
            raise_events(0)  # before the runner runs
            await nursery.start(runner.run)
            async with trio.open_nursery() as threads:
                for thread in range(1, 5):
                    threads.start_soon(in_thread, lambda thread=thread: raise_events(thread))
            await aggregator.wait_until(
                lambda: len(aggregator.messages(em.WebPushNotificationMsg)) == 1000
            )
        await runner.shutdown()
        raise_events(5)  # After the runner's end: this is no error, and the event is kept.
        assert runner.buffer_size == 200
        nursery.cancel_scope.cancel()
    names = [
        str(n.notification.body).split('"')[1]
        for n in aggregator.messages(em.WebPushNotificationMsg)
    ]
    for thread in range(5):
        mine = [name for name in names if name.startswith(f"{thread}:")]
        assert mine == [f"{thread}:{number}" for number in range(200)]


async def test_an_engines_thread_may_raise_an_event_after_trios_run_has_ended() -> None:
    """The thread of an engine may end later than Trio's run."""
    unit = Unit(clock=lambda: 0.0)
    runners: list[EngineRunner] = []

    async def short() -> None:
        dispatcher = EngineDispatcher("127.0.0.1", 1, handlers=unit)
        runners.append(EngineRunner(dispatcher, unit, unit))
        with trio.move_on_after(0.05):
            await runners[0].run()

    # This run of Trio, in its own thread, is over by the time of the event.
    await trio.to_thread.run_sync(lambda: trio.run(short))
    unit.listeners[0].on_notify_command("late")
    assert runners[0].buffer_size >= 1


async def test_no_sample_is_refused_while_a_thread_starts_and_stops_runs() -> None:
    """Samples are taken while a thread starts and stops 100 runs."""
    unit, aggregator = Unit(), Aggregator()
    done = threading.Event()
    async with trio.open_nursery() as nursery:
        opener = aggregator.in_memory(nursery)
        dispatcher = EngineDispatcher("aggregator.example", handlers=unit, open_stream=opener)
        unit.clock = lambda: 0.0
        runner = EngineRunner(dispatcher, unit, unit)

        def run_and_stop() -> None:
            for number in range(100):
                unit.listeners[0].on_start(f"run-{number}")
                done.wait(0.005)  # a run lasts 5 ms
                unit.listeners[0].on_stop()

        def sample_often() -> None:
            runner._tree.intake.take_tags(whole=False)

        with trio.fail_after(PATIENCE_S):
            await nursery.start(runner.run)
            async with trio.open_nursery() as threads:
                threads.start_soon(in_thread, run_and_stop)
                while len(threads.child_tasks):
                    sample_often()
                    await trio.lowlevel.checkpoint()
            await runner.shutdown()
        nursery.cancel_scope.cancel()
    refused = [r for r in aggregator.engine().refused if isinstance(r.message, em.TagsUpdatedMsg)]
    assert refused == []
    assert len(aggregator.recent_runs) == 100
    runs = {t.run_id for t in aggregator.messages(em.TagsUpdatedMsg)}
    assert len(runs) > 1


async def test_an_engine_that_holds_a_lock_does_not_deadlock() -> None:
    """It tells of runs, and is asked for tags under its lock, from two threads at once."""

    class Guarded(Unit):
        lock = threading.Lock()

        def read_tags(self) -> list[mdl.TagValue]:
            with self.lock:
                return [mdl.TagValue(name="Count", tick_time=0.0, value=self.count, value_unit="")]

    unit = Guarded(clock=lambda: 0.0)
    aggregator = Aggregator()
    async with trio.open_nursery() as nursery:
        opener = aggregator.in_memory(nursery)
        dispatcher = EngineDispatcher("aggregator.example", handlers=unit, open_stream=opener)
        runner = EngineRunner(dispatcher, unit, unit)

        def run_and_stop() -> None:
            for number in range(300):
                with unit.lock:
                    unit.listeners[0].on_start(f"run-{number}")
                with unit.lock:
                    unit.listeners[0].on_stop()

        with trio.fail_after(PATIENCE_S):
            await nursery.start(runner.run)
            async with trio.open_nursery() as threads:
                threads.start_soon(in_thread, run_and_stop)
                while len(threads.child_tasks):
                    runner._tree.intake.take_tags(whole=False)
                    await trio.lowlevel.checkpoint()
            await aggregator.wait_until(lambda: len(aggregator.recent_runs) == 300)
            await runner.shutdown()
        nursery.cancel_scope.cancel()
