"""A picture of a life: one HTML file that needs nothing else."""

import json
from importlib.resources import files

import attrs

from trio_runner.simulation.trials._lanes import lanes_of
from trio_runner.simulation.trials._record import Record

TEMPLATE = "picture.html"
PLACE = "{{life}}"
"""The place in the template where the data goes."""

DIGITS = 6
"""Digits after the decimal point of a time, as in a trace."""


def picture(record: Record, title: str, verdict: str, *, is_bad: bool = False) -> str:
    """Return the HTML of a life; the page opens at the violation if there is one.

    `title` says what was simulated, and `verdict` says in one sentence how it went.
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
