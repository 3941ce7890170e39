"""The engine in its thread, and several of them in one process."""

import logging
import math
import sys
from typing import Any

import pytest
import trio
from openpectus.engine.engine import frontend_logger

from trio_runner import EngineRunner, MemoryOutbox
from trio_runner.bridge import EngineStopped, UodDispatcher, current_unit
from trio_runner.protocol import encode

from .units import demo_engine, ticked_demo


async def test_two_engines_tick_in_their_own_threads() -> None:
    """Each ticks, and stopping one does not stop the other."""
    with demo_engine() as one, demo_engine() as other:
        for engine in (one, other):
            engine.start()
            engine.start()  # a second time does nothing
        with trio.fail_after(5):
            while min(e._engine._tick_number for e in (one, other)) < 3:  # noqa: ASYNC110
                await trio.sleep(0.01)  # the threads are the package's
        one.stop()
        seen = other._engine._tick_number
        with trio.fail_after(5):
            while other._engine._tick_number < seen + 3:  # noqa: ASYNC110
                await trio.sleep(0.01)
        assert not one.uod.hwl.decorated.is_connected


async def test_an_engine_whose_thread_dies_is_told() -> None:
    """An error that the package does not expect ends its thread, and is told."""
    with demo_engine() as engine:

        def fail(*_: object) -> None:
            raise ZeroDivisionError("of a driver")

        engine._timer.set_tick_fn(fail)
        engine.start()
        with trio.fail_after(5), pytest.raises(EngineStopped, match="of a driver"):
            await engine.ended()


def test_each_engine_takes_its_own_error_log() -> None:
    """An entry goes to the unit in whose thread it was logged, or else to all units."""
    builders: list[Any] = []
    for name in ("one", "other"):
        current_unit.set(name)
        with demo_engine() as engine:
            engine.builder.create_error_log_msg()
            builders.append(engine.builder)
    current_unit.set("one")
    frontend_logger.warning("of one")
    current_unit.set(None)
    frontend_logger.error("of nobody knows whom")
    entries = [encode(builder.create_error_log_msg())["log"]["entries"] for builder in builders]
    assert [[entry["message"] for entry in log] for log in entries] == [
        ["of one", "of nobody knows whom"],
        ["of nobody knows whom"],
    ]
    assert [builder.create_error_log_msg() for builder in builders] == [None, None]


def test_tags_are_told_from_the_first_tick_on() -> None:
    """Before it they have no time and are not told; then all are, and later those that change."""
    with ticked_demo() as unit:
        builder = unit.engine.builder
        assert builder.create_tag_updates_snapshot_msg().tags == []
        assert builder.create_tag_updates_msg(None) is None
        unit.tick()
        told = builder.create_tag_updates_msg(None)
        assert told is not None
        assert len(told.tags) == len(unit.inside.tags_as_readonly()) > 20
        unit.tick()
        changed = builder.create_tag_updates_msg(None)
        assert changed is not None
        assert 0 < len(changed.tags) < 10


def test_an_infinite_data_log_interval_is_a_very_long_one() -> None:
    """JSON has no infinity, and an aggregator takes no unit without its interval."""
    with demo_engine() as engine:
        engine.uod.data_log_interval_seconds = math.inf
        info = engine.builder.create_uod_info()
        assert encode(info)["data_log_interval_seconds"] == sys.float_info.max


def test_a_run_that_is_on_when_the_engine_stops_is_ended() -> None:
    """RunStopped goes out with its archive, or the run would stay open at the aggregator."""
    with demo_engine() as engine:
        engine._engine.run(skip_timer_start=True)
        outbox = MemoryOutbox()
        EngineRunner(UodDispatcher(engine=engine), engine.builder, engine.emitter, outbox=outbox)
        engine._engine.execute_control_command_from_user("Start")
        for tick in range(5):
            engine._engine.tick(1.7e9 + tick, 0.1)
        run_id = outbox.run_id
        assert run_id is not None
    entries = [outbox.take() for _ in range(len(outbox))]
    kinds = [entry.kind.__name__ for entry in entries]
    assert kinds.count("RunStoppedMsg") == 1
    stopped = entries[kinds.index("RunStoppedMsg")].text
    assert run_id in stopped
    if 'archive":null' not in stopped:  # the package did not read it before 0.1.1538
        assert "Datetime (UTC)" in stopped


def test_what_the_engine_cannot_tell_is_logged_once(caplog: pytest.LogCaptureFixture) -> None:
    """The runner goes on, and the run log is the last one that could be made."""
    with ticked_demo() as unit:
        unit.press("Start")
        builder: Any = unit.engine.builder
        before = encode(builder.create_runlog_msg("R"))
        unit.inside.tracking.get_runlog = lambda: math.sqrt(-1)
        caplog.clear()
        with caplog.at_level(logging.ERROR, "trio_runner"):
            assert encode(builder.create_runlog_msg("R")) == before
            assert encode(builder.create_runlog_msg("R")) == before
            assert encode(builder.create_runlog_msg("S"))["runlog"] == {"lines": []}
    assert len([r for r in caplog.records if "could not give its run log" in r.message]) == 1
