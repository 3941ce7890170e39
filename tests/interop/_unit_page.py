"""A unit's page at the aggregator, as a person opens and reads it."""

from ._aggregator import eventually
from ._browser import Page

_CARD = (
    "[...document.querySelectorAll('app-process-unit-card')].find(c => c.innerText.includes({!r}))"
)
_VALUE = """(() => {{
    const tiles = [...document.querySelectorAll('app-process-value')].map(t => t.innerText);
    const tile = tiles.map(t => t.split('\\n')).find(lines => lines[0].trim() === {!r});
    return tile ? tile[1].trim() : null;
}})()"""


async def open_unit_page(page: Page, url: str, name: str) -> None:
    """Open the aggregator's page, and from there the page of a unit by its card."""
    await page.resize(1600, 1900)
    await page.open(url)
    card = _CARD.format(name)
    await eventually(lambda: page.evaluate(f"!!{card}"), bool, within_s=30)
    await page.evaluate(f"{card}.firstElementChild.click()")
    await eventually(page.text, lambda text: f"({name})" in text and "Method Editor" in text)


async def reading(page: Page, tag: str, *, other_than: str) -> str:
    """Return what the page shows for a process value as soon as it differs from `other_than`."""
    script = _VALUE.format(tag)
    shown = await eventually(
        lambda: page.evaluate(script), lambda text: text is not None and text != other_than
    )
    return str(shown)
