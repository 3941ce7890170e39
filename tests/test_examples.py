"""The examples do what they show."""

import asyncio
import logging
import runpy
import threading
from pathlib import Path
from typing import Any

import engine_in_thread
import health
import in_asyncio
import pytest
import trio
import trio.testing
from bioreactor import Bioreactor

from tests.helpers.ports import free_port
from tests.helpers.unit import world
from trio_runner import EngineDispatcher, EngineRunner
from trio_runner.protocol import aggregator_messages as am
from trio_runner.protocol import engine_messages as em
from trio_runner.protocol import models as mdl
from trio_runner.simulation import Aggregator

EMBED = Path(__file__).parent.parent / "examples" / "embed_engine.py"


async def test_an_engine_is_embedded_in_under_sixty_lines(
    autojump_clock: trio.testing.MockClock,
) -> None:
    """A run that is started on the page warms the bath of the example, and its end stops that."""
    assert len(EMBED.read_text().splitlines()) < 60
    aggregator = Aggregator()
    bath: Any = runpy.run_path(str(EMBED))["Bath"](
        "Bath", computer_name="host", clock=lambda: 1.7e9 + trio.current_time()
    )
    async with trio.open_nursery() as nursery:
        opener = aggregator.in_memory(nursery)
        dispatcher = EngineDispatcher(handlers=bath, open_stream=opener)
        nursery.start_soon(bath.run)
        await nursery.start(EngineRunner(dispatcher, bath, bath).run)
        await trio.sleep(1)
        await aggregator.call("host_Bath", am.ExecuteControlCommandMsg(name="Start"))
        await trio.sleep(60)
        await aggregator.call("host_Bath", am.ExecuteControlCommandMsg(name="Stop"))
        await trio.sleep(1)
        nursery.cancel_scope.cancel()
    # 600 steps of 0.1 s from 20 towards 80 degC: 80 - 60 * 0.99**600 = 79.9 degC
    values = [t.tags[0].value for t in aggregator.messages(em.TagsUpdatedMsg) if t.tags]
    assert 79 < max(float(str(value)) for value in values) < 80
    assert len(aggregator.recent_runs) == 1


def test_the_figures_of_the_readme_are_those_of_the_examples() -> None:
    """The bioreactor has no more lines than the page says."""
    lines = (EMBED.parent / "bioreactor.py").read_text().splitlines()
    readme = (EMBED.parent.parent / "README.md").read_text()
    assert len(lines) <= 80
    assert "its run log in 80 lines" in readme


async def test_a_bioreactor_runs_its_method(autojump_clock: trio.testing.MockClock) -> None:
    """It warms up, is inoculated for 3 s, grows for 60 s, and its method ends the run."""
    aggregator = Aggregator()
    reactor = Bioreactor(computer_name="host", clock=lambda: 1.7e9 + trio.current_time())
    async with trio.open_nursery() as nursery:
        dispatcher = EngineDispatcher(handlers=reactor, open_stream=aggregator.in_memory(nursery))
        nursery.start_soon(reactor.simulate)
        await nursery.start(reactor.run_commands)
        await nursery.start(EngineRunner(dispatcher, reactor, reactor).run)
        await trio.sleep(1)
        lines = ("Temperature: 37 degC", "Stirrer: 400 rpm", "Inoculate: 0.5 g/L", "Wait: 60 s")
        method = [mdl.MethodLine(id=line, content=line) for line in (*lines, "Stop")]
        await reactor.set_method(mdl.Method(version=1, lines=method))
        await aggregator.call("host_Bioreactor", am.ExecuteControlCommandMsg(name="Start"))
        await trio.sleep(62.9)
        assert reactor.current_run_id is not None
        await trio.sleep(0.2)
        assert reactor.current_run_id is None
        # 600 steps from 22 towards 37 degC: 37 - 15 * 0.99**600 = 36.96, with noise of 0.15.
        assert abs(reactor.celsius - 36.96) < 1
        # 600 steps of 0.2 %: 0.5 * 1.002**600 = 1.66
        assert abs(reactor.biomass - 1.66) < 0.02
        await trio.sleep(1)
        nursery.cancel_scope.cancel()
    (run,) = aggregator.recent_runs
    assert [line.command_name for line in run.run_log.lines] == [*lines, "Stop"]
    assert [line.failed for line in run.run_log.lines] == [False] * 5


class _Driver:
    """A balance that answers when the test lets it, or is unplugged."""

    def __init__(self) -> None:
        self.may_answer, self.is_unplugged = threading.Semaphore(0), False
        self.tared_in: threading.Thread | None = None

    def read(self) -> float:
        self.may_answer.acquire()
        if self.is_unplugged:
            raise OSError("no such device")
        return 12.5

    def tare(self) -> None:
        self.tared_in = threading.current_thread()


async def test_an_engine_in_a_thread_holds_nobody_up() -> None:
    """While its driver hangs, commands are carried out; its loss and its return are told once."""
    driver = _Driver()
    balance = engine_in_thread.Balance(driver)  # type: ignore[arg-type]
    heard: list[str] = []

    class Listener:
        def on_connection_status_change(self, status: str) -> None:
            heard.append(status)
            token.run_sync_soon(changed.set)

    token = trio.lowlevel.current_trio_token()
    balance.add_listener(Listener())  # type: ignore[arg-type]
    with trio.fail_after(30):
        async with trio.open_nursery() as nursery:
            await nursery.start(balance.run_commands)
            nursery.start_soon(balance.poll)
            await balance.tare()
            assert driver.tared_in not in (None, threading.main_thread())
            for is_unplugged, status in ((False, "Connected"), (True, "Disconnected")):
                changed = trio.Event()
                driver.is_unplugged = is_unplugged
                driver.may_answer.release()
                await changed.wait()
                assert heard[-1] == status
                assert balance.read_tags()[0].value == (None if is_unplugged else 12.5)
            log = balance.create_error_log_msg()
            assert log is not None
            assert log.log.entries[0].message == "The balance does not answer: no such device"
            driver.may_answer.release()  # so that its thread ends
            nursery.cancel_scope.cancel()
    assert heard == ["Connected", "Disconnected"]


def test_an_engine_runs_in_an_asyncio_program(caplog: pytest.LogCaptureFixture) -> None:
    """It runs beside the program's own work until that ends; then the runner stops in order."""
    caplog.set_level(logging.INFO)
    steps: list[str] = []

    async def work() -> None:
        while "Started -> Failed" not in caplog.text:  # nobody listens at the port
            await asyncio.sleep(0.01)
        steps.append("worked")

    asyncio.run(asyncio.wait_for(in_asyncio.host(work, free_port()), 30))
    assert steps == ["worked"]
    assert "Stopped -> ShutdownComplete" in caplog.text


async def test_health_is_told_when_it_changes(autojump_clock: trio.testing.MockClock) -> None:
    """Being connected is healthy. An outage of 10 s is not told, one of 5 min is after a minute."""
    told: list[tuple[bool, float]] = []

    def tell(is_well: bool) -> None:
        told.append((is_well, trio.current_time()))

    async with world() as w:
        w.nursery.start_soon(health.watch, w.runner, tell)
        await trio.sleep(5)
        async with w.aggregator.outage():
            await trio.sleep(10)
        await trio.sleep(60)
        began = trio.current_time()
        async with w.aggregator.outage():
            await trio.sleep(300)
        await trio.sleep(30)
    assert [is_well for is_well, _ in told] == [True, False, True]
    assert 60 <= told[1][1] - began < 61
