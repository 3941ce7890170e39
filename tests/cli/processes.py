"""The command, signalled in mid-run, with an aggregator, and what must be true in the end."""

import io
import json
import math
import signal
import time
from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack, asynccontextmanager
from itertools import pairwise
from pathlib import Path

import trio
from attrs import define, field

from tests.helpers.command import Command, running
from trio_runner._outbox_sqlite import export, summarize
from trio_runner.protocol import SuccessMessage
from trio_runner.protocol import aggregator_messages as am
from trio_runner.protocol import engine_messages as em
from trio_runner.protocol import models as mdl
from trio_runner.simulation import Aggregator, Received

EXIT_S = 10.0

# The skid's data log stores every 1 s, so samples are 1.1 s apart offline, and 0.3 s with a link.
# SIGKILL takes the 0.5 s since the last commit. The rest is for two busy processors.
GAP_S_MAX = 3.0

STEPS = [what for n in range(200) for what in (f"Notify: {n}", "Wait: 0.2 s")]
METHOD = mdl.Method(
    version=0, lines=[mdl.MethodLine(id=str(i), content=c) for i, c in enumerate(STEPS)]
)

RUN_EVENTS = em.RunStartedMsg, em.RunStoppedMsg
NOTICES = em.WebPushNotificationMsg, em.ErrorLogMsg
EVENTS = *RUN_EVENTS, *NOTICES


@define(eq=False)
class Scene:
    """The aggregator, the outbox, and the times at which the processes ended."""

    aggregator: Aggregator
    port: int
    path: Path
    starting: trio.Semaphore
    """Held while a command is being started."""
    run_id: str = field(default="", init=False)
    run_ended_at: float = field(default=0.0, init=False)
    """When the process that had the run was signalled (s since the epoch)."""
    ended_at: float = field(default=0.0, init=False)
    """When the last process before the restart was signalled (s since the epoch)."""
    waiting: list[tuple[int, str]] = field(factory=list, init=False)
    """The numbers and types of the messages that waited then."""
    last_number: int = field(default=0, init=False)
    """The highest number known by then, among what waited and what had come."""
    connections: int = field(default=0, init=False)
    """How many connections there had been by then."""

    @asynccontextmanager
    async def command(self, port: int | None = None) -> AsyncGenerator[Command, None]:
        """Run the command with the outbox, at the aggregator's port or another one."""
        async with AsyncExitStack() as stack:
            async with self.starting:
                at = ("-ap", str(port or self.port), "--outbox", str(self.path))
                command = await stack.enter_async_context(running("simulated", *at))
                await command.until("Ctrl-C ends")
            yield command

    def signal(self, command: Command, number: signal.Signals) -> None:
        """Send a signal and note the time."""
        self.ended_at = time.time()
        self.run_ended_at = self.run_ended_at or self.ended_at
        command.send(number)

    async def start_run(self) -> None:
        """Start the method and wait until its first events have arrived."""
        record = self.aggregator.engine()
        for message in (am.MethodMsg(method=METHOD), am.ExecuteControlCommandMsg(name="Start")):
            answer = await self.aggregator.call(record.engine_id, message)
            assert isinstance(answer, SuccessMessage)
        await self.aggregator.wait_until(lambda: len(self.steps()) > 2)
        (started,) = record.messages(em.RunStartedMsg)
        self.run_id = started.run_id

    @property
    def received(self) -> int:
        """How many messages have arrived."""
        return len(self.aggregator.engine().received)

    async def receives(self, before: int | None = None) -> None:
        """Wait until more messages have arrived than `before`, or than now."""
        known = self.received if before is None else before
        await self.aggregator.wait_until(lambda: self.received > known)

    # What arrived

    def taken(self) -> list[Received]:
        """Return the first arrival of each event and sample."""
        first: dict[int, Received] = {}
        for received in self.aggregator.engine().received:
            if isinstance(received.message, (*EVENTS, em.TagsUpdatedMsg)):
                first.setdefault(received.sequence_number, received)
        return list(first.values())

    def steps(self) -> list[int]:
        """Return the steps that the method has told, in the order of their first arrival."""
        notes = [
            r.message for r in self.taken() if isinstance(r.message, em.WebPushNotificationMsg)
        ]
        bodies = [note.notification.body or "" for note in notes]
        return [int(body) for body in bodies if body.isdigit()]

    def samples(self) -> list[tuple[float, str | None, int]]:
        """Return the time (s since the epoch), the run and the connection of each sample."""
        return [
            (max(t.tick_time for t in r.message.tags), r.message.run_id, r.connection)
            for r in self.taken()
            if isinstance(r.message, em.TagsUpdatedMsg)
        ]

    def new_samples(self) -> list[Received]:
        """Return the samples of the process that was started last."""
        # By their numbers, since a process that was signalled may still take a sample or two.
        return [r for r in self.taken() if is_sample(r) and r.sequence_number > self.last_number]


def check_exit(command: Command, number: signal.Signals, took_s: float) -> None:
    assert command.code == (-number if number == signal.SIGKILL else 0), command.err
    assert took_s < EXIT_S, command.err
    assert "Traceback" not in command.err


def note_what_waits(scene: Scene) -> None:
    rows = io.StringIO()
    export(scene.path, rows)
    messages = [json.loads(row) for row in rows.getvalue().splitlines()]
    scene.waiting = [(message["sequence_number"], message["_type"]) for message in messages]
    received = [r for e in scene.aggregator.engines.values() for r in e.received]
    scene.connections = max((r.connection for r in received), default=0)
    numbers = [n for n, _ in scene.waiting] + [r.sequence_number for r in received]
    scene.last_number = max(numbers, default=0)


def check_numbers(scene: Scene) -> None:
    """Check that what waited came first and unchanged, and that new numbers are higher."""
    later = [r for r in scene.aggregator.engine().received if r.connection > scene.connections]
    # Notices hold up no sample. They are in order among themselves, and runs are in order with
    # both.
    for kinds in ((*RUN_EVENTS, em.TagsUpdatedMsg), EVENTS):
        line = [r for r in later if isinstance(r.message, kinds)]
        came = [(r.sequence_number, type(r.message).__name__) for r in line]
        if came and came[0][1] == "RunStartedMsg" and came[0] not in scene.waiting:
            del came[0]  # the repeated one of the open run
        names = {kind.__name__ for kind in kinds}
        waiting = [(number, name) for number, name in scene.waiting if name in names]
        assert came[: len(waiting)] == waiting
        new = [number for number, _ in came[len(waiting) :]]
        assert all(a < b for a, b in pairwise(new))
        assert min(new, default=math.inf) > scene.last_number
    assert summarize(scene.path).waiting == 0


def check_delivery(scene: Scene) -> None:
    """Check that every event arrived in order, and that samples have no hole up to the end."""
    check_numbers(scene)
    assert scene.steps() == list(range(len(scene.steps())))
    times = [at for at, _, _ in scene.samples()]
    assert all(a < b for a, b in pairwise(times))
    old = [at for at in times if at <= scene.run_ended_at]
    assert max(b - a for a, b in pairwise([*old, scene.run_ended_at])) < GAP_S_MAX
    refused = [r for r in scene.aggregator.engine().refused if is_sample(r)]
    assert refused == []


def is_sample(received: Received) -> bool:
    return isinstance(received.message, em.TagsUpdatedMsg)


def check_run(scene: Scene) -> None:
    """Check that the run was ended before the first new sample, and was stored with its log."""
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
    # There is more than one only if the answer to its end was lost.
    assert {run.run_id for run in scene.aggregator.recent_runs} == {scene.run_id}
    run_log = scene.aggregator.recent_runs[-1].run_log
    assert run_log.lines[0].command_name == STEPS[0]
