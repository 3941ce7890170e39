"""`trio-runner engine` as far as it can be tested without Open Pectus, as with Python 3.11."""

import importlib.util
import sys

import pytest
import trio

from tests.helpers.command import ran


@pytest.mark.skipif(
    importlib.util.find_spec("openpectus") is not None, reason="Open Pectus is installed here"
)
@pytest.mark.parametrize("arguments", [(), ("--help",), ("-validate", "-uod", "my_uod.py")])
async def test_without_open_pectus_the_engine_command_says_how_to_install_it(
    arguments: tuple[str, ...],
) -> None:
    """One line on stderr says what to do, and the exit code is 2."""
    command = await ran("engine", *arguments)
    assert (command.code, command.out) == (2, "")
    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    if sys.version_info < (3, 12):
        assert (
            f"error: this is Python {version}, and Open Pectus needs 3.12 or newer" in command.err
        )
        assert "make a new environment" in command.err
    else:
        assert "error: Open Pectus is not installed here" in command.err
    assert "pip install '.[openpectus]' in the folder of this project" in command.err
    assert command.err.count("\n") == 1


@pytest.mark.parametrize("closing", ["sys.stderr = None", "os.close(2)"])
async def test_the_last_resort_ends_the_process_even_without_stderr(closing: str) -> None:
    """A service of Windows has no stderr, and a file that has its number is not written to."""
    script = f"import os, sys\nfrom trio_runner._cli import _engine\n{closing}\n_engine._exit(1, 3)"
    result = await trio.run_process(
        [sys.executable, "-c", script], capture_stderr=True, check=False
    )
    assert (result.returncode, result.stderr) == (3, b"")
