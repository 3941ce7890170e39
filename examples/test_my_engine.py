"""Let your engine live through ten minutes of faults, in virtual time, with pytest.

Meanwhile processes are killed, links are lost, disks are full, and people press Start and Stop. A
failure is an AssertionError that names the promise, the moment, and how to repeat it.
"""

import pytest
from embed_engine import Bath

from trio_runner.simulation import survive


@pytest.mark.parametrize("seed", range(3))
def test_the_bath_lives_through_storms(seed: int) -> None:
    survive(lambda clock: Bath("Bath", clock=clock), seed, run=Bath.run)


class ForgetfulBath(Bath):
    """A bath that stops and does not tell that its run has ended."""

    async def execute_control_command(self, name: str) -> None:
        if name == "Stop":
            self.run_id = None
        else:
            await super().execute_control_command(name)


def test_a_bath_that_forgets_the_end_of_a_run_is_caught() -> None:
    with pytest.raises(
        AssertionError, match=r"that no run is on, but on_stop\(\) was not called for run"
    ):
        survive(lambda clock: ForgetfulBath("Bath", clock=clock), 1, run=ForgetfulBath.run)
