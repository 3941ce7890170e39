"""80 seeds of 10 simulated minutes, run with the command that people use."""

import subprocess
import sys

import pytest

from trio_runner.simulation.trials._faults import FAULTS

COMMAND = [sys.executable, "-m", "trio_runner", "simulate", "--seeds", "0-79", "--jobs", "2"]


@pytest.mark.timeout(1500)
def test_no_promise_is_broken_in_80_seeds() -> None:
    """In 13 simulated hours every promise is kept, whatever faults happen."""
    done = subprocess.run(COMMAND, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, ""), done.stdout + done.stderr
    assert done.stdout.startswith("80 seeds, 13.")
    assert [kind for kind in FAULTS if f" {kind} " not in done.stdout] == []
