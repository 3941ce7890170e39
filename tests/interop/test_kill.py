"""An engine that is killed in mid-run and comes back, at the real aggregator."""

import signal
from pathlib import Path

import pytest
import trio

from tests.helpers.command import running

from ._aggregator import RealAggregator, eventually
from ._unit import CONNECT_S, ON_DISK_S, open_api

pytestmark = [pytest.mark.interop, pytest.mark.timeout(600)]


async def test_a_killed_engine_comes_back_by_itself(
    aggregator: RealAggregator, tmp_path: Path
) -> None:
    """The old run is stored with its run log; new values flow, and a new run can be started."""
    name = "Unit that is killed"
    where = ("-ap", str(aggregator.port), "--outbox", str(tmp_path / "unit.outbox"))
    arguments = ("simulated", "--name", name, *where)
    async with open_api(aggregator, name) as api:
        async with running(*arguments) as command:
            await eventually(api.state, lambda state: state == "ready", within_s=CONNECT_S)
            await api.set_method("Pump: 40 %", "Mark: begun", "Wait: 10 min")
            await api.press("Start")
            await eventually(lambda: api.of_unit("run_log"), lambda log: len(log["lines"]) == 3)
            await eventually(api.process_values, lambda v: "Pump" in v and v["Pump"]["value"] == 40)
            await trio.sleep(ON_DISK_S)
            command.send(signal.SIGKILL)
        assert command.code == -signal.SIGKILL
        await eventually(api.state, lambda state: state == "not_online")
        assert await api.runs() == []

        async with running(*arguments) as command:
            (run,) = await eventually(api.runs, bool, within_s=CONNECT_S)
            old = await api.get(f"recent_runs/{run['run_id']}/run_log")
            commands = [line["command"]["command"] for line in old["lines"]]
            assert commands == ["Pump: 40 %", "Mark: begun", "Wait: 10 min"]
            await eventually(api.state, lambda state: state == "ready")
            # The new engine's pump stands still, so the old engine's value must have gone.
            await eventually(api.process_values, lambda v: "Pump" in v and v["Pump"]["value"] == 0)
            await api.press("Start")
            await eventually(api.state, lambda state: state == "in_progress")
            await api.press("Stop")
            await eventually(api.runs, lambda runs: len(runs) == 2)
            command.send(signal.SIGTERM)
        assert command.code == 0
