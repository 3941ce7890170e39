"""What the aggregator holds when the command was ended, in any way and state, and is back.

A method tells of its steps all the while: event 0, 1, 2 and so on. The cases wait most of the time,
each for processes of its own, so they are played together.
"""

import signal
import time
from collections.abc import AsyncGenerator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from functools import partial
from pathlib import Path

import pytest
import trio
from attrs import frozen

from tests.helpers.command import Command, sampled, samples_on_disk
from tests.helpers.ports import free_port
from tests.helpers.waiting_cases import Outcomes, chosen
from trio_runner.simulation import Aggregator

from .processes import (
    Scene,
    check_delivery,
    check_exit,
    check_numbers,
    check_run,
    note_what_waits,
)

# All cases are played by the first test.
pytestmark = pytest.mark.timeout(300)

SLOW_S = 0.2
"""A stand-in that takes this long a message falls behind: there is more than that to send."""

STARTING = 3
"""Commands that start at once: each takes a processor for half a second, and the others have
deadlines to keep."""

CASE_S = 60
"""For a case from its beginning to its end (s); longer, and something hangs."""

# The states in which the command can be held from outside; each yields a command that is in it.


@asynccontextmanager
async def connected(scene: Scene) -> AsyncGenerator[Command, None]:
    """Begin a run."""
    async with scene.command() as command:
        await command.until("Started -> Connected")
        await scene.start_run()
        yield command


@asynccontextmanager
async def connected_unanswered(scene: Scene) -> AsyncGenerator[Command, None]:
    """Let the aggregator handle what comes and answer nothing."""
    async with connected(scene) as command:
        scene.aggregator.muted = True
        await scene.receives()
        yield command


@asynccontextmanager
async def disconnected(scene: Scene) -> AsyncGenerator[Command, None]:
    """Let the aggregator go in mid-run, and some dials fail."""
    async with connected(scene) as command:
        scene.aggregator.down()
        await scene.aggregator.restart()
        await command.until("Disconnected -> Failed")
        yield command


@asynccontextmanager
async def reconnecting(scene: Scene) -> AsyncGenerator[Command, None]:
    """Let the aggregator come back, and not answer when the engine introduces itself."""
    async with disconnected(scene) as command:
        scene.aggregator.muted, before = True, scene.received
        scene.aggregator.up()
        await command.until("Disconnected -> Reconnecting")
        await scene.receives(before)
        assert "Reconnecting ->" not in command.err
        yield command


@asynccontextmanager
async def catching_up(scene: Scene) -> AsyncGenerator[Command, None]:
    """Let the aggregator come back, and be slow."""
    async with disconnected(scene) as command:
        scene.aggregator.handling_time_s = SLOW_S
        scene.aggregator.up()
        await command.until("Reconnecting -> CatchingUp")
        steps = len(scene.steps())
        await scene.aggregator.wait_until(lambda: len(scene.steps()) > steps)
        assert "CatchingUp ->" not in command.err
        yield command


@asynccontextmanager
async def reconnected(scene: Scene) -> AsyncGenerator[Command, None]:
    """Let the aggregator come back, and have all that waited."""
    async with disconnected(scene) as command:
        scene.aggregator.up()
        await command.until("CatchingUp -> Reconnected")
        yield command


async def cut_run(scene: Scene) -> None:
    """Kill a first process in mid-run, so that the next has something to lose from the start."""
    async with connected(scene) as command:
        scene.signal(command, signal.SIGKILL)


@asynccontextmanager
async def started(scene: Scene) -> AsyncGenerator[Command, None]:
    """After a run that was cut, take the first dial and never say a word."""
    await cut_run(scene)
    (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
    port = listener.socket.getsockname()[1]
    async with listener, scene.command(port) as command, await listener.accept():
        assert "Changing state" not in command.err
        yield command


@asynccontextmanager
async def never_linked(scene: Scene) -> AsyncGenerator[Command, None]:
    """After a run that was cut, let nobody be there from the start."""
    await cut_run(scene)
    async with never_linked_before(scene) as command:
        yield command


@asynccontextmanager
async def never_linked_before(scene: Scene) -> AsyncGenerator[Command, None]:
    """Let nobody be there when the engine is started for the first time of all."""
    scene.aggregator.down()
    before = samples_on_disk(scene.path)
    async with scene.command() as command:
        await command.until("Disconnected -> Failed")
        await sampled(scene.path, before)
        yield command


Held = Callable[[Scene], AbstractAsyncContextManager[Command]]


@frozen
class Case:
    """A state, and the signal that comes in it."""

    held: Held
    number: signal.Signals

    @property
    def name(self) -> str:
        return f"{self.held.__name__}-{self.number.name}"


# Those that take longest first, so that the others pass beside them.
STATES: list[Held] = [
    reconnecting,
    connected_unanswered,
    catching_up,
    reconnected,
    disconnected,
    never_linked,
    started,
    connected,
]
SIGNALS = [signal.SIGINT, signal.SIGTERM, signal.SIGKILL]
CASES = [Case(held, number) for held in STATES for number in SIGNALS]
FIRST_OF_ALL = Case(never_linked_before, signal.SIGINT)


@pytest.fixture(scope="module")
def outcomes(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Outcomes:
    """Play all cases of which there is a test in this session."""
    outcomes, starting = Outcomes(), trio.Semaphore(STARTING)
    cases = [
        (case.name, partial(play, case, tmp_path_factory.mktemp("case"), starting))
        for case in chosen(request, "case", [*CASES, FIRST_OF_ALL])
    ]
    trio.run(partial(outcomes.play, cases, at_once=len(cases), case_s=CASE_S))
    return outcomes


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_nothing_is_lost_by_a_signal_in_mid_run(case: Case, outcomes: Outcomes) -> None:
    """The next process delivers the rest in order and ends the run before anything new."""
    outcomes.check(case.name)


@pytest.mark.parametrize("case", [FIRST_OF_ALL], ids=lambda case: case.name)
def test_nothing_is_lost_before_the_first_link(case: Case, outcomes: Outcomes) -> None:
    """Without an aggregator from the start: SIGINT keeps what was sampled; it comes later."""
    outcomes.check(case.name)


async def play(case: Case, folder: Path, starting: trio.Semaphore) -> None:
    """Hold the command in the state, end it, start it again, and look at what arrived."""
    async with trio.open_nursery() as nursery:
        aggregator = Aggregator()
        port: int = await nursery.start(partial(aggregator.run, port=free_port()))
        scene = Scene(aggregator, port, folder / "skid.outbox", starting)
        async with case.held(scene) as command:
            await end(scene, command, case.number)
        check_exit(command, case.number, time.time() - scene.ended_at)
        note_what_waits(scene)
        check_waiting(scene, case)
        await come_back(scene)
        if case is FIRST_OF_ALL:
            check_samples(scene)
        else:
            check_delivery(scene)
            check_run(scene)
        nursery.cancel_scope.cancel()


async def end(scene: Scene, command: Command, number: signal.Signals) -> None:
    """Send the signal, and let what is slow be flushed."""
    scene.signal(command, number)
    if number != signal.SIGKILL and scene.aggregator.handling_time_s:
        await command.until("CatchingUp -> Stopped")
        scene.aggregator.handling_time_s = 0


async def come_back(scene: Scene) -> None:
    """Heal the aggregator, start the command again and end it when it has told of new values."""
    scene.aggregator.muted, scene.aggregator.handling_time_s = False, 0
    scene.aggregator.up()
    async with scene.command() as command:
        await command.until("Started -> Connected")
        await scene.aggregator.wait_until(lambda: len(scene.new_samples()) > 2)
        ended_at = time.time()
        command.send(signal.SIGTERM)
    check_exit(command, signal.SIGTERM, time.time() - ended_at)


def check_waiting(scene: Scene, case: Case) -> None:
    """Check that who never had a link and could end in order has kept what it sampled."""
    kinds = [kind for _, kind in scene.waiting]
    if case is FIRST_OF_ALL:
        assert kinds == ["TagsUpdatedMsg"] * len(kinds) != []
    elif case.held in (started, never_linked):
        assert kinds.count("RunStoppedMsg") == 1
        if case.held is never_linked and case.number != signal.SIGKILL:
            assert kinds[-1] == "TagsUpdatedMsg"


def check_samples(scene: Scene) -> None:
    """Without a run: samples in order, none refused."""
    check_numbers(scene)
    assert scene.samples() == sorted(scene.samples(), key=lambda sample: sample[0])
    assert scene.aggregator.engine().refused == []
