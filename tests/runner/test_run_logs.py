"""How often run logs are told, depending on what they cost."""

import pytest
import trio
import trio.testing
from attrs import define, evolve, field

from tests.helpers.unit import Unit
from tests.test_outbox import LINE
from trio_runner import MemoryOutbox, Timing
from trio_runner._intake import Intake
from trio_runner._ticker import Ticker
from trio_runner.protocol import engine_messages as em

Clock = trio.testing.MockClock


@define(eq=False)
class Costly(Unit):
    """A unit whose run logs take long to make, on Trio's thread."""

    clock_of_test: Clock = field(kw_only=True)
    cost_s: float = 0.0
    asked_at: list[float] = field(factory=list)
    """When the making of each run log began, since the start (s)."""
    began: float = field(factory=trio.current_time)

    def create_runlog_msg(self, run_id: str) -> em.RunLogMsg:
        self.asked_at.append(round(trio.current_time() - self.began, 6))
        self.clock_of_test.jump(self.cost_s)
        return super().create_runlog_msg(run_id)


@pytest.mark.parametrize(
    ("cost_s", "asked_at"),
    [
        # With each sample: 0.02 s is less than a tenth of the 0.3 s between two.
        (0.02, [0.1, 0.4, 0.7, 1.0]),
        # 10 * 0.85 s = 8.5 s after 0.1 s is 8.6 s. From 1 s on, the tick after the first run log,
        # samples come every 0.3 s: so 8.8 s. 8.5 s later it is 17.3 s, and of 9.7 s + n * 0.3 s the
        # next is 17.5 s.
        (0.85, [0.1, 8.8, 17.5]),
        # At least once a minute: 50 s after 0.1 s, of 7.4 s + n * 0.3 s the next is 50.3 s. 50 s
        # later, of 57.6 s + n * 0.3 s the next is 100.5 s.
        (7.2, [0.1, 50.3, 100.5]),
    ],
)
async def test_run_logs_take_a_tenth_of_trios_time_at_most(
    cost_s: float, asked_at: list[float], autojump_clock: Clock
) -> None:
    """They are made as often as that allows: at most with each sample, at least once a minute."""
    unit, outbox = Costly(clock_of_test=autojump_clock, cost_s=cost_s), MemoryOutbox()
    intake = Intake(unit, outbox)
    ticker = Ticker(intake, Timing(), lambda: None)
    intake.post(unit.create_run_started_msg("1", 0.0))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(ticker.run)
        with ticker.linked():
            await trio.sleep_until(unit.began + asked_at[-1] + 0.25)
        nursery.cancel_scope.cancel()
    assert unit.asked_at == asked_at


@define(eq=False)
class Long(Costly):
    """A unit with long run logs, each different from the last if `is_changing`."""

    characters: int = 0
    is_changing: bool = True

    def create_runlog_msg(self, run_id: str) -> em.RunLogMsg:
        made = super().create_runlog_msg(run_id)
        told = len(self.asked_at) if self.is_changing else 1
        return evolve(made, id=f"{told:05}".ljust(self.characters, "."))


@pytest.mark.parametrize(
    ("is_changing", "asked_at"),
    [
        # 1,200,000 characters at 500,000 a second are 2.4 s, which is every eighth sample. With the
        # few characters around them it is every ninth, 2.7 s.
        (True, [0.1, 2.8, 5.5]),
        # Only the first one is told.
        (False, [0.1, 2.8, 3.1, 3.4]),
    ],
)
async def test_run_logs_are_told_at_half_a_million_characters_a_second(
    is_changing: bool, asked_at: list[float], autojump_clock: Clock
) -> None:
    """An aggregator has other engines to listen to. An unchanged run log costs it nothing."""
    unit = Long(clock_of_test=autojump_clock, characters=1_200_000, is_changing=is_changing)
    intake = Intake(unit, MemoryOutbox())
    intake.post(unit.create_run_started_msg("1", 0.0))
    async with trio.open_nursery() as nursery:
        ticker = Ticker(intake, Timing(), lambda: None)
        nursery.start_soon(ticker.run)
        with ticker.linked():
            await trio.sleep_until(unit.began + asked_at[-1] + 0.25)
        nursery.cancel_scope.cancel()
    assert unit.asked_at == asked_at


async def test_the_first_run_log_of_a_new_run_is_told_at_once(autojump_clock: Clock) -> None:
    """However expensive the last run's log was. The end of that run holds its final run log."""
    unit, outbox = Costly(clock_of_test=autojump_clock, cost_s=3.0), MemoryOutbox()
    intake = Intake(unit, outbox)
    for run_id in "12":
        intake.post(unit.create_run_started_msg(run_id, 0.0))
        for _ in range(10):
            intake.take_states()
        assert f'"run_id":"{run_id}"' in str(outbox.state(em.RunLogMsg))
        intake.post(unit.create_run_stopped_msg(run_id))
    # With the samples one is made every 3 s, and the end of each run makes one.
    assert unit.asked_at == [0, 3, 6, 9]


async def test_a_run_log_that_costs_nothing_is_made_whenever_states_are_taken(
    autojump_clock: Clock,
) -> None:
    """After the first one was told it does not change, and three times are the same instant."""
    unit = Costly(clock_of_test=autojump_clock)
    intake = Intake(unit, MemoryOutbox())
    intake.post(unit.create_run_started_msg("1", 0.0))
    intake.take_states()
    await trio.sleep(1)
    for _ in range(3):
        intake.take_states()
    assert unit.asked_at == [0, 1, 1, 1]


async def test_commands_that_wait_for_a_run_are_told_at_once(autojump_clock: Clock) -> None:
    """As long as none waits there is nothing to tell, and that costs nothing."""
    unit, outbox = Unit(), MemoryOutbox()
    intake = Intake(unit, outbox)
    intake.take_states()
    assert outbox.state(em.QueuedRunLogMsg) is None
    unit.queued.append(LINE)
    intake.take_states()
    assert LINE.command_name in str(outbox.state(em.QueuedRunLogMsg))


class NoInterval(Unit):
    """A unit whose data-log interval is not a number."""

    def __init__(self, interval_s: float | None) -> None:
        super().__init__()
        self.interval_s = interval_s

    def create_uod_info(self) -> em.UodInfoMsg:
        made = super().create_uod_info()
        return evolve(made, data_log_interval_seconds=self.interval_s)  # type: ignore[arg-type]


@pytest.mark.parametrize("interval", [None, float("inf"), float("nan")])
async def test_the_runner_survives_a_data_log_interval_that_is_no_number(
    interval: float | None, autojump_clock: Clock
) -> None:
    """Samples are then taken at the offline rate, since infinity is null in the message."""
    unit, outbox = NoInterval(interval), MemoryOutbox()
    ticker = Ticker(Intake(unit, outbox), Timing(), lambda: None)
    began = trio.current_time()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(ticker.run)
        await trio.sleep_until(began + 15.5)  # at 0.1, 5.1, 10.1 and 15.1 s
        nursery.cancel_scope.cancel()
    assert unit.count == 4
