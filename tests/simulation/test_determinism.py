"""The same seed gives the same trace, to the byte: in any process, on any Python, beside others."""

import os
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

from tests.helpers.install import _candidates, _minor_version

ROOT = Path(__file__).parents[2]

ARGUMENTS = ["-m", "trio_runner", "simulate", "--seeds", "0-3", "--hours", "1/20"]

HOW_TO_GET_ONE = (
    "there is no other Python to compare with:"
    " put python3.13 on the PATH, or install one with pyenv"
)


def hash_of(*options: str, python: str = sys.executable, **environment: str) -> str:
    """Return the hash that the command tells for 4 seeds of 3 minutes."""
    done = subprocess.run(
        [python, *ARGUMENTS, *options],
        capture_output=True,
        text=True,
        env={**os.environ, **environment},
    )
    assert done.returncode in (0, 1), done.stderr  # a broken promise is another test's
    (line,) = [line for line in done.stdout.splitlines() if line.startswith("traces ")]
    return line.split()[1]


@pytest.fixture(scope="module")
def known_hash() -> str:
    """Return the hash of a first process."""
    return hash_of(PYTHONHASHSEED="1")


def other_python() -> str:
    """Return an interpreter of another version than this one, or skip; where all must run, fail."""
    for candidate in _candidates():
        minor = _minor_version(candidate)
        if minor is not None and minor != sys.version_info.minor:
            return candidate
    if os.environ.get("CI") == "true":
        pytest.fail(HOW_TO_GET_ONE, pytrace=False)
    pytest.skip(HOW_TO_GET_ONE)


def test_a_seed_is_the_same_in_every_process(known_hash: str) -> None:
    """The order of sets and dicts by hash, and what a process simulated before, do not matter."""
    assert hash_of("--jobs", "2", PYTHONHASHSEED="2") == known_hash


def test_a_seed_is_the_same_on_another_python(known_hash: str) -> None:
    """Of another minor version, with the very same packages: none of ours has compiled parts."""
    packages = os.pathsep.join([str(ROOT), sysconfig.get_path("purelib")])
    assert hash_of(python=other_python(), PYTHONPATH=packages) == known_hash


def test_another_seed_is_another_simulation() -> None:
    """No two of four seeds have the same trace."""
    hashes = {hash_of("--seeds", f"{seed}-{seed}", "--hours", "1/360") for seed in range(4)}
    assert len(hashes) == 4
