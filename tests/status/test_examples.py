"""The alert rules and the dashboard use names that exist."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families

import trio_runner
from tests.status.site import get, running_units, serving
from trio_runner._states import STATES
from trio_runner.simulation import Aggregator
from trio_runner.status._metrics import LINKED

EXAMPLES = Path(__file__).parent.parent.parent / "examples"

OF_PROMETHEUS = {"up", "job", "instance"}
"""The names that Prometheus itself adds."""

WORDS = {
    *("and", "by", "ignoring", "increase", "histogram_quantile", "label_values", "max", "on"),
    *("rate", "sum"),
}
"""The words of its language."""


def alert_rules() -> list[dict[str, Any]]:
    (group,) = yaml.safe_load((EXAMPLES / "alerts.yml").read_text())["groups"]
    return list(group["rules"])


def panels() -> list[dict[str, Any]]:
    return list(json.loads((EXAMPLES / "dashboard.json").read_text())["panels"])


def queries() -> Iterator[str]:
    """Yield the queries of the rules and of the dashboard."""
    yield from (rule["expr"] for rule in alert_rules())
    yield from (target["expr"] for panel in panels() for target in panel["targets"])
    variables = json.loads((EXAMPLES / "dashboard.json").read_text())["templating"]["list"]
    yield from (variable["definition"] for variable in variables if variable["type"] == "query")


QUERIES = list(queries())


def names(query: str) -> set[str]:
    """Return the metrics and labels in a query."""
    without_values = re.sub(r'"[^"]*"|\[[^\]]*\]', "", query)
    return set(re.findall(r"\b[a-z_]+\b", without_values)) - WORDS


async def scraped() -> set[str]:
    """Return the names of all metrics and labels in a scrape."""
    async with running_units(["A"], Aggregator()) as runners, serving(*runners) as url:
        text = (await get(url, "metrics")).text
    samples = [s for family in text_string_to_metric_families(text) for s in family.samples]
    return {s.name for s in samples} | {label for s in samples for label in s.labels}


async def test_every_name_in_the_examples_is_in_a_scrape() -> None:
    """An alert with a misspelt metric or label would never fire."""
    there = await scraped() | OF_PROMETHEUS
    assert len(QUERIES) > 25
    assert [(query, names(query) - there) for query in QUERIES if names(query) - there] == []


def test_the_states_and_outcomes_in_the_examples_are_those_of_the_code() -> None:
    """The values of labels are checked too."""
    states, outcomes = set[str](), set[str]()
    for query in QUERIES:
        states.update(re.findall(r'trio_runner_state="(\w+)"', query))
        for found in re.findall(r'outcome=~"([\w|]+)"', query):
            outcomes.update(found.split("|"))
    assert states
    assert states <= set(STATES)
    assert outcomes
    assert all(issubclass(getattr(trio_runner, name), trio_runner.DialError) for name in outcomes)
    assert LINKED not in outcomes


def test_every_alert_says_what_to_do() -> None:
    """At three in the morning a name alone is not enough."""
    rules = alert_rules()
    assert len({rule["alert"] for rule in rules}) == len(rules)
    for rule in rules:
        assert rule["labels"]["severity"] in ("warning", "critical")
        assert set(rule["annotations"]) == {"summary", "what_to_do"}


def test_the_panels_do_not_overlap() -> None:
    """Each has its own place in Grafana's 24 columns, and its own number."""
    taken = set[tuple[int, int]]()
    for panel in panels():
        at = panel["gridPos"]
        cells = {
            (x, y)
            for x in range(at["x"], at["x"] + at["w"])
            for y in range(at["y"], at["y"] + at["h"])
        }
        assert at["x"] + at["w"] <= 24
        assert not cells & taken
        taken |= cells
    assert len({panel["id"] for panel in panels()}) == len(panels())


@pytest.mark.parametrize("misspelt", ["trio_runner_away_second > 1", 'up{jobs="trio_runner"}'])
async def test_a_misspelt_name_is_found(misspelt: str) -> None:
    """It may be that of a metric or of a label."""
    assert names(misspelt) - await scraped() - OF_PROMETHEUS
