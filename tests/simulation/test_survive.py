"""Other people's engines in the storm: what they survive, and which of their mistakes are found.

The engine is a tank that fills, and uses only the public protocol. Each wrong engine differs from
it in one thing.
"""

import re
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from uuid import uuid4

import pytest
import trio
from attrs import define, evolve, field

from trio_runner import CommandError, PlainEngine
from trio_runner._outbox import Entry
from trio_runner.protocol import engine_messages as em
from trio_runner.protocol import models as mdl
from trio_runner.simulation import Report, survive


@define(eq=False, slots=False)
class Tank(PlainEngine):
    """A unit with runs that logs an error and notifies people now and then."""

    level_l: float = 0.0
    run_id: str | None = None
    errors: list[mdl.ErrorLogEntry] = field(factory=list, init=False)

    def read_tags(self) -> list[mdl.TagValue]:
        now = self.clock()
        return [mdl.TagValue(name="Level", tick_time=now, value=self.level_l, value_unit="L")]

    def create_control_state_msg(self) -> em.ControlStateMsg:
        state = mdl.ControlState(is_running=bool(self.run_id), is_holding=False, is_paused=False)
        return em.ControlStateMsg(control_state=state)

    def create_error_log_msg(self) -> em.ErrorLogMsg | None:
        entries, self.errors = self.errors, []
        return em.ErrorLogMsg(log=mdl.ErrorLog(entries=entries)) if entries else None

    async def execute_control_command(self, name: str) -> None:
        if name == "Start" and self.run_id is None:
            self.start()
        elif name == "Stop" and self.run_id is not None:
            self.stop()
        else:
            raise CommandError(f"not now: {name}")

    def start(self) -> None:
        self.run_id = str(uuid4())
        for listener in self.listeners:
            listener.on_start(self.run_id)

    def stop(self) -> None:
        for listener in self.listeners:
            listener.on_stop()
        self.run_id = None

    async def run(self) -> None:
        """Fill the tank litre by litre, and repeat the same error and the same notification."""
        while True:
            await trio.sleep(1)
            self.level_l += 1
            if self.level_l % 20 == 0:
                full = mdl.ErrorLogEntry(message="Full", created_time=self.clock(), severity=40)
                self.errors.append(full)
                for listener in self.listeners:
                    listener.on_notify_command("Empty me")


def lives(
    engine: type[Tank], seed: int = 1, duration_s: float = 200, kinds: Sequence[str] | None = ()
) -> Report:
    """Let an engine live without faults, or with these kinds."""

    def make(clock: Callable[[], float]) -> Tank:
        return engine("Tank", clock=clock)

    return survive(make, seed, duration_s, run=lambda tank: tank.run(), kinds=kinds)


@pytest.mark.parametrize("seed", range(2))
def test_a_correct_engine_survives_all_faults(seed: int) -> None:
    """Equal notifications, errors and values are told apart, and each is followed."""
    report = lives(Tank, seed, 300, kinds=None)
    assert report.violation is None
    assert report.events > 10
    assert report.samples > 100
    assert sum(report.faults.values()) > 10


def test_every_sample_of_a_calm_life_is_accounted_for() -> None:
    """200 s bring 10 errors and 10 notifications, one every 20 s, one more at the end, and runs."""
    report = lives(Tank)
    runs, rest = divmod(report.events - 21, 2)
    assert rest == 0
    assert runs > 0


# What is found out


class ForgetsTheEnd(Tank):
    """An engine that shows that no run is on, but has not told the end of its run."""

    def stop(self) -> None:
        self.run_id = None


class ForgetsTheBeginning(Tank):
    """An engine that shows a run whose beginning it has not told."""

    def start(self) -> None:
        self.run_id = str(uuid4())

    def stop(self) -> None:
        self.run_id = None


class BeginsTwice(Tank):
    """An engine that tells the beginning of a run while another is on."""

    def start(self) -> None:
        super().start()
        super().start()


class EndsTwice(Tank):
    """An engine that tells the end of a run twice."""

    def stop(self) -> None:
        super().stop()
        super().stop()


class SameRun(Tank):
    """An engine whose runs all have the same id."""

    def start(self) -> None:
        self.run_id = "the run"
        for listener in self.listeners:
            listener.on_start(self.run_id)


class RaisesInABuilder(Tank):
    """An engine that divides by zero after a while."""

    def read_tags(self) -> list[mdl.TagValue]:
        tags = super().read_tags()
        return [evolve(tags[0], value=1 / (30 - self.level_l))]


class RaisesByItself(Tank):
    """An engine whose own task fails."""

    async def run(self) -> None:
        await trio.sleep(10)
        raise OSError("the valve is gone")


class HoldsTheThreadInABuilder(Tank):
    """An engine that reads slow hardware in a message builder."""

    def create_method_state_msg(self) -> em.MethodStateMsg:
        time.sleep(1.1)
        return super().create_method_state_msg()


class HoldsTheThreadInAHandler(Tank):
    """An engine that waits for hardware in Trio's thread when a button is pressed."""

    async def execute_control_command(self, name: str) -> None:
        time.sleep(1.1)  # noqa: ASYNC251 - that is the bug


class HoldsTheThreadByItself(Tank):
    """An engine whose own task waits for hardware in Trio's thread."""

    async def run(self) -> None:
        time.sleep(1.1)  # noqa: ASYNC251 - that is the bug


class HasAClockOfItsOwn(Tank):
    """An engine that stamps tags with the computer's clock, not with the one that it was given."""

    def read_tags(self) -> list[mdl.TagValue]:
        return [evolve(tag, tick_time=time.time()) for tag in super().read_tags()]


class StandsStill(Tank):
    """An engine that stamps all tags with the same time."""

    def read_tags(self) -> list[mdl.TagValue]:
        return [evolve(tag, tick_time=1.7e9) for tag in super().read_tags()]


class HasNoLine(Tank):
    """An engine whose method has no lines."""

    def create_method_msg(self) -> em.MethodMsg:
        return em.MethodMsg(method=mdl.Method(version=0, lines=[]))


class MixesUpRuns(Tank):
    """An engine whose run log belongs to another run."""

    def create_runlog_msg(self, run_id: str) -> em.RunLogMsg:
        return evolve(super().create_runlog_msg(run_id), run_id="another")


class LogsNothing(Tank):
    """An engine that returns an error log without errors."""

    def create_error_log_msg(self) -> em.ErrorLogMsg | None:
        return em.ErrorLogMsg(log=mdl.ErrorLog(entries=[]))


@pytest.mark.parametrize(
    ("engine", "promise"),
    [
        (ForgetsTheEnd, r"no run is on, but on_stop\(\) was not called for run '[-\w]+'"),
        (ForgetsTheBeginning, r"that a run is on, but on_start\(\) was not called"),
        (BeginsTwice, r"on_start\('[-\w]+'\) was called while run '[-\w]+' was on"),
        (EndsTwice, r"on_stop\(\) was called while no run was on"),
        (SameRun, r"on_start\('the run'\) was called with the id of another run"),
        (RaisesInABuilder, r"create_tag_updates_msg raised ZeroDivisionError\("),
        (RaisesByItself, r"the engine's run raised OSError\('the valve is gone'\)"),
        (HoldsTheThreadInABuilder, r"create_method_state_msg held Trio's thread for 1\.\d s"),
        (HoldsTheThreadInAHandler, r"execute_control_command held Trio's thread for 1\.\d s"),
        (HoldsTheThreadByItself, r"the engine's run held Trio's thread for 1\.\d s"),
        (HasAClockOfItsOwn, r"tag 'Level' is [\d.e+]+ s ahead of the engine's clock"),
        (StandsStill, r"tag 'Level' went from 0\.0 to [12]\.0, but kept the same time"),
        (HasNoLine, r"the method has no lines: give it an empty one"),
        (MixesUpRuns, r"a RunLogMsg of run '[-\w]+' has the run id 'another'"),
        (LogsNothing, r"create_error_log_msg returned a log without entries instead of None"),
    ],
)
def test_the_mistake_of_a_wrong_engine_is_found(engine: type[Tank], promise: str) -> None:
    """The report names the promise that it breaks, even without any fault."""
    with pytest.raises(AssertionError, match=promise):
        lives(engine)


def test_the_assertion_says_when_the_promise_broke_and_how_to_repeat_it(tmp_path: Path) -> None:
    """It has the time, the faults, the last lines and the call; its cause is the engine's error."""
    page = tmp_path / "life.html"
    with pytest.raises(AssertionError) as caught:
        survive(
            lambda clock: RaisesByItself("Tank", clock=clock),
            7,
            60,
            run=lambda tank: tank.run(),
            kinds=("wander",),
            html=page,
        )
    first, faults, heading, *lines, last = str(caught.value).splitlines()
    assert first.startswith("seed 7 broke a promise at 10.000 s: the engine's run raised OSError(")
    assert re.fullmatch(r"Faults that were on: (none|wander)", faults)
    assert heading == "The last lines of its trace:"
    assert any("   10.000000  VIOLATION the engine's run raised" in line for line in lines)
    assert last == "Repeat it with: survive(..., seed=7, duration_s=60, kinds=('wander',))"
    assert isinstance(caught.value.__cause__, OSError)
    assert '"violation":[10.0,"the engine\'s run raised' in page.read_text()


def test_a_bug_of_the_runner_is_found_with_any_engine(monkeypatch: pytest.MonkeyPatch) -> None:
    """The runner is judged too: here its sender does not wait for the answer to an event."""
    monkeypatch.setattr(Entry, "goes_alone", property(lambda _: False))
    with pytest.raises(AssertionError, match=r"was unanswered|overtook|is not delivered"):
        lives(Tank)


# What is survived


class RaisesInAHandler(Tank):
    """An engine whose buttons all fail."""

    async def execute_control_command(self, name: str) -> None:
        raise ValueError("a bug")


class IsSlow(Tank):
    """An engine that takes 20 s over each button."""

    async def execute_control_command(self, name: str) -> None:
        await trio.sleep(20)
        await super().execute_control_command(name)


class DoesNothing(Tank):
    """An engine whose only tag never changes."""

    async def run(self) -> None:
        """Do nothing."""


@pytest.mark.parametrize("engine", [RaisesInAHandler, IsSlow, DoesNothing])
def test_the_runner_survives_all_that_an_engine_may_do(engine: type[Tank]) -> None:
    """A person who presses a button hears of a handler's bug, or that it was cancelled as slow."""
    assert lives(engine, kinds=("reset", "wander", "kill_aggregator")).violation is None


def test_a_fault_that_only_the_simulated_engine_can_meet_is_refused(tmp_path: Path) -> None:
    """The message lists the faults that this engine can meet."""
    with pytest.raises(ValueError, match="there is no fault 'burst'; there are black_hole, "):
        lives(Tank, kinds=("burst",))
