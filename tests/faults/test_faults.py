"""Whatever happens to the link: in order, none missing, back in time, and said why."""

import re

import pytest
import trio
import trio.testing
from attrs import evolve

from tests.faults.cases import CASES, STILL_HELD, Case
from tests.faults.scene import RUN, STEADY, Scene, scene, warnings
from trio_runner.protocol import messages as m

ALLOWED_S = 0.5
"""What a loaded machine may add to a promise (s, the world's clock)."""


GIVE_UP_S = 30
"""For a fault and what comes behind it (s, the world's clock): longer, and something hangs."""


@pytest.fixture
def clock(case: Case) -> trio.testing.MockClock:
    """Return a clock that runs as fast as the case says."""
    return trio.testing.MockClock(rate=case.rate)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
async def test_a_fault_loses_nothing(
    case: Case, clock: trio.testing.MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    """Run, fault, heal, back in time; then the aggregator has all that the engine told."""
    tasks = trio.lowlevel.current_statistics().tasks_living
    async with scene() as s:
        await play(s, case)
    check_delivered(s, case)
    check_said(s, case, warnings(caplog.records))
    assert trio.lowlevel.current_statistics().tasks_living == tasks


async def test_silence_is_noticed_in_ten_seconds_of_the_worlds_clock() -> None:
    """The same for the silent faults, all at once, with the times as they are."""

    async def in_true_time(case: Case) -> None:
        case = evolve(case, rate=1)
        async with scene() as s:
            await play(s, case)
        check_delivered(s, case)

    silent = [case for case in CASES if case.name in ("muted", "half-open both", "back pressure")]
    assert len(silent) == 3
    async with trio.open_nursery() as nursery:
        for case in silent:
            nursery.start_soon(in_true_time, case)


async def play(s: Scene, case: Case) -> None:
    """Tell of a run in which the fault happens."""
    allowed_s = ALLOWED_S * case.rate
    s.runner.on_start(RUN)
    s.tell("well before")
    await s.arrived("well before")
    await s.samples(2)  # of the run
    s.tell("just before")
    s.begin_fault()
    with trio.fail_after(GIVE_UP_S * case.rate):
        await case.fault(s)
        healed_s = trio.current_time()
        s.tell("behind")
        if case.links > 1 and s.noticed_s is None:
            await s.noticed()
        s.tell("last")
        await s.arrived("last")
    assert trio.current_time() - healed_s <= case.back_s + allowed_s
    assert s.noticed_s is None or s.noticed_s <= case.noticed_s + allowed_s
    await s.until(*STEADY)
    assert isinstance(await s.command("Pause"), m.SuccessMessage)
    s.runner.on_stop()


def check_delivered(s: Scene, case: Case) -> None:
    """Look at what arrived."""
    s.check_delivery()
    s.check_repeats()
    s.check_one_link()
    s.check_end()
    assert s.runner.statistics().links == case.links
    assert (s.noticed_s is not None) == (case.links > 1)
    # At 0.3 s a sample, some ticks missed on a loaded machine: no hole while nothing is noticed.
    if s.noticed_s is not None and s.noticed_s > 4:
        assert s.samples_unnoticed >= 0.5 * s.noticed_s / 0.3


def check_said(s: Scene, case: Case, logged: list[str]) -> None:
    """Look at what was logged, once, and stands in the statistics."""
    if case.links > 1:
        assert s.runner.statistics().last_failure == logged[-1]
    if STILL_HELD not in case.reasons:
        # A dial may overtake the end of the link before it.
        logged = [message for message in logged if not re.search(STILL_HELD, message)]
    assert len(logged) == len(case.reasons), logged
    for reason, message in zip(case.reasons, logged, strict=True):
        assert re.search(reason, message)
