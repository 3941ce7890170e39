"""The bioreactor of the examples at the real aggregator, and on its page."""

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import trio
from attrs import frozen
from bioreactor import Bioreactor

from trio_runner import EngineDispatcher, EngineRunner

from ._aggregator import Api, RealAggregator, eventually
from ._browser import open_browser
from ._unit import CONNECT_S, open_api
from ._unit_page import open_unit_page

pytestmark = [pytest.mark.interop, pytest.mark.timeout(600)]

PICTURE_VARIABLE = "TRIO_RUNNER_BIOREACTOR_PICTURE"
"""Names a PNG file into which the test then writes a picture of the unit's page."""

METHOD = (
    "# Warm up, then inoculate",
    "Temperature: 37 degC",
    "Stirrer: 400 rpm",
    "Inoculate: 0.5 g/L",
    "Wait: 60 s",
    "Stop",
)


@frozen
class Running:
    """A bioreactor, and what people see of it at the aggregator."""

    reactor: Bioreactor
    api: Api


@asynccontextmanager
async def running(aggregator: RealAggregator, name: str) -> AsyncIterator[Running]:
    """Run a bioreactor with this name, which the aggregator lists as ready."""
    reactor = Bioreactor(name, author_name="A. Author", author_email="a@example.org")
    runner = EngineRunner(
        EngineDispatcher(port=aggregator.port, handlers=reactor), reactor, reactor
    )
    async with open_api(aggregator, name) as api, trio.open_nursery() as nursery:
        nursery.start_soon(reactor.simulate)
        await nursery.start(reactor.run_commands)
        await nursery.start(runner.run)
        await eventually(api.state, lambda state: state == "ready", within_s=CONNECT_S)
        await eventually(api.process_values, bool)
        yield Running(reactor, api)
        await runner.shutdown()
        nursery.cancel_scope.cancel()
    assert runner.statistics().outbox.set_aside == 0


async def lines(api: Api) -> list[str]:
    """Return the commands of the run log that have ended."""
    log = await api.of_unit("run_log")
    return [line["command"]["command"] for line in log["lines"] if line.get("end")]


async def test_a_method_of_a_bioreactor_runs(aggregator: RealAggregator) -> None:
    """Entry fields, a choice, a method with its run log and a cancelled wait; the run is stored."""
    async with running(aggregator, "Bioreactor 1") as unit:
        values = await unit.api.process_values()
        assert {"Run Time", "Temperature", "pH", "Stirrer", "Biomass", "Gas"} <= values.keys()
        (entry,) = values["Stirrer"]["commands"]
        assert entry["value"]["value_unit"] == "rpm"
        assert values["pH"]["value_formatted"] == "7.00"
        assert (await unit.api.choose("Gas", "Air")).is_success
        await eventually(unit.api.process_values, lambda values: values["Gas"]["value"] == "Air")
        answer = await unit.api.enter("Stirrer: 5000 rpm")
        assert "Stirrer: 5000 is not between 0 rpm and 1200 rpm" in answer.text

        await unit.api.set_method(*METHOD)
        await unit.api.press("Start")
        await eventually(unit.api.state, lambda state: state == "in_progress")
        await eventually(lambda: lines(unit.api), lambda done: list(METHOD[1:4]) == done[:3])
        (waiting,) = [
            line for line in (await unit.api.of_unit("run_log"))["lines"] if not line.get("end")
        ]
        assert waiting["command"]["command"] == "Wait: 60 s"
        await unit.reactor.cancel(waiting["id"])
        await eventually(unit.api.state, lambda state: state == "ready")
        (run,) = await eventually(unit.api.runs, bool)
        stored = await unit.api.get(f"recent_runs/{run['run_id']}/run_log")
        assert [line["command"]["command"] for line in stored["lines"]] == list(METHOD[1:])
        assert unit.reactor.biomass > 0.5


@pytest.mark.page
async def test_the_page_shows_the_bioreactor(
    aggregator: RealAggregator, browser_folder: Path
) -> None:
    """The editor knows its commands: it underlines a wrong line, and no other."""
    name = "Bioreactor 2"
    async with running(aggregator, name) as unit, open_browser(browser_folder) as page:
        await unit.api.set_method(*METHOD)
        await open_unit_page(page, aggregator.url, name)
        await unit.api.press("Start")
        assert (await unit.api.choose("Gas", "Air")).is_success
        await eventually(
            page.text, lambda text: "Temperature: 37 degC" in text.replace("\xa0", " ")
        )
        picture = os.environ.get(PICTURE_VARIABLE)
        if picture:
            await page.open(await page.evaluate("location.href"))
            await trio.sleep(40)
            await page.screenshot(Path(picture))
        await trio.sleep(5)
        assert await page.evaluate("document.querySelectorAll('.squiggly-error').length") == 0
        await unit.api.press("Stop")
