"""The aggregator stand-in of the simulation does what the real aggregator does.

Both get the same conversation. They give the same answers, store the same samples, list the same
runs, and would show the same on the page.
"""

from collections.abc import Iterator
from typing import Any

import pytest
import trio

from tests.helpers.recorded import CONVERSATION, MESSAGES
from trio_runner.simulation import Aggregator

from ._aggregator import RealAggregator
from ._conversation import Do, Engine, Json, Step
from ._seen import seen_at, seen_in
from ._unit import open_api

pytestmark = [pytest.mark.interop, pytest.mark.timeout(600)]

INTERVAL_S = 2.0
"""The data-log interval of the unit in the made-up conversations (s)."""

EXAMPLES = MESSAGES["engine"]
"""The serialised messages of Open Pectus's own engine."""


def message(kind: str, **changes: Any) -> Json:
    """Return an example of a message, without an engine id, with some fields changed."""
    example = EXAMPLES[kind]
    example = example[0] if isinstance(example, list) else example
    rest = {name: value for name, value in example.items() if name != "engine_id"}
    return {**rest, **changes}


def tags(run_id: str | None, tick_time: float, **values: object) -> Json:
    """Return values of tags, all with one time (s)."""
    given = {"tick_time": tick_time, "value_unit": None}
    listed = [{"name": name, "value": value, **given} for name, value in values.items()]
    return message("TagsUpdatedMsg", run_id=run_id, tags=listed)


def uod(*plotted: str) -> Json:
    """Return a unit that shows, and therefore plots, these tags."""
    nothing = {"valid_value_units": None, "entry_data_type": None, "command_options": None}
    readings: list[Json] = [
        {"discriminator": "reading", "tag_name": name, "commands": [], **nothing}
        for name in plotted
    ]
    plot: Json = {
        "process_value_names_to_annotate": [],
        "color_regions": [],
        "sub_plots": [],
        "x_axis_process_value_names": [],
    }
    return message(
        "UodInfoMsg",
        readings=readings,
        plot_configuration=plot,
        required_roles=[],
        data_log_interval_seconds=INTERVAL_S,
    )


def started(run_id: str) -> Json:
    return message("RunStartedMsg", run_id=run_id, started_tick=99.5)


def stopped(run_id: str) -> Json:
    return message("RunStoppedMsg", run_id=run_id)


def errors(*entries: tuple[str, float]) -> Json:
    """Return an error log whose entries have a text and a time (s)."""
    listed = [{"message": text, "created_time": at, "severity": 40} for text, at in entries]
    return message("ErrorLogMsg", log={"entries": listed})


def recorded() -> Iterator[Step]:
    """Yield the recorded conversation: a run with a restart of the aggregator in the middle."""
    for connection in (2, 6):
        for row in CONVERSATION:
            request = (row.get("text") or {}).get("request") or {}
            sent = request.get("arguments", {}).get("message_json")
            if row["conn"] == connection and row["from"] == "engine" and sent:
                yield {name: value for name, value in sent.items() if name != "engine_id"}
        if connection == 2:
            yield Do.LEAVE


# The run ids in here are made unique for each conversation: see `of`.
CONVERSATIONS: dict[str, list[Step]] = {
    "recorded": list(recorded()),
    "every example": [
        message(kind, **({"required_roles": []} if kind == "UodInfoMsg" else {}))
        for kind in EXAMPLES
        if kind != "RegisterEngineMsg"
    ],
    "samples before UodInfo": [
        started("A"),
        tags("A", 100.0, X=1),
        uod("X"),
        tags("A", 101.0, X=2),
        started("A"),
        tags("A", 102.5, X=3),
        tags("A", 105.0, X=4),
    ],
    "samples before UodInfo on a second link": [
        *(uod("X"), started("A"), tags("A", 100.0, X=1), Do.LEAVE),
        *(tags("A", 103.0, X=2), tags("A", 106.0, X=3), uod("X"), tags("A", 109.0, X=4)),
    ],
    "samples of unknown runs": [
        *(uod("X"), tags("A", 100.0, X=1), tags(None, 101.0, X=2)),
        *(started("A"), tags(None, 102.0, X=3), tags("B", 103.0, X=4), tags("A", 106.0, X=5)),
        *(stopped("A"), tags("A", 107.0, X=6)),
    ],
    "ends of unknown runs": [
        *(uod("X"), stopped("A"), started("B"), tags("B", 100.0, X=1)),
        *(stopped("A"), stopped("B"), tags("B", 103.0, X=2)),
    ],
    "an end that is told twice": [
        *(uod("X"), started("A"), tags("A", 100.0, X=1), stopped("A"), stopped("A")),
        *(started("A"), tags("A", 103.0, X=2), stopped("A")),
    ],
    "a beginning that is told again": [
        *(uod("X"), started("A"), tags("A", 100.0, X=1), started("A"), tags("A", 103.0, X=2)),
        *(started("B"), tags("B", 106.0, X=3), started("A"), tags("A", 109.0, X=4)),
    ],
    "a tag that is plotted later": [
        *(uod("X"), started("A"), tags("A", 100.0, X=1, Y=1)),
        *(uod("X", "Y"), tags("A", 103.0, X=2, Y=2), started("A"), tags("A", 106.0, X=3, Y=3)),
    ],
    "old samples and the data-log interval": [
        *(uod("X", "Y"), started("A"), tags("A", 100.0, X=1, Y=1)),
        *(tags("A", 102.0, X=2), tags("A", 101.0, Y=2), tags("A", 102.5, X=3)),
        *(tags("A", 101.0, X=4), tags("A", 104.5, Y=3), tags("A", 104.75, X=5)),
        *(tags("A", 104.75, X=5), tags("A", 90.0, Y=4), tags("A", 110.0, X=6)),
    ],
    "tags from before the run": [
        *(uod("X", "Y"), tags(None, 50.0, X=1, Y=1), started("A"), tags("A", 100.0, X=2)),
        *(stopped("A"), started("B"), tags("B", 101.0, X=3)),
    ],
    "a message without tags": [
        *(uod("X"), started("A"), tags("A", 100.0), tags("A", 101.0, X=1), tags("A", 104.0)),
    ],
    "values of all kinds": [
        *(uod("X"), started("A"), tags("A", 100.0, X=1), tags("A", 103.0, X=1.5)),
        *(tags("A", 106.0, X="text"), tags("A", 109.0, X=None), tags("A", 112.0, X="")),
        *(tags("A", 115.0, X=2**53), tags("A", 118.0, X=-0.0)),
    ],
    "marks": [
        *(uod("Mark"), started("A"), tags("A", 100.0, Mark="one"), tags("A", 103.0, Mark="")),
        *(tags("A", 106.0, Mark="two"), tags("A", 109.0, Mark="")),
    ],
    "wrong shapes": [
        uod("X"),
        message("ControlStateMsg", control_state={"is_running": True, "is_holding": False}),
        message("ControlStateMsg", control_state=None),
        message("ControlStateMsg", control_state=[]),
        message("MethodStateMsg", method_state={"started_line_ids": "1"}),
        message("MethodMsg", method={"version": 0, "lines": []}),
        message("MethodMsg", method={"version": 0, "lines": [{"id": "1"}]}),
        message("RunLogMsg", runlog={"lines": {}}),
        message("TagsUpdatedMsg", tags=[{"name": "X", "value": 1, "value_unit": None}]),
        message("TagsUpdatedMsg", tags=[{"name": "X", "tick_time": 1.0, "value": [1]}]),
        message("RunStartedMsg", run_id=None),
        message("UodInfoMsg", data_log_interval_seconds=None),
        message("ErrorLogMsg", log={"entries": [{"message": "text"}]}),
        message("WebPushNotificationMsg", topic="nonsense"),
        message("ControlStateMsg", _type="NoSuchMsg"),
        message("ControlStateMsg", _ns="openpectus.protocol.nowhere"),
        message("ControlStateMsg", engine_id=""),
        message("ControlStateMsg", engine_id="nobody"),
        message("ControlStateMsg", more_than_is_known={"a": 1}),
    ],
    "error logs": [
        *(uod("X"), started("A")),
        *(errors(("a", 1.0)), errors(("a", 1.0)), errors(("a", 2.0)), errors(("a", 1.5))),
        *(errors(("b", 3.0), ("b", 4.0), ("a", 5.0)), errors(("b", 3.0), ("b", 4.0), ("a", 5.0))),
    ],
    "an error log of a run that has ended": [
        *(uod("X"), errors(("before", 1.0)), started("A"), errors(("a", 2.0), ("a", 3.0))),
        *(errors(("b", 4.0)), stopped("A"), errors(("behind", 5.0))),
    ],
    "an aggregator that was killed": [
        *(uod("X"), started("A"), tags("A", 100.0, X=1), Do.KILL),
        *(uod("X"), tags("A", 103.0, X=2), started("A"), tags("A", 104.0, X=3), stopped("A")),
    ],
}


def of(name: str, step: Step) -> Step:
    """Return the step with a run id that no other conversation has."""
    if isinstance(step, Do) or not isinstance(step.get("run_id"), str):
        return step
    return {**step, "run_id": f"{name} {step['run_id']}"}


@pytest.mark.parametrize("name", CONVERSATIONS)
async def test_the_stand_in_does_what_the_real_aggregator_does(
    aggregator: RealAggregator, name: str
) -> None:
    """Answers, stored samples, listed runs and what is shown are the same."""
    steps = [of(name, step) for step in CONVERSATIONS[name]]
    unit_name = f"conversation{list(CONVERSATIONS).index(name)}"
    stand_in = Aggregator()

    async def kill_stand_in() -> None:
        stand_in.kill()

    async def kill_real() -> None:
        await trio.to_thread.run_sync(aggregator.kill)
        await trio.to_thread.run_sync(aggregator.start)

    async with trio.open_nursery() as nursery, open_api(aggregator, unit_name) as api:
        port = await nursery.start(stand_in.run)
        ours = Engine(port, unit_name, kill_stand_in)
        theirs = Engine(aggregator.port, unit_name, kill_real)

        async def look_at_stand_in() -> Json:
            return seen_in(stand_in, ours.engine_id)

        async def look_at_real() -> Json:
            return await seen_at(aggregator.database, api, theirs.engine_id)

        expected = await theirs.play(steps, look_at_real)
        seen = await ours.play(steps, look_at_stand_in)
        nursery.cancel_scope.cancel()
    assert ours.answers == theirs.answers
    assert {what: seen[what] for what in expected} == expected
