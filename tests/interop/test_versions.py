"""Old and new releases of Open Pectus: the real aggregator of each, with two engines.

One is the real engine of the same release. The other is the simulated engine, which has this
project's version whatever the aggregator's is.
"""

import csv
import signal
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from itertools import pairwise
from pathlib import Path

import pytest
import trio
from attrs import frozen

from tests.helpers.command import Command, running
from tests.helpers.install import Unavailable, both_of_version
from tests.helpers.required import go_without

from ._aggregator import Api, RealAggregator, eventually
from ._releases import releases
from ._unit import CONNECT_S, ON_DISK_S, open_api

pytestmark = [pytest.mark.interop, pytest.mark.timeout(600)]

OUTAGE_S = 6.0
# As in other tests with an outage, both units log every 1 s.
GAP_S_MAX = 2.5

METHODS = {
    "real": ["Mark: begun", "Block: Feed", "    Mark: fed", "    End block", "Wait: 10 min", ""],
    "simulated": ["Pump: 40 %", "Mark: begun", "Wait: 10 min", ""],
}
LAST_BUT_THE_WAIT = {"real": "Mark: fed", "simulated": "Mark: begun"}


@frozen
class Place:
    """An aggregator of a release, and where its commands are."""

    aggregator: RealAggregator
    commands: Path

    def refusals(self) -> int:
        """Return how many messages the aggregator could not read so far."""
        return self.aggregator.log_text().count("Message deserialization failed")

    @asynccontextmanager
    async def engine(self, kind: str, folder: Path, api: Api) -> AsyncIterator[Command]:
        """Run an engine that is listed as ready; it can be run again in the same folder."""
        name = api.unit_name
        where = ("-ap", str(self.aggregator.port), "--outbox", str(folder / "unit.outbox"))
        if kind == "real":
            program = [str(self.commands / "python"), "-m", "trio_runner"]
            arguments = ["engine", *where, "-uod", self._uod(folder, name)]
        else:
            program = [sys.executable, "-m", "trio_runner"]
            arguments = ["simulated", *where, "--name", name, "--ignore_version_error"]
        async with running(*arguments, program=program, environment=QUIET) as command:
            await eventually(api.state, lambda state: state == "ready", within_s=CONNECT_S)
            yield command

    def _uod(self, folder: Path, name: str) -> str:
        """Return the path of a UOD like the release's demo unit, which logs every second."""
        (demo,) = self.commands.parent.glob("lib/*/site-packages/openpectus/engine/*/demo_uod.py")
        text = demo.read_text().replace("DemoUod", name)
        at = ".with_location("
        path = folder / "unit.py"
        path.write_text(text.replace(at, f".with_data_log_interval_seconds(1.0){at}"))
        return str(path)


QUIET = {"PYTHONWARNINGS": "ignore"}
"""The package warns when it is imported, about different things in each release."""


@pytest.fixture(scope="module", params=releases())
def place(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Place]:
    """Run the aggregator of a release for all its tests."""
    try:
        commands = both_of_version(request.param)
    except Unavailable as error:
        go_without(str(error))
    folder = tmp_path_factory.mktemp("aggregator")
    with RealAggregator(commands / "pectus-aggregator", folder) as aggregator:
        yield Place(aggregator, commands)


@pytest.fixture
async def api(place: Place, kind: str, request: pytest.FixtureRequest) -> AsyncIterator[Api]:
    """Yield the aggregator's HTTP interface for a unit that only this test uses."""
    async with open_api(place.aggregator, f"{kind.title()} of {request.node.name}") as of_unit:
        yield of_unit


@pytest.mark.parametrize("kind", METHODS)
async def test_a_run_survives_a_crash_of_the_aggregator(
    place: Place, kind: str, api: Api, tmp_path: Path
) -> None:
    """Method, Start, crash, Stop: one recent run without a hole, with its run log and CSV."""
    refusals = place.refusals()
    async with place.engine(kind, tmp_path, api) as command:
        await begin_a_run(api, kind)
        await trio.to_thread.run_sync(place.aggregator.kill)
        await command.until("Changing state: Failed -> Disconnected")
        await trio.sleep(OUTAGE_S)
        await trio.to_thread.run_sync(place.aggregator.start)
        await command.until("Changing state: CatchingUp -> Reconnected")
        await eventually(api.state, lambda state: state == "in_progress")
        method = await api.of_unit("method")
        assert [line["content"] for line in method["lines"]] == METHODS[kind]
        await trio.sleep(2)  # of the run, after the outage
        await api.press("Stop")
        (run,) = await eventually(api.runs, bool)
        assert "Mark: begun" in await commands_of(api, run["run_id"])
        plot = await api.get(f"recent_runs/{run['run_id']}/plot_log")
        times = sorted({v["tick_time"] for e in plot["entries"].values() for v in e["values"]})
        assert times[-1] - times[0] > OUTAGE_S
        assert max(b - a for a, b in pairwise(times)) < GAP_S_MAX
        exported = await api.get(f"recent_runs/{run['run_id']}/csv_json")
        assert len(list(csv.reader(exported["csv_content"].splitlines()))) > OUTAGE_S
        command.send(signal.SIGTERM)
    assert command.code == 0
    assert "ERROR" not in command.err
    assert place.refusals() == refusals


@pytest.mark.parametrize("kind", METHODS)
async def test_a_killed_engine_closes_its_run(
    place: Place, kind: str, api: Api, tmp_path: Path
) -> None:
    """The earlier run is stored with its run log when the engine is back, and another begins."""
    async with place.engine(kind, tmp_path, api) as command:
        await begin_a_run(api, kind)
        await trio.sleep(ON_DISK_S)
        command.send(signal.SIGKILL)
    assert command.code == -signal.SIGKILL
    async with place.engine(kind, tmp_path, api) as command:
        (run,) = await eventually(api.runs, bool)
        assert "Mark: begun" in await commands_of(api, run["run_id"])
        await api.press("Start")
        await eventually(api.state, lambda state: state == "in_progress")
        command.send(signal.SIGTERM)  # what is on is ended and stored
    assert command.code == 0
    assert len(await eventually(api.runs, lambda runs: len(runs) == 2)) == 2


@pytest.mark.parametrize("kind", METHODS)
async def test_commands_before_a_run_are_told_to_aggregators_that_know_them(
    place: Place, kind: str, api: Api, tmp_path: Path
) -> None:
    """A package has no queue or tells it; an aggregator of another version is asked once."""
    refusals = place.refusals()
    async with place.engine(kind, tmp_path, api) as command:
        for number in range(3):
            assert (await api.enter(f"Mark: early {number}")).is_success
            await trio.sleep(0.7)  # two samples
        assert place.refusals() <= refusals + (kind == "simulated")
        await api.press("Start")
        await eventually(api.state, lambda state: state == "in_progress")
        await eventually(lambda: api.of_unit("run_log"), lambda log: "Mark: early" in str(log))
        command.send(signal.SIGTERM)
    assert command.code == 0


async def begin_a_run(api: Api, kind: str) -> None:
    """Give a method and start it, and wait until the method waits."""
    await api.set_method(*METHODS[kind])
    await api.press("Start")
    await eventually(api.state, lambda state: state == "in_progress")
    await eventually(
        lambda: api.of_unit("run_log"), lambda log: LAST_BUT_THE_WAIT[kind] in str(log)
    )


async def commands_of(api: Api, run_id: str) -> list[str]:
    """Return the commands in the stored run log of a run."""
    log = await api.get(f"recent_runs/{run_id}/run_log")
    return [line["command"]["command"] for line in log["lines"]]
