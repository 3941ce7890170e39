"""`trio-runner engine --config FILE`."""

import signal
import urllib.request
from pathlib import Path

import pytest
import trio

from tests.helpers.command import ran, running
from tests.helpers.ports import free_port
from trio_runner.simulation import Aggregator

from .test_command import SALT, uod_named

pytestmark = pytest.mark.timeout(120)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """Return the path of settings with two units, for an aggregator that does not exist."""
    units = "".join(
        f"[units.{name}]\nuod = '{Path(uod_named(tmp_path, name)).name}'\n"
        for name in ("One", "Two")
    )
    path = tmp_path / "pectus.toml"
    path.write_text(
        "secret_file = 'secret'\nlog_format = 'json'\nignore_version_error = true\n"
        "[aggregator]\nhost = '127.0.0.1'\nport = 9\nproxy = false\n"
        "[outbox]\nfolder = 'waiting'\n" + units
    )
    (tmp_path / "secret").write_text(f"{SALT}\n")
    return path


def outboxes(file: Path) -> list[str]:
    """Return the names of the existing outboxes."""
    return sorted(path.name for path in (file.parent / "waiting").glob("*.outbox"))


async def test_all_units_of_a_file_run_in_one_process(file: Path) -> None:
    """They have the file's secret, folder and log; the port is the command line's."""
    aggregator = Aggregator(secret=SALT)
    async with trio.open_nursery() as nursery:
        port = await nursery.start(aggregator.run)
        async with running("engine", "--config", str(file), "-ap", str(port)) as command:
            await command.until("Started -> Connected", times=2)
            command.send(signal.SIGTERM)
        nursery.cancel_scope.cancel()
    assert command.code == 0
    assert command.err.startswith('{"time": ')
    assert outboxes(file) == ["One.outbox", "Two.outbox"]
    names = {record.registrations[0].message.uod_name for record in aggregator.engines.values()}
    assert names == {"One", "Two"}


async def test_a_unit_has_the_same_outbox_alone_and_among_all(file: Path) -> None:
    """It does not matter whether units run in one process or each in its own."""
    arguments = ("--config", str(file), "--unit", "Two", "--log-format", "text")
    async with running("engine", *arguments) as command:
        await command.until("Started -> Failed")
        command.send(signal.SIGTERM)
    assert command.code == 0
    assert outboxes(file) == ["Two.outbox"]
    assert f"The outbox is {file.parent / 'waiting' / 'Two.outbox'}: nothing" in command.err


async def test_wrong_settings_give_one_line_and_exit_code_2(file: Path) -> None:
    """Before anything runs, it names the file, the line, the key, and the one that may be meant."""
    file.write_text(file.read_text().replace("port = 9", "prot = 9"))
    command = await ran("engine", "--config", str(file))
    assert (command.code, command.out) == (2, "")
    assert command.err == (
        f"trio-runner engine: error: {file}, line 6: aggregator.prot: there is no such key; did you"
        " mean aggregator.port?\n"
    )


async def test_a_wrong_outbox_is_blamed_on_its_line(file: Path) -> None:
    """There is a file in the place of the folder."""
    (file.parent / "waiting").write_text("notes\n")
    command = await ran("engine", "--config", str(file), "--unit", "One", "--log-format", "text")
    assert command.code == 1
    assert f"has failed: {file}, line 9: outbox.folder: Several UODs need a folder" in command.err


async def test_the_status_that_a_file_asks_for_is_served(file: Path) -> None:
    """It is served at the file's address, with the file's units."""
    port = free_port()
    file.write_text(f"{file.read_text()}[status]\naddress = {port}\n")
    async with running("engine", "--config", str(file)) as command:
        await command.until("Started -> Failed", times=2)
        await command.until("Status at http://")
        told = await trio.to_thread.run_sync(get, f"http://127.0.0.1:{port}/status.json")
        command.send(signal.SIGTERM)
    assert command.code == 0
    assert '"One"' in told
    assert '"Two"' in told


def get(url: str) -> str:
    """Return what a URL answers."""
    with urllib.request.urlopen(url) as answer:  # noqa: S310
        text: str = answer.read().decode()
        return text
