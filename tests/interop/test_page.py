"""The aggregator's own web page, as a person sees it."""

import os
from pathlib import Path

import pytest
import trio

from ._aggregator import RealAggregator
from ._browser import Page, open_browser
from ._unit import RunningUnit, running_unit
from ._unit_page import open_unit_page, reading

pytestmark = [pytest.mark.page, pytest.mark.interop, pytest.mark.timeout(600)]

PICTURE_VARIABLE = "TRIO_RUNNER_PICTURE"
"""Names a PNG file into which the test then writes a picture of the unit's page."""

PICTURE_METHOD = (
    "Mark: Start",
    "Valve: Feed",
    "Set flow: 30 L/h",
    "Wait: 5 s",
    "Mark: Flow is set",
    "Block: Filter",
    "    Wait: 8 s",
    "    Set flow: 45 L/h",
    "    Wait: 5 min",
    "    End block",
    "Stop",
)
PICTURE_AFTER_S = 25.0


async def test_the_page_shows_live_values(aggregator: RealAggregator, browser_folder: Path) -> None:
    """The card of the unit is on the page and opens, and its values change while one looks."""
    name = "Unit on the page"
    async with running_unit(aggregator, name) as unit, open_browser(browser_folder) as page:
        await open_unit_page(page, aggregator.url, name)
        await unit.api.press("Start")
        await unit.api.enter("Pump: 40 %")
        for tag, unit_shown in (("Conductivity", "mS/cm"), ("Flow", "L/h")):
            first = await reading(page, tag, other_than="")
            second = await reading(page, tag, other_than=first)
            assert first.endswith(unit_shown)
            assert second.endswith(unit_shown)
        await unit.api.press("Stop")

        picture = os.environ.get(PICTURE_VARIABLE)
        if picture:
            await take_picture(unit, page, Path(picture))


async def take_picture(unit: RunningUnit, page: Page, png: Path) -> None:
    """Run a method, and take a picture of the unit's open page meanwhile."""
    await unit.api.set_method(*PICTURE_METHOD)
    await unit.api.press("Start")
    # Open the page anew, since a page that saw the run before continues that run's lines.
    await page.open(await page.evaluate("location.href"))
    await trio.sleep(PICTURE_AFTER_S)  # so that the plot shows something
    await page.screenshot(png)
    await unit.api.press("Stop")
