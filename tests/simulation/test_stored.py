"""The oracle judges by effect: it finds what was answered with Success but was not stored."""

import pytest
import trio

from trio_runner import MemoryOutbox
from trio_runner.protocol import engine_messages as em
from trio_runner.protocol import models as mdl
from trio_runner.simulation.stand_ins._aggregator import AggregatorRules
from trio_runner.simulation.stand_ins._records import RecentRun, Sample
from trio_runner.simulation.trials._oracle import Oracle
from trio_runner.simulation.trials._stored import Stored
from trio_runner.simulation.trials._trace import Trace

ENGINE_ID = "host_Unit"
NO_METHOD = mdl.Method(version=0, lines=[])


def listed(run_id: str) -> RecentRun:
    """Return a run as the aggregator lists it."""
    state = mdl.MethodState.untouched()
    return RecentRun(ENGINE_ID, run_id, 0.0, mdl.RunLog(lines=[]), NO_METHOD, state, [], None, None)


def sample(number: int) -> em.TagsUpdatedMsg:
    """Return a sample of a run, taken now."""
    tick_time = 1e9 + trio.current_time()
    tag = mdl.TagValue(name="Count", tick_time=tick_time, value=number, value_unit="")
    return em.TagsUpdatedMsg(run_id="a", tags=[tag])


@pytest.mark.parametrize(
    ("stored", "times_listed", "violation"),
    [
        pytest.param((1, 3, 5), 1, None, id="right"),
        pytest.param((1, 3, 5), 6, None, id="told again"),
        pytest.param((1, 3, 5), 7, "run a is listed 7 times", id="listed again and again"),
        pytest.param((1, 3, 5), 0, "run a is listed 0 times", id="lost"),
        pytest.param((1, 5), 1, "the value 3 of run a was not stored", id="a hole"),
        pytest.param((), 1, "the value 1 of run a was not stored", id="thrown away"),
        pytest.param(
            (1, 3, 5, 7), 1, "the value 7 is stored in run a, but was not made there", id="made up"
        ),
    ],
)
async def test_the_oracle_compares_what_is_stored_with_what_the_engine_did(
    stored: tuple[int, ...],
    times_listed: int,
    violation: str | None,
    autojump_clock: trio.abc.Clock,
) -> None:
    """Each value is stored at the data-log rate, each run once or as often as its end was sent."""
    oracle, aggregator = Oracle(Trace(), lambda _: None, steady_s=1), AggregatorRules()
    oracle.begin_life(durable=True, outbox=MemoryOutbox().statistics())
    this = Stored(oracle, aggregator, interval_s=1.0)
    oracle.make(em.RunStartedMsg(run_id="a", started_tick=0.0))
    plot: list[Sample] = []
    for number in range(1, 6):
        message = sample(number)
        oracle.make(message)
        this.make(message, "a")
        if number in stored:
            plot.append(Sample(message.tags[0].tick_time, number))
        await trio.sleep(0.75)
    if 7 in stored:
        plot.append(Sample(2e9, 7))
    oracle.make_end_of_run("a")
    aggregator.plot_log["a"] = {"Count": plot}
    aggregator.recent_runs.extend([listed("a")] * times_listed)
    this.check_end()
    assert oracle.violation == violation


@pytest.mark.parametrize(
    ("refused", "way_s", "violation"),
    [
        (None, 0.1, None),
        ("thrown away", 0.1, "the newest value at the aggregator is 10.0 s old"),
        ("thrown away", 4.9, "the newest value at the aggregator is 10.0 s old"),
        ("thrown away", 6.0, None),
    ],
)
async def test_the_newest_value_is_young_when_nothing_stands_in_its_way(
    refused: str | None, way_s: float, violation: str | None, autojump_clock: trio.abc.Clock
) -> None:
    """Samples are taken each second, but only the first arrives: 5 s plus its way is too old."""
    oracle = Oracle(Trace(), lambda _: None, steady_s=1)
    this = Stored(oracle, AggregatorRules(), interval_s=1.0)
    for number in range(12):
        message = sample(number)
        this.make(message, "a")
        this.receive(message, refused if number else None)
        this.check_second(is_quiet=number > 0, way_s=way_s)
        await trio.sleep(1)
    assert oracle.violation == violation


async def test_what_was_made_while_catching_up_goes_out_first(
    autojump_clock: trio.abc.Clock,
) -> None:
    """After 3 s of catching up, the value may be old for 10 + 3 * 3 = 19 s of steady state."""
    oracle = Oracle(Trace(), lambda _: None, steady_s=1)
    oracle.begin_life(durable=True, outbox=MemoryOutbox().statistics())
    this = Stored(oracle, AggregatorRules(), interval_s=1.0)
    oracle.change_state("Started", "Connected")
    oracle.change_state("Connected", "Failed")
    oracle.change_state("Failed", "Disconnected")
    oracle.open_link()
    oracle.change_state("Disconnected", "Reconnecting")
    this.make(sample(0), "a")
    this.receive(sample(0), None)
    oracle.change_state("Reconnecting", "CatchingUp")
    await trio.sleep(3)
    this.check_second(is_quiet=False, way_s=0.1)
    oracle.change_state("CatchingUp", "Reconnected")
    for _ in range(19):
        this.check_second(is_quiet=True, way_s=0.1)
        await trio.sleep(1)
    assert oracle.violation is None
    this.check_second(is_quiet=True, way_s=0.1)
    assert oracle.violation == "the newest value at the aggregator is 22.0 s old"
