"""The real engine at the real aggregator: method, run, outage, kill, restart, CSV."""

import csv
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from itertools import pairwise
from pathlib import Path

import pytest
import trio

from tests.helpers.command import running
from tests.interop._aggregator import RealAggregator, eventually
from tests.interop._browser import open_browser
from tests.interop._unit import CONNECT_S, ON_DISK_S, open_api
from tests.interop._unit_page import open_unit_page, reading
from tests.interop.conftest import aggregator as aggregator
from tests.interop.conftest import browser_folder as browser_folder
from tests.interop.conftest import shared_aggregator as shared_aggregator
from trio_runner import EngineRunner
from trio_runner.bridge import UodDispatcher

from .units import DEMO_UOD, demo_engine

pytestmark = [pytest.mark.interop, pytest.mark.timeout(600)]

METHOD = ["Mark: begun", "Block: Feed", "    Mark: fed", "    End block", "Wait: 10 min"]

OUTAGE_S = 6.0
# The unit logs every 1 s. Offline, sampling is two ticks (of 0.1 s) slower, and the aggregator
# stores what is over 1 s newer than the last: 2 s. Add 0.5 s for two busy processors.
GAP_S_MAX = 2.5


def uod_named(folder: Path, name: str) -> str:
    """Return the path of a UOD file like that of the demo unit, which logs every second."""
    text = DEMO_UOD.read_text().replace("DemoUod", name)
    text = text.replace(".with_location(", ".with_data_log_interval_seconds(1.0).with_location(")
    path = folder / "unit.py"
    path.write_text(text)
    return str(path)


@pytest.mark.parametrize("how", ["restart", "crash"])
async def test_a_run_survives_an_outage(
    aggregator: RealAggregator, tmp_path: Path, how: str
) -> None:
    """Method, Start, outage, Stop: one recent run without a hole, with its run log and CSV."""
    name = f"Real unit {how}"
    arguments = ("engine", "-ap", str(aggregator.port), "-uod", uod_named(tmp_path, name))
    async with open_api(aggregator, name) as api, running(*arguments) as command:
        await command.until("Starting engine on first steady-state")
        await eventually(api.state, lambda state: state == "ready", within_s=CONNECT_S)
        await api.set_method(*METHOD)
        await command.until("Incomming set_method command from aggregator")
        await api.press("Start")
        await eventually(api.state, lambda state: state == "in_progress")
        await eventually(lambda: api.of_unit("run_log"), lambda log: len(log["lines"]) >= 4)
        await trio.to_thread.run_sync(aggregator.kill if how == "crash" else aggregator.stop)
        await command.until("Changing state: Failed -> Disconnected")
        await trio.sleep(OUTAGE_S)
        await trio.to_thread.run_sync(aggregator.start)
        await command.until("Changing state: CatchingUp -> Reconnected")
        await eventually(api.state, lambda state: state == "in_progress")
        method = await api.of_unit("method")
        assert [line["content"] for line in method["lines"]] == METHOD
        await trio.sleep(2)  # of the run, after the outage
        await api.press("Stop")
        (run,) = await eventually(api.runs, bool)
        log = await api.get(f"recent_runs/{run['run_id']}/run_log")
        assert log["lines"][0]["command"]["command"] == "Mark: begun"
        plot = await api.get(f"recent_runs/{run['run_id']}/plot_log")
        times = sorted({v["tick_time"] for e in plot["entries"].values() for v in e["values"]})
        assert max(b - a for a, b in pairwise(times)) < GAP_S_MAX
        exported = await api.get(f"recent_runs/{run['run_id']}/csv_json")
        rows = list(csv.reader(exported["csv_content"].splitlines()))
        assert len(rows) > 5 + OUTAGE_S
        command.send(signal.SIGTERM)
    assert command.code == 0
    assert "ERROR" not in command.err


async def test_a_killed_engine_closes_its_run_when_it_is_back(
    aggregator: RealAggregator, tmp_path: Path
) -> None:
    """With an outbox the earlier run is stored, and the unit is ready for another."""
    name = "Real unit that is killed"
    where = ("-ap", str(aggregator.port), "--outbox", str(tmp_path / "unit.outbox"))
    arguments = ("engine", "-uod", uod_named(tmp_path, name), *where)
    async with open_api(aggregator, name) as api:
        async with running(*arguments) as command:
            await eventually(api.state, lambda state: state == "ready", within_s=CONNECT_S)
            await api.set_method(*METHOD)
            await api.press("Start")
            await eventually(lambda: api.of_unit("run_log"), lambda log: len(log["lines"]) >= 4)
            await trio.sleep(ON_DISK_S)
            command.send(signal.SIGKILL)
        assert command.code == -signal.SIGKILL
        await eventually(api.state, lambda state: state == "not_online")
        assert await api.runs() == []
        async with running(*arguments) as command:
            (run,) = await eventually(api.runs, bool, within_s=CONNECT_S)
            old = await api.get(f"recent_runs/{run['run_id']}/run_log")
            commands = [line["command"]["command"] for line in old["lines"]]
            assert {"Mark: begun", "Mark: fed"} <= set(commands)
            await eventually(api.state, lambda state: state == "ready")
            await api.press("Start")
            await eventually(api.state, lambda state: state == "in_progress")
            # The run that is on when the command is told to end is stored too.
            command.send(signal.SIGTERM)
        assert command.code == 0
        await eventually(api.runs, lambda runs: len(runs) == 2)


async def test_the_page_shows_the_real_engine(
    aggregator: RealAggregator, tmp_path: Path, browser_folder: Path
) -> None:
    """The unit's page shows its values as they change, and the run log of its method."""
    name = "Real unit on the page"
    arguments = ("engine", "-ap", str(aggregator.port), "-uod", uod_named(tmp_path, name))
    async with (
        open_api(aggregator, name) as api,
        running(*arguments) as command,
        open_browser(browser_folder) as page,
    ):
        await eventually(api.state, lambda state: state == "ready", within_s=CONNECT_S)
        await open_unit_page(page, aggregator.url, name)
        await api.set_method(*METHOD)
        await api.press("Start")
        first = await reading(page, "Run Time", other_than="")
        await reading(page, "Run Time", other_than=first)
        await eventually(page.text, lambda text: "Mark: fed" in text)
        command.send(signal.SIGTERM)
    assert command.code == 0


@asynccontextmanager
async def of_version(
    aggregator: RealAggregator, version: str, **options: bool
) -> AsyncIterator[EngineRunner]:
    """Run an engine that claims a version."""
    with demo_engine(**options) as engine:
        engine.builder._builder.version_override = version
        dispatcher = UodDispatcher(port=aggregator.port, engine=engine)
        runner = EngineRunner(dispatcher, engine.builder, engine.emitter)
        async with trio.open_nursery() as nursery:
            await nursery.start(runner.run)
            yield runner
            nursery.cancel_scope.cancel()


async def test_an_engine_of_another_version_is_told_what_to_do(
    aggregator: RealAggregator, caplog: pytest.LogCaptureFixture
) -> None:
    """A refusal gives the commands to run; told to ignore it, the log says so."""
    async with of_version(aggregator, "0.0.1") as runner:
        with runner.state_changes() as changes:
            async for change in changes:
                if change.after == "Failed":
                    break
    assert "pip install openpectus==0.1.1585, or --ignore_version_error True" in caplog.text
    async with of_version(aggregator, "0.0.1", ignore_version_error=True) as runner:
        with runner.state_changes() as changes:
            async for change in changes:
                if change.after == "Connected":
                    break
    assert "has 0.1.1585, this engine has 0.0.1. This is ignored" in caplog.text
