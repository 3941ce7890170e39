"""The page, as people see it on a desk and on a telephone, by day and by night."""

import os
import signal
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path

import pytest
import trio

from tests.interop._browser import Page, open_browser
from tests.status.hour import page_of_one, page_of_twelve
from tests.status.test_process import serving, simulated
from trio_runner.simulation import Aggregator
from trio_runner.status._http import Answer, converse
from trio_runner.status._page import POLICY

pytestmark = [pytest.mark.page, pytest.mark.timeout(300)]

PICTURE_VARIABLE = "TRIO_RUNNER_STATUS_PICTURES"
"""Names a folder in which the pictures of all layouts are left."""

DESK, TELEPHONE, NARROW = (1280, 800), (390, 844), (320, 568)

CONTRAST = """
(() => {
  const light = c => {
    const part = v => (v /= 255) <= .04045 ? v / 12.92 : ((v + .055) / 1.055) ** 2.4;
    const [r, g, b] = c.match(/[\\d.]+/g).map(Number);
    return .2126 * part(r) + .7152 * part(g) + .0722 * part(b);
  };
  const ratios = [...document.querySelectorAll("h1, h2, h3, p, li, dt, dd, span")].map(e => {
    const card = e.closest("article") ?? document.body;
    const pair = [getComputedStyle(e).color, getComputedStyle(card).backgroundColor].map(light);
    return (Math.max(...pair) + .05) / (Math.min(...pair) + .05);
  });
  return Math.min(...ratios);
})()
"""
"""The least contrast of any text with its background, as WCAG defines it."""


@asynccontextmanager
async def shown(text: str) -> AsyncGenerator[str, None]:
    """Serve a page that does not change; yield its URL."""
    headers = [("Content-Security-Policy", POLICY)]
    answer = Answer(200, text, "text/html; charset=utf-8", headers)
    async with trio.open_nursery() as nursery:
        (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
        welcome = partial(converse, respond=lambda path: answer)
        await nursery.start(trio.serve_listeners, welcome, [listener])
        yield f"http://127.0.0.1:{listener.socket.getsockname()[1]}/"
        nursery.cancel_scope.cancel()


async def eventually(condition: Callable[[], Awaitable[object]]) -> None:
    """Ask the browser again and again until the condition holds."""
    with trio.fail_after(20):
        while not await condition():  # noqa: ASYNC110 - of another process
            await trio.sleep(0.05)


async def open_page(page: Page, url: str) -> None:
    await page.open(url)
    await eventually(lambda: page.evaluate("!!document.querySelector('article svg')"))


@pytest.mark.parametrize(
    ("name", "make", "units"), [("one", page_of_one, 1), ("twelve", page_of_twelve, 12)]
)
async def test_the_page_is_readable_on_desk_and_telephone_by_day_and_night(
    name: str,
    make: Callable[[pytest.MonkeyPatch], str],
    units: int,
    browser_folder: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """No text is cut or needs scrolling sideways, and each has enough contrast (4.5:1)."""
    text = await trio.to_thread.run_sync(make, monkeypatch)
    async with shown(text) as url, open_browser(browser_folder) as page:
        for scheme in ("light", "dark"):
            await page.prefer(scheme)
            for width, height in (DESK, TELEPHONE, NARROW):
                await page.resize(width, height)
                await open_page(page, url)
                assert await page.evaluate("document.querySelectorAll('article').length") == units
                assert await page.evaluate("document.documentElement.scrollWidth") <= width
                assert await page.evaluate(CONTRAST) >= 4.5, (scheme, width)
                await take_picture(page, f"{name}-{scheme}-{width}", width)


async def take_picture(page: Page, name: str, width: int) -> None:
    """Leave a picture of the whole page, if one is wanted."""
    folder = os.environ.get(PICTURE_VARIABLE)
    if folder:
        height = await page.evaluate("document.documentElement.scrollHeight")
        await page.resize(width, height)
        await page.screenshot(Path(folder) / f"{name}.png")


async def test_the_page_shows_an_outage_by_itself_and_says_when_it_is_old(
    browser_folder: Path,
) -> None:
    """The page follows the aggregator without a reload, and says if its process is dead."""
    aggregator = Aggregator()
    async with open_browser(browser_folder) as page, serving(aggregator) as port:
        async with simulated(port) as (command, url):
            await command.until("Changing state: Started -> Connected")
            await open_page(page, url)
            await page.evaluate("window.sameDocument = true")
            assert "Filtration Skid" in await page.text()
            assert await page.evaluate("document.title.startsWith('OK')")
            async with aggregator.outage(kill=True):
                await eventually(lambda: has(page, "no link to the aggregator for"))
                assert await has(page, "Is the aggregator running there?")
                assert await page.evaluate("/^(Warning|Critical)/.test(document.title)")
            await eventually(lambda: has(page, "Reconnected"))
            assert await page.evaluate("document.getElementById('stale').hidden")
            command.send(signal.SIGTERM)
        await eventually(lambda: has(page, "No answer: this is how it was at"))
        assert await has(page, "Filtration Skid")
        assert await page.evaluate("window.sameDocument")


async def has(page: Page, text: str) -> bool:
    return text in await page.text()
