"""A picture of a life: one file of HTML that refers to nothing outside of it."""

import json
from importlib.resources import files

import attrs

from trio_runner.simulation.trials._lanes import lanes_of
from trio_runner.simulation.trials._record import Record

TEMPLATE = "picture.html"
PLACE = "{{life}}"
"""In the template, where the data goes."""

DIGITS = 6
"""Behind the point of a time, as in a trace."""


def picture(record: Record, title: str, verdict: str, *, is_bad: bool = False) -> str:
    """Return the HTML of a life; it opens at its violation if there is one.

    `title` says what was simulated, `verdict` in a sentence how it went.
    """
    lines = [(entry.at_s, entry.text) for entry in record.entries]
    shown = attrs.asdict(lanes_of(record))
    life = {"title": title, "verdict": verdict, "bad": is_bad, **shown, "lines": lines}
    data = json.dumps(_rounded(life), separators=(",", ":"), ensure_ascii=False)
    template = files(__package__).joinpath(TEMPLATE).read_text(encoding="utf-8")
    return template.replace(PLACE, data.replace("<", "\\u003c"))


def _rounded(value: object) -> object:
    if isinstance(value, float):
        return round(value, DIGITS)
    if isinstance(value, dict):
        return {name: _rounded(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [_rounded(item) for item in value]
    return value
