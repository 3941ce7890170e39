"""The command delivers what a dead engine has left to the real aggregator."""

import signal
import time
from itertools import pairwise
from pathlib import Path

import pytest
import trio

from tests.helpers.command import Command, ran, running
from trio_runner import DurableOutbox
from trio_runner.protocol import encode, foreign
from trio_runner.protocol import engine_messages as em
from trio_runner.protocol import models as mdl
from trio_runner.simulation import SimulatedEngine

from ._aggregator import RealAggregator, eventually
from ._unit import CONNECT_S, open_api

pytestmark = [pytest.mark.interop, pytest.mark.timeout(600)]

OUTAGE_S = 8.0
# The skid logs every 1 s, and samples every 1.2 s while offline. The last 0.5 s before a SIGKILL
# are not on the disk. The rest is for two busy processors.
GAP_S_MAX = 2.5


async def delivered(path: Path, aggregator: RealAggregator, *options: str) -> Command:
    port = str(aggregator.port)
    return await ran("outbox", "deliver", str(path), "-ahn", "127.0.0.1", "-ap", port, *options)


async def test_the_run_of_a_dead_engine_is_listed_with_its_whole_plot(
    aggregator: RealAggregator, tmp_path: Path
) -> None:
    """It was killed in mid-run with the aggregator away. Its outbox is looked at while it lives."""
    name, path = "Unit that stays dead", tmp_path / "unit.outbox"
    arguments = ("simulated", "--name", name, "-ap", str(aggregator.port), "--outbox", str(path))
    async with open_api(aggregator, name) as api:
        async with running(*arguments) as command:
            await eventually(api.state, lambda state: state == "ready", within_s=CONNECT_S)
            await api.set_method("Pump: 40 %", "Mark: begun", "Wait: 10 min")
            await api.press("Start")
            started = time.time()
            await eventually(lambda: api.of_unit("run_log"), lambda log: len(log["lines"]) == 3)
            await trio.to_thread.run_sync(aggregator.kill)
            await trio.sleep(OUTAGE_S)
            shown = await ran("outbox", "show", str(path))
            assert (shown.code, shown.err) == (0, "")
            assert "in use       by a running engine, as of 20" in shown.out
            assert "TagsUpdated" in shown.out
            refused = await delivered(path, aggregator)
            assert refused.code == 1
            assert "in use by a running engine" in refused.err
            command.send(signal.SIGKILL)
            killed = time.time()
        await trio.to_thread.run_sync(aggregator.start)

        command = await delivered(path, aggregator)
        assert command.code == 0, command.err
        assert command.out.startswith("Delivered ")
        (run,) = await api.runs()
        plot_log = await api.get(f"recent_runs/{run['run_id']}/plot_log")
        ticks = [value["tick_time"] for value in plot_log["entries"]["Run Time"]["values"]]
        assert max(b - a for a, b in pairwise([started, *ticks, killed])) <= GAP_S_MAX
        method = await api.get(f"recent_runs/{run['run_id']}/method-and-state")
        assert method["method"]["lines"][0]["content"] == "Pump: 40 %"
        command = await delivered(path, aggregator)
        assert (command.code, command.out) == (0, f"Nothing waits in {path}.\n")
        assert len(await api.runs()) == 1


async def test_what_was_set_aside_is_delivered_after_a_requeue(
    aggregator: RealAggregator, tmp_path: Path
) -> None:
    """It is in its old place, its run's error log. What is refused again is set aside again."""
    engine = SimulatedEngine("Unit that was set aside")
    path = tmp_path / "unit.outbox"
    log = mdl.ErrorLog(
        entries=[mdl.ErrorLogEntry(message="a hose", created_time=time.time(), severity=40)]
    )
    unreadable = {**encode(engine.create_wpn_run_started_msg()), "topic": "unheard of"}
    with DurableOutbox(path) as outbox:
        register = engine.create_register_engine_msg()
        outbox.claim(f"{register.computer_name}_{register.uod_name}", register)
        outbox.put(engine.create_uod_info())
        outbox.put(em.RunStartedMsg(run_id="run-aside", started_tick=time.time()))
        started = outbox.take()
        outbox.put(em.ErrorLogMsg(log=log))
        outbox.set_aside(outbox.take(), "its handler failed for 15 min")
        outbox.put(foreign(unreadable, em.WebPushNotificationMsg))
        outbox.set_aside(outbox.take(), "unreadable")
        outbox.retry(started, 0.0)
    command = await ran("outbox", "requeue", str(path))
    assert command.out.startswith("2 messages wait again"), command.err
    command = await delivered(path, aggregator)
    assert command.code == 1
    assert "1 message set aside" in command.out
    async with open_api(aggregator, engine.name) as api:
        (run,) = await api.runs()
        told = await api.get(f"recent_runs/{run['run_id']}/error_log")
        assert [entry["message"] for entry in told["entries"]] == ["a hose"]
    shown = await ran("outbox", "show", str(path))
    assert "waiting      0 messages" in shown.out
    assert "WebPushNotification" in shown.out


async def test_a_refused_secret_is_told_and_all_is_kept(
    aggregator: RealAggregator, tmp_path: Path
) -> None:
    """This happens at once, in one line that says what to do."""
    engine, path = SimulatedEngine("Unit with a secret"), tmp_path / "unit.outbox"
    with DurableOutbox(path) as outbox:
        register = engine.create_register_engine_msg()
        outbox.claim(f"{register.computer_name}_{register.uod_name}", register)
        outbox.put(engine.create_uod_info())
        outbox.put(engine.create_wpn_run_started_msg())
    command = await delivered(path, aggregator, "--secret", "wrong")
    assert command.code == 1
    assert "deliver: error: The aggregator at" in command.err
    assert "refused the secret" in command.err
    assert f"1 message still waits in {path}." in command.out
