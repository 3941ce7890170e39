"""What the aggregator holds when the command was ended, in any way, in mid-run, and is back.

A method tells of its steps all the while: event 0, 1, 2 and so on.
"""

import io
import json
import signal
import time
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from itertools import pairwise
from pathlib import Path

import pytest
import trio
from attrs import define, field

from trio_runner._outbox_sqlite import export, summarize
from trio_runner.protocol import SuccessMessage
from trio_runner.protocol import aggregator_messages as am
from trio_runner.protocol import engine_messages as em
from trio_runner.protocol import models as mdl
from trio_runner.simulation import Aggregator, Received

from .command import Command, running

EXIT_S = 10.0
SLOW_S = 0.2
"""A stand-in that takes this long a message falls behind: there is more than that to send."""

# The skid's data log stores every 1 s: offline, samples are 1.1 s apart, with a link 0.3 s. What
# SIGKILL takes are the 0.5 s since the last commit. The rest is for two busy processors.
GAP_S_MAX = 3.0

STEPS = [what for n in range(200) for what in (f"Notify: {n}", "Wait: 0.2 s")]
METHOD = mdl.Method(
    version=0, lines=[mdl.MethodLine(id=str(i), content=c) for i, c in enumerate(STEPS)]
)


EVENTS = em.RunStartedMsg | em.RunStoppedMsg | em.WebPushNotificationMsg | em.ErrorLogMsg


@define(eq=False)
class Scene:
    """The aggregator, the outbox, and when and in which state the first process ended."""

    aggregator: Aggregator
    port: int
    path: Path
    run_id: str = field(default="", init=False)
    ended_at: float = field(default=0.0, init=False)
    """Seconds since the epoch."""
    waiting: list[tuple[int, str]] = field(factory=list, init=False)
    """Number and type of what waited then."""
    connections: int = field(default=0, init=False)
    """How many there had been by then."""

    def command(self) -> AbstractAsyncContextManager[Command]:
        """Run the command with the outbox."""
        return running("simulated", "-ap", str(self.port), "--outbox", str(self.path))

    async def start_run(self) -> None:
        """Start the method and wait until its first events have come."""
        record = self.aggregator.engine()
        for message in (am.MethodMsg(method=METHOD), am.ExecuteControlCommandMsg(name="Start")):
            answer = await self.aggregator.call(record.engine_id, message)
            assert isinstance(answer, SuccessMessage)
        await self.aggregator.wait_until(lambda: len(self.steps()) > 2)
        (started,) = record.messages(em.RunStartedMsg)
        self.run_id = started.run_id

    # What arrived

    def taken(self) -> list[Received]:
        """Return the first arrival of each event and sample."""
        first: dict[int, Received] = {}
        for received in self.aggregator.engine().received:
            if isinstance(received.message, EVENTS | em.TagsUpdatedMsg):
                first.setdefault(received.sequence_number, received)
        return list(first.values())

    def steps(self) -> list[int]:
        """Return the steps that the method told of, in the order of their first arrival."""
        notes = [
            r.message for r in self.taken() if isinstance(r.message, em.WebPushNotificationMsg)
        ]
        bodies = [note.notification.body or "" for note in notes]
        return [int(body) for body in bodies if body.isdigit()]

    def samples(self) -> list[tuple[float, str | None, int]]:
        """Return time (s since the epoch), run and connection of the samples."""
        return [
            (max(t.tick_time for t in r.message.tags), r.message.run_id, r.connection)
            for r in self.taken()
            if isinstance(r.message, em.TagsUpdatedMsg)
        ]

    def new_samples(self) -> list[tuple[float, str | None, int]]:
        """Return the samples of the second process."""
        return [sample for sample in self.samples() if sample[0] > self.ended_at]


Hold = Callable[[Scene, Command], Awaitable[None]]


@pytest.fixture
async def scene(tmp_path: Path, nursery: trio.Nursery) -> Scene:
    aggregator = Aggregator()
    port: int = await nursery.start(aggregator.run)
    return Scene(aggregator, port, tmp_path / "skid.outbox")


# The states in which the command can be held from outside


async def connected(scene: Scene, command: Command) -> None:
    """Leave all as it is."""


async def muted(scene: Scene, command: Command) -> None:
    """Let the aggregator handle what comes and answer nothing."""
    scene.aggregator.muted = True
    received = len(scene.aggregator.engine().received)
    await scene.aggregator.wait_until(lambda: len(scene.aggregator.engine().received) > received)


async def disconnected(scene: Scene, command: Command) -> None:
    """Let the aggregator go, and some dials fail."""
    scene.aggregator.down()
    await scene.aggregator.restart()
    await command.until("Disconnected -> Failed", times=2)


async def catching_up(scene: Scene, command: Command) -> None:
    """Let the aggregator come back, and be slow."""
    await disconnected(scene, command)
    scene.aggregator.handling_time_s = SLOW_S
    scene.aggregator.up()
    await command.until("Reconnecting -> CatchingUp")
    steps = len(scene.steps())
    await scene.aggregator.wait_until(lambda: len(scene.steps()) > steps)
    assert "CatchingUp ->" not in command.err


@pytest.mark.parametrize(
    ("hold", "number"),
    [
        (connected, signal.SIGINT),
        (connected, signal.SIGKILL),
        (disconnected, signal.SIGTERM),
        (disconnected, signal.SIGKILL),
        (catching_up, signal.SIGINT),
        (catching_up, signal.SIGKILL),
        (muted, signal.SIGTERM),
        (muted, signal.SIGKILL),
    ],
    ids=lambda value: value.name if isinstance(value, signal.Signals) else value.__name__,
)
async def test_nothing_is_lost_by_a_signal_in_mid_run(
    hold: Hold, number: signal.Signals, scene: Scene
) -> None:
    """The next process delivers the rest in order and ends the run before anything new."""
    async with scene.command() as command:
        await command.until("Started -> Connected")
        await scene.start_run()
        await hold(scene, command)
        await end(scene, command, number)
    took_s = time.time() - scene.ended_at
    check_exit(command, number, took_s)
    note_what_waits(scene)

    scene.aggregator.muted, scene.aggregator.handling_time_s = False, 0
    scene.aggregator.up()
    async with scene.command() as command:
        await command.until("Started -> Connected")
        await scene.aggregator.wait_until(lambda: len(scene.new_samples()) > 2)
        command.send(signal.SIGTERM)
    check_exit(command, signal.SIGTERM, 0)
    check_delivery(scene)
    check_run(scene)


async def test_nothing_is_lost_before_the_first_link(scene: Scene) -> None:
    """Without an aggregator from the start: SIGINT keeps what was sampled; it comes later."""
    scene.aggregator.down()
    async with scene.command() as command:
        await command.until("Disconnected -> Failed", times=2)
        await end(scene, command, signal.SIGINT)
    check_exit(command, signal.SIGINT, time.time() - scene.ended_at)
    note_what_waits(scene)
    assert [kind for _, kind in scene.waiting] == ["TagsUpdatedMsg"] * len(scene.waiting) != []
    scene.aggregator.up()
    async with scene.command() as command:
        await command.until("Started -> Connected")
        await scene.aggregator.wait_until(lambda: len(scene.new_samples()) > 2)
        command.send(signal.SIGINT)
    check_exit(command, signal.SIGINT, 0)
    check_numbers(scene)
    assert scene.samples() == sorted(scene.samples(), key=lambda sample: sample[0])
    assert scene.aggregator.engine().refused == []


async def end(scene: Scene, command: Command, number: signal.Signals) -> None:
    scene.ended_at = time.time()
    command.send(number)
    if number != signal.SIGKILL and scene.aggregator.handling_time_s:
        await command.until("CatchingUp -> Stopped")
        scene.aggregator.handling_time_s = 0  # it can be flushed now


def check_exit(command: Command, number: signal.Signals, took_s: float) -> None:
    assert command.code == (-number if number == signal.SIGKILL else 0), command.err
    assert took_s < EXIT_S
    assert "Traceback" not in command.err


def note_what_waits(scene: Scene) -> None:
    rows = io.StringIO()
    export(scene.path, rows)
    messages = [json.loads(row) for row in rows.getvalue().splitlines()]
    scene.waiting = [(message["sequence_number"], message["_type"]) for message in messages]
    records = scene.aggregator.engines.values()
    scene.connections = max((r.connection for e in records for r in e.received), default=0)


def check_numbers(scene: Scene) -> None:
    """Check that what waited came first, as it was, and that new numbers are higher."""
    received = scene.aggregator.engine().received
    later = [r for r in received if r.connection > scene.connections]
    earlier = [r for r in received if r.connection <= scene.connections]
    line = [r for r in later if isinstance(r.message, EVENTS | em.TagsUpdatedMsg)]
    came = [(r.sequence_number, type(r.message).__name__) for r in line]
    if came and came[0][1] == "RunStartedMsg" and came[0] not in scene.waiting:
        del came[0]  # of the open run, once more
    assert came[: len(scene.waiting)] == scene.waiting
    known = {number for number, _ in scene.waiting} | {r.sequence_number for r in earlier}
    new = [number for number, _ in came[len(scene.waiting) :]]
    assert all(a < b for a, b in pairwise(new))
    assert not known or min(new) > max(known)
    assert summarize(scene.path).waiting == 0


def check_delivery(scene: Scene) -> None:
    """Every event in order, at least once; samples in order, with no hole up to the end."""
    check_numbers(scene)
    assert scene.steps() == list(range(len(scene.steps())))
    times = [at for at, _, _ in scene.samples()]
    assert all(a < b for a, b in pairwise(times))
    old = [at for at in times if at <= scene.ended_at]
    assert max(b - a for a, b in pairwise([*old, scene.ended_at])) < GAP_S_MAX
    refused = [r for r in scene.aggregator.engine().refused if is_sample(r)]
    assert refused == []


def is_sample(received: Received) -> bool:
    return isinstance(received.message, em.TagsUpdatedMsg)


def check_run(scene: Scene) -> None:
    """Check that the run was ended before the first new sample, and stored with its log."""
    order = [r.message for r in scene.taken()]
    stopped = [i for i, m in enumerate(order) if isinstance(m, em.RunStoppedMsg)]
    (end_of_run,) = stopped
    message = order[end_of_run]
    assert isinstance(message, em.RunStoppedMsg)
    assert message.run_id == scene.run_id
    samples = [m for m in order[:end_of_run] if isinstance(m, em.TagsUpdatedMsg) and m.run_id]
    assert {sample.run_id for sample in samples} == {scene.run_id}
    after = [m for m in order[end_of_run:] if isinstance(m, em.TagsUpdatedMsg)]
    assert {sample.run_id for sample in after} == {None}
    assert len(after) >= len(scene.new_samples()) > 2
    assert scene.aggregator.engine().unit.run is None
    # more than one only if the answer to its end was lost
    assert {run.run_id for run in scene.aggregator.recent_runs} == {scene.run_id}
    run_log = scene.aggregator.recent_runs[-1].run_log
    assert run_log.lines[0].command_name == STEPS[0]
