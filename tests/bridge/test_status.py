"""The status of `trio-runner engine` with several units."""

import json
import signal
from pathlib import Path

import pytest
import trio

from tests.helpers.command import ran, running
from tests.helpers.ports import free_port
from tests.status.site import get
from trio_runner.simulation import Aggregator

from .test_command import IGNORE, uod_named, without_hardware, wrong_uod

pytestmark = pytest.mark.timeout(120)


async def test_the_status_shows_all_units_even_those_that_failed(tmp_path: Path) -> None:
    """Two run, one has a wrong definition, and one lacks its hardware; each has its name."""
    uods = [uod_named(tmp_path, "Alpha"), uod_named(tmp_path, "Beta")]
    uods += [wrong_uod(tmp_path), without_hardware(tmp_path)]
    given = [text for uod in uods for text in ("-uod", uod)]
    at = str(free_port())
    async with trio.open_nursery() as nursery:
        port: int = await nursery.start(Aggregator().run)
        arguments = ("-ap", str(port), *IGNORE, *given, "--outbox", "memory", "--status", at)
        async with running("engine", *arguments) as command:
            await command.until("-> Connected", times=2)
            await command.until("has failed", times=2)
            health = await get(f"http://127.0.0.1:{at}/", "health")
            told = await ran("status", "--json", at)
            command.send(signal.SIGTERM)
        nursery.cancel_scope.cancel()
    assert command.code == 3
    assert health.status_code == 503
    assert "Mute: it has failed: its hardware cannot be used" in health.text
    assert "wrong.py: it has failed: " in health.text
    units = {unit["unit"]: unit for unit in json.loads(told.out)["units"]}
    assert {name: unit["level"] for name, unit in units.items()} == {
        "Alpha": "ok",
        "Beta": "ok",
        "wrong.py": "critical",
        "Mute": "critical",
    }
    assert units["Mute"]["statistics"] is None
    assert told.code == 2
