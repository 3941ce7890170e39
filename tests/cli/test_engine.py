"""`trio-runner engine` where Open Pectus is not installed, as under Python 3.11."""

import importlib.util

import pytest

from .command import ran


@pytest.mark.skipif(
    importlib.util.find_spec("openpectus") is not None, reason="Open Pectus is installed here"
)
@pytest.mark.parametrize("arguments", [(), ("--help",), ("-validate", "-uod", "my_uod.py")])
async def test_without_open_pectus_it_says_how_to_install_it(arguments: tuple[str, ...]) -> None:
    """One line on stderr that says what to do, exit code 2."""
    command = await ran("engine", *arguments)
    assert (command.code, command.out) == (2, "")
    assert "error: Open Pectus is not installed here. It needs Python 3.12 or newer" in command.err
    assert "pip install 'trio-runner[openpectus]'" in command.err
    assert command.err.count("\n") == 1
