"""A file that is not there, or is no UOD, is named before anything else is tried."""

import signal
from pathlib import Path

import pytest

from tests.helpers.command import ran, running

from .test_command import NOBODY, uod_named


@pytest.mark.parametrize("more", [(), ("-validate",)])
async def test_a_uod_that_is_not_there_is_a_wrong_argument(
    more: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At once, with the path at which it was looked for and exit code 2."""
    monkeypatch.chdir(tmp_path)
    command = await ran("engine", *NOBODY, "-uod", "nope.py", *more)
    assert (command.code, command.out) == (2, "")
    missing = tmp_path / "nope.py"
    assert command.err == (
        f"trio-runner engine: error: argument -uod: there is no file {missing}\n"
    )


async def test_units_that_are_not_there_are_named_by_their_file_of_settings(tmp_path: Path) -> None:
    """All that the file lists; `config check` tells the lines."""
    settings = tmp_path / "pectus.toml"
    settings.write_text("[units.A]\nuod = 'a.py'\n[units.B]\nuod = 'b.py'\n")
    command = await ran("engine", "--config", str(settings))
    assert command.code == 2
    assert f"error: {settings}: there is no file {tmp_path / 'a.py'}, {tmp_path / 'b.py'}\n" in (
        command.err
    )


async def test_a_uod_that_is_not_there_costs_its_unit_only(tmp_path: Path) -> None:
    """The others run; exit code 3."""
    good, missing = uod_named(tmp_path, "Good one"), tmp_path / "nope.py"
    uods = ("-uod", str(missing), "-uod", good)
    async with running("engine", *NOBODY, *uods) as command:
        await command.until(f"The unit of {missing} has failed: there is no file {missing}")
        await command.until("Started -> Failed")
        command.send(signal.SIGTERM)
    assert command.code == 3


async def test_a_file_without_create_is_no_uod(tmp_path: Path) -> None:
    """Said in a word, with exit code 1, as for any UOD that does not load."""
    (tmp_path / "empty_uod.py").write_text("")
    command = await ran("engine", *NOBODY, "-uod", str(tmp_path / "empty_uod.py"))
    assert command.code == 1
    assert "has failed: empty_uod.py has no function create(), so it is no UOD\n" in command.err


async def test_a_relative_path_has_its_line_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The line of the UOD's own file in which its `create` raised."""
    monkeypatch.chdir(tmp_path)
    Path("wrong.py").write_text("def create():\n    return [].create\n")
    command = await ran("engine", *NOBODY, "-uod", "wrong.py")
    assert command.code == 1
    assert "line 2: AttributeError: 'list' object has no attribute 'create'" in command.err
