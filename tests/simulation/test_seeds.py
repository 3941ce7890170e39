"""80 seeds of 10 simulated minutes, run with the command that people use, and some that failed."""

import subprocess
import sys

import pytest

from trio_runner.simulation.trials._faults import FAULTS
from trio_runner.simulation.trials._simulate import simulate

COMMAND = [sys.executable, "-m", "trio_runner", "simulate", "--seeds", "0-79", "--jobs", "2"]


@pytest.mark.timeout(1500)
def test_no_promise_is_broken_in_80_seeds() -> None:
    """In 13 simulated hours every promise is kept, whatever faults happen."""
    done = subprocess.run(COMMAND, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, ""), done.stdout + done.stderr
    assert done.stdout.startswith("80 seeds, 13.")
    assert [kind for kind in FAULTS if f" {kind} " not in done.stdout] == []


@pytest.mark.parametrize("seed", [106, 120, 127, 148, 149, 195, 715, 1003, 2598, 2844])
def test_a_seed_that_once_broke_a_promise_keeps_it(seed: int) -> None:
    """Beyond the 80, these found bugs of the runner or the oracle."""
    assert simulate(seed).violation is None
