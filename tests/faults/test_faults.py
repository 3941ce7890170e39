"""Whatever happens to the link, everything arrives in order and in time, and the log says why."""

import logging
import re
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextvars import ContextVar
from functools import partial

import pytest
import trio
import trio.testing
from attrs import evolve

from tests.faults.cases import CASES, STILL_HELD, Case
from tests.faults.scene import RUN, STEADY, Scene, scene, warnings
from tests.helpers.waiting_cases import Outcomes, chosen
from trio_runner.protocol import messages as m

# The first test plays all cases.
pytestmark = pytest.mark.timeout(300)

ALLOWED_S = 0.5
"""What a loaded machine may add to a promised time (s on the world's clock)."""

GIVE_UP_S = 20
"""The time for a fault and what follows it (s on the world's clock); after that, it hangs."""


AT_ONCE = 4
"""How many cases are played at once; they mostly wait, but not at the same moments."""

TRUE_TIME = [
    evolve(case, name=f"{case.name}, true time", rate=1)
    for case in CASES
    if case.name in ("muted", "half-open both", "back pressure")
]
"""The silent faults once more, at the speed of the world's clock."""

_records: ContextVar[list[logging.LogRecord]] = ContextVar("records")
"""The records that were logged in the tasks of a case."""


class Collector(logging.Handler):
    """A handler that gives each case the records that were logged in it."""

    def emit(self, record: logging.LogRecord) -> None:
        """Add the record to its case's list."""
        _records.get().append(record)


@pytest.fixture(scope="module")
def outcomes(request: pytest.FixtureRequest) -> Iterator[Outcomes]:
    """Play all cases that this session tests; cases of the same rate share a clock."""
    outcomes, collector = Outcomes(), Collector()
    cases = chosen(request, "case", [*CASES, *TRUE_TIME])

    def run(rate: float) -> None:
        plays = [(case.name, partial(play_case, case)) for case in cases if case.rate == rate]
        trio.run(
            partial(outcomes.play, plays, at_once=AT_ONCE, case_s=2 * GIVE_UP_S * rate),
            clock=trio.testing.MockClock(rate=rate),
        )

    logger = logging.getLogger("trio_runner")
    logger.addHandler(collector)
    try:
        with ThreadPoolExecutor(1) as beside:
            in_true_time = beside.submit(run, 1.0)  # it does little but wait
            for rate in sorted({case.rate for case in cases} - {1.0}):
                run(rate)
            in_true_time.result()
        yield outcomes
    finally:
        logger.removeHandler(collector)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_a_fault_loses_nothing(case: Case, outcomes: Outcomes) -> None:
    """Once it is undone, the link is back in time and the aggregator has all that was told."""
    outcomes.check(case.name)


@pytest.mark.parametrize("case", TRUE_TIME, ids=lambda case: case.name)
def test_silence_is_noticed_in_ten_seconds_of_real_time(case: Case, outcomes: Outcomes) -> None:
    """The silent faults are played once more at the speed of the world's clock."""
    outcomes.check(case.name)


async def play_case(case: Case) -> None:
    """Play a case on a new scene, and check what was delivered and logged."""
    records: list[logging.LogRecord] = []
    _records.set(records)
    async with scene() as s:
        await play(s, case)
    check_delivered(s, case)
    check_said(s, case, warnings(records))


async def play(s: Scene, case: Case) -> None:
    """Tell of a run in which the fault happens, and check the times."""
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
    """Check what arrived."""
    s.check_delivery(case.passed)
    s.check_repeats()
    s.check_one_link()
    s.check_end()
    assert s.runner.statistics().links == case.links
    assert (s.noticed_s is not None) == (case.links > 1)
    # A silent link does not keep up, so samples are taken at the rate of the data log, one every
    # 1.2 s. A loaded machine misses some ticks, but there is no hole before the fault is noticed.
    if s.noticed_s is not None and s.noticed_s > 4:
        assert s.samples_unnoticed >= 0.5 * s.noticed_s / 1.2


def check_said(s: Scene, case: Case, logged: list[str]) -> None:
    """Check that each reason was logged once, and that the statistics have the last."""
    if case.links > 1:
        assert logged[-1].startswith(str(s.runner.statistics().last_failure))
    if STILL_HELD not in case.reasons:
        # A dial may overtake the end of the link before it.
        logged = [message for message in logged if not re.search(STILL_HELD, message)]
    assert len(logged) == len(case.reasons), logged
    for reason, message in zip(case.reasons, logged, strict=True):
        assert re.search(reason, message)
