"""A seed gives the same trace, to the byte, in any process, on any Python, beside other seeds."""

import os
import subprocess
import sys
import sysconfig
from pathlib import Path

import orjson
import pytest

from tests.helpers.install import Unavailable, find_python, python_with

ROOT = Path(__file__).parents[2]

ARGUMENTS = ["-m", "trio_runner", "simulate", "--seeds", "0-3", "--hours", "1/20"]


def hash_of(*options: str, python: str = sys.executable, **environment: str) -> str:
    """Return the hash that the command prints, by default for 4 seeds of 3 minutes."""
    done = subprocess.run(
        [python, *ARGUMENTS, *options],
        capture_output=True,
        text=True,
        env={**os.environ, **environment},
    )
    assert done.returncode in (0, 1), done.stderr  # a broken promise is for another test
    (line,) = [line for line in done.stdout.splitlines() if line.startswith("traces ")]
    return line.split()[1]


@pytest.fixture(scope="module")
def known_hash() -> str:
    """Return the hash that a first process gives."""
    return hash_of(PYTHONHASHSEED="1")


def other_python() -> tuple[Path, Path]:
    """Return a Python of another version than this one, and the folder with its own orjson.

    Skip the test if there is none, or fail it where all tests must run.
    """
    try:
        if find_python()[1] != sys.version_info.minor:
            return python_with("orjson", orjson.__version__)
        why = "the other Python that was found is of this version too"
    except Unavailable as error:
        why = str(error)
    if os.environ.get("CI") == "true":
        pytest.fail(why, pytrace=False)
    pytest.skip(why)


def test_a_seed_gives_the_same_trace_in_every_process(known_hash: str) -> None:
    """Neither the order of hashes nor what the process simulated before matters."""
    assert hash_of("--jobs", "2", PYTHONHASHSEED="2") == known_hash


def test_a_seed_gives_the_same_trace_on_another_python(known_hash: str) -> None:
    """This Python has another minor version and all the same packages but the compiled one."""
    python, compiled = other_python()
    packages = os.pathsep.join(map(str, (ROOT, compiled, sysconfig.get_path("purelib"))))
    assert hash_of(python=str(python), PYTHONPATH=packages) == known_hash


def test_another_seed_gives_another_trace() -> None:
    """No two of four seeds have the same trace."""
    hashes = {hash_of("--seeds", f"{seed}-{seed}", "--hours", "1/360") for seed in range(4)}
    assert len(hashes) == 4
