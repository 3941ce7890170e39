"""What `trio-runner engine` writes to stderr."""

import json
import re
import signal
from pathlib import Path

import pytest
import trio

from tests.cli.test_log import TIME, records
from tests.helpers.command import ran, running
from trio_runner.protocol import SuccessMessage
from trio_runner.protocol import aggregator_messages as am
from trio_runner.simulation import Aggregator

from .test_command import IGNORE, NOBODY, uod_named, wrong_uod

pytestmark = pytest.mark.timeout(120)

FORGED = "Mark: A\n2026-11-29 00:00:00,000 ERROR forged\x1b[31m"
"""Code that would write its own line into the log."""


async def test_commands_are_named_on_one_line() -> None:
    """Each line says what it is: the name of the button, or the code, cut and printable."""
    aggregator = Aggregator()
    async with trio.open_nursery() as nursery:
        port = await nursery.start(aggregator.run)
        async with running("engine", "-ap", str(port), *IGNORE) as command:
            await command.until("Starting engine on first steady-state")
            engine_id = aggregator.engine().engine_id
            for message in (
                am.ExecuteControlCommandMsg(name="Start"),
                am.InjectCodeMsg(pcode=FORGED),
                am.InjectCodeMsg(pcode="Mark: " + "B" * 1000),
            ):
                assert isinstance(await aggregator.call(engine_id, message), SuccessMessage)
            command.send(signal.SIGTERM)
        nursery.cancel_scope.cancel()
    assert command.code == 0
    assert "Incomming control command from aggregator: Start\n" in command.err
    assert r"'Mark: A\n2026-11-29 00:00:00,000 ERROR forged\x1b[31m'" in command.err
    assert re.search(r"Incomming inject code .*: 'Mark: B{200,300}\.\.\.\n", command.err)
    assert "\x1b" not in command.err
    assert "[DemoUod]" not in command.err, "there is but one"
    lines = command.err.splitlines()
    assert [line for line in lines if not re.match(TIME, line)] == []


async def test_json_names_the_unit_of_each_record(tmp_path: Path) -> None:
    """Of two units one fails, with its traceback."""
    uods = [uod_named(tmp_path, "One"), uod_named(tmp_path, "Two"), wrong_uod(tmp_path)]
    named = [text for uod in uods for text in ("-uod", uod)]
    async with running("engine", *NOBODY, *named, "--log-format", "json") as command:
        await command.until("Started -> Failed", times=2)
        await command.until("has failed")
        command.send(signal.SIGTERM)
    assert command.code == 3
    told = records(command.err)
    losses = [r["unit"] for r in told if r["message"] == "Changing state: Started -> Failed"]
    assert sorted(losses) == ["One", "Two"]
    (failure,) = [r for r in told if "has failed" in r["message"]]
    assert (failure["level"], failure["unit"]) == ("ERROR", "wrong.py")


async def test_json_is_written_by_a_validation_too() -> None:
    """The validation is the package's own."""
    command = await ran("engine", "-validate", "--log-format", "json")
    assert (command.code, command.out) == (0, "")
    messages = [json.loads(line)["message"] for line in command.err.splitlines()]
    assert messages[0].startswith("OpenPectus Engine v. ")
    assert messages[-1] == "Validation complete. Exiting."


async def test_the_version_is_told() -> None:
    """That of the engine's package is told too."""
    command = await ran("engine", "--version")
    assert (command.code, command.err) == (0, "")
    assert re.fullmatch(r"trio-runner .*, Python .*, openpectus [\d.]+\n", command.out)
