"""What the aggregator holds after the command was ended, in any way and state, and is back.

The method tells its steps all the while: event 0, 1, 2 and so on. The cases mostly wait, each for
its own processes, so they are played together.
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

# The first test plays all cases.
pytestmark = pytest.mark.timeout(300)

SLOW_S = 0.2
"""With this time for each message (s) the stand-in falls behind, since more than that is sent."""

STARTING = 3
"""How many commands may start at once. Each needs a processor for half a second, and the others
have deadlines to meet."""

CASE_S = 150
"""The time of one case from its beginning to its end (s). A longer one hangs."""

# The states in which the command can be held from outside; each yields a command in that state.


@asynccontextmanager
async def connected(scene: Scene) -> AsyncGenerator[Command, None]:
    """Begin a run."""
    async with scene.command() as command:
        await command.until("Started -> Connected")
        await scene.start_run()
        yield command


@asynccontextmanager
async def connected_unanswered(scene: Scene) -> AsyncGenerator[Command, None]:
    """Let the aggregator handle everything and answer nothing."""
    async with connected(scene) as command:
        scene.aggregator.muted = True
        await scene.receives()
        yield command


@asynccontextmanager
async def disconnected(scene: Scene) -> AsyncGenerator[Command, None]:
    """Let the aggregator go in mid-run, and let some dials fail."""
    async with connected(scene) as command:
        scene.aggregator.down()
        await scene.aggregator.restart()
        await command.until("Disconnected -> Failed")
        yield command


@asynccontextmanager
async def reconnecting(scene: Scene) -> AsyncGenerator[Command, None]:
    """Let the aggregator come back and not answer the introduction."""
    async with disconnected(scene) as command:
        scene.aggregator.muted, before = True, scene.received
        scene.aggregator.up()
        await command.until("Disconnected -> Reconnecting")
        await scene.receives(before)
        assert "Reconnecting ->" not in command.err
        yield command


@asynccontextmanager
async def catching_up(scene: Scene) -> AsyncGenerator[Command, None]:
    """Let the aggregator come back and be slow."""
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
    """Let the aggregator come back and take everything that waited."""
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
    """After a run that was cut, accept the first dial and never answer."""
    await cut_run(scene)
    (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
    port = listener.socket.getsockname()[1]
    async with listener, scene.command(port) as command, await listener.accept():
        assert "Changing state" not in command.err
        yield command


@asynccontextmanager
async def never_linked(scene: Scene) -> AsyncGenerator[Command, None]:
    """After a run that was cut, let nobody listen from the start."""
    await cut_run(scene)
    async with never_linked_before(scene) as command:
        yield command


@asynccontextmanager
async def never_linked_before(scene: Scene) -> AsyncGenerator[Command, None]:
    """Let nobody listen when the engine is started for the very first time."""
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


# The longest cases come first, so that the others run beside them.
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
    """Play all cases that have a test in this session."""
    outcomes, starting = Outcomes(), trio.Semaphore(STARTING)
    cases = [
        (case.name, partial(play, case, tmp_path_factory.mktemp("case"), starting))
        for case in chosen(request, "case", [*CASES, FIRST_OF_ALL])
    ]
    trio.run(partial(outcomes.play, cases, at_once=len(cases), case_s=CASE_S))
    return outcomes


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_nothing_is_lost_by_a_signal_in_mid_run(case: Case, outcomes: Outcomes) -> None:
    """The next process delivers the rest in order, and ends the run before anything new."""
    outcomes.check(case.name)


@pytest.mark.parametrize("case", [FIRST_OF_ALL], ids=lambda case: case.name)
def test_nothing_is_lost_before_the_first_link(case: Case, outcomes: Outcomes) -> None:
    """Without an aggregator from the start, SIGINT keeps what was sampled, and it arrives later."""
    outcomes.check(case.name)


async def play(case: Case, folder: Path, starting: trio.Semaphore) -> None:
    """Hold the command in the state, end it, start it again, and check what has arrived."""
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
    """Send the signal, and let a slow aggregator have the flush."""
    scene.signal(command, number)
    if number != signal.SIGKILL and scene.aggregator.handling_time_s:
        await command.until("CatchingUp -> Stopped")
        scene.aggregator.handling_time_s = 0


async def come_back(scene: Scene) -> None:
    """Heal the aggregator, start the command again, and end it when new values have arrived."""
    scene.aggregator.muted, scene.aggregator.handling_time_s = False, 0
    scene.aggregator.up()
    async with scene.command() as command:
        await command.until("Started -> Connected")
        await scene.aggregator.wait_until(lambda: len(scene.new_samples()) > 2)
        ended_at = time.time()
        command.send(signal.SIGTERM)
    check_exit(command, signal.SIGTERM, time.time() - ended_at)


def check_waiting(scene: Scene, case: Case) -> None:
    """Check that an engine that never had a link and ended in order has kept its samples."""
    kinds = [kind for _, kind in scene.waiting]
    if case is FIRST_OF_ALL:
        assert kinds == ["TagsUpdatedMsg"] * len(kinds) != []
    elif case.held in (started, never_linked):
        assert kinds.count("RunStoppedMsg") == 1
        if case.held is never_linked and case.number != signal.SIGKILL:
            assert kinds[-1] == "TagsUpdatedMsg"


def check_samples(scene: Scene) -> None:
    """Check that samples outside a run are in order, and that none is refused."""
    check_numbers(scene)
    assert scene.samples() == sorted(scene.samples(), key=lambda sample: sample[0])
    assert scene.aggregator.engine().refused == []
