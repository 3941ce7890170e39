"""The jobs of the benchmarks, done by this runner; its twin is `asyncio_side`."""

import gc
import itertools
import logging
import tempfile
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import trio
import trio.testing
from attrs import define, evolve, field

from tests.bench.lines import hear, job, tell
from tests.bench.sink import Book, Connection
from tests.bench.work import (
    EPOCH,
    Changes,
    Line,
    Plant,
    Recording,
    Tag,
    begin,
    cpu,
    memory,
    repeat_every,
)
from trio_runner import (
    AggregatorUnreachable,
    DurableOutbox,
    EngineDispatcher,
    EngineRunner,
    PlainEngine,
    Session,
    Timing,
)
from trio_runner.protocol import engine_messages as em
from trio_runner.protocol import models as mdl

SAMPLES, EVENTS, RECOVERED = 10_000, 2_000, 50_000


def model(tag: Tag) -> mdl.TagValue:
    """Return a tag in this side's form."""
    name, tick_time, value, unit, formatted, direction = tag
    return mdl.TagValue(
        name=name,
        tick_time=tick_time,
        value=value,
        value_unit=unit,
        value_formatted=formatted,
        direction=mdl.TagDirection(direction),
    )


@define(eq=False, slots=False)
class StubEngine(PlainEngine):
    """Makes messages from the values of a `Plant`."""

    plant: Plant = field(factory=lambda: Plant(20))
    changes: Changes | None = None
    is_quiet: bool = False
    computer_name: str = "bench"

    def read_tags(self) -> list[mdl.TagValue]:
        now = time.time()
        tags = [model(tag) for tag in self.plant.tags(now)]
        if self.changes is not None:
            tags.append(model(self.changes.tag(now)))
        return tags

    def create_uod_info(self) -> em.UodInfoMsg:
        described = super().create_uod_info()
        return evolve(described, readings=[], uod_definition=_NOTHING_DEFINED)

    def create_tag_updates_msg(self, run_id: str | None) -> em.TagsUpdatedMsg | None:
        return None if self.is_quiet else em.TagsUpdatedMsg(tags=self.read_tags(), run_id=run_id)

    def create_tag_updates_snapshot_msg(self) -> em.TagsUpdatedMsg:
        return em.TagsUpdatedMsg(tags=self.read_tags())

    async def execute_control_command(self, name: str) -> None:
        """Take the command."""


_NOTHING_DEFINED = mdl.UodDefinition(commands=[], system_commands=[], tags=[])


@define(eq=False, slots=False)
class ReplayEngine(StubEngine):
    """Makes messages from a `Recording`, at its second that `now_s` gives."""

    recording: Recording = field(factory=Recording)
    now_s: Callable[[], float] = trio.current_time
    _lines: dict[str, mdl.RunLogLine] = field(factory=dict, init=False)

    def create_tag_updates_msg(self, run_id: str | None) -> em.TagsUpdatedMsg | None:
        tags = [model(tag) for tag in self.recording.changing(self.now_s())]
        return em.TagsUpdatedMsg(tags=tags, run_id=run_id)

    def create_tag_updates_snapshot_msg(self) -> em.TagsUpdatedMsg:
        tags = self.recording.tags(self.now_s())
        return em.TagsUpdatedMsg(tags=[model(tag) for tag in tags])

    def create_runlog_msg(self, run_id: str) -> em.RunLogMsg:
        lines = [self._line(line) for line in self.recording.lines(self.now_s())]
        return em.RunLogMsg(id="", run_id=run_id, runlog=mdl.RunLog(lines=lines))

    def _line(self, line: Line) -> mdl.RunLogLine:
        number, command, start, end, progress, start_values, end_values = line
        if number in self._lines:
            return self._lines[number]
        made = mdl.RunLogLine(
            id=number,
            command_name=command,
            start=start,
            end=end,
            progress=progress,
            start_values=[model(tag) for tag in start_values],
            end_values=[model(tag) for tag in end_values],
        )
        if end is not None:
            self._lines[number] = made
        return made

    def create_control_state_msg(self) -> em.ControlStateMsg:
        state = mdl.ControlState(is_running=True, is_holding=False, is_paused=False)
        return em.ControlStateMsg(control_state=state)

    def create_method_state_msg(self) -> em.MethodStateMsg:
        state = super().create_method_state_msg().method_state
        ids = self.recording.executed(self.now_s())
        return em.MethodStateMsg(method_state=evolve(state, executed_line_ids=ids))


class FirstDialFails(EngineDispatcher):
    """Begins as if after an outage."""

    has_failed = False

    async def dial(
        self,
        registration: em.RegisterEngineMsg,
        timing: Timing,
        *,
        task_status: trio.TaskStatus[Session] = trio.TASK_STATUS_IGNORED,
    ) -> None:
        if not self.has_failed:
            self.has_failed = True
            raise AggregatorUnreachable("the benchmark wants a backlog", refused=True)
        await super().dial(registration, timing, task_status=task_status)


class CountsDials(EngineDispatcher):
    """Notes when it dials."""

    dials: list[float] = []  # noqa: RUF012 - of all of them

    async def dial(
        self,
        registration: em.RegisterEngineMsg,
        timing: Timing,
        *,
        task_status: trio.TaskStatus[Session] = trio.TASK_STATUS_IGNORED,
    ) -> None:
        self.dials.append(time.monotonic())
        await super().dial(registration, timing, task_status=task_status)


async def engines(
    name: str, ports: list[int], tags: int, changes: bool = False, spread_s: float = 0.0
) -> None:
    """Keep an engine at each of the ports; tell when all are in steady state, and then obey."""
    runners: list[EngineRunner] = []
    async with trio.open_nursery() as nursery:
        for number, port in enumerate(ports):
            engine = StubEngine(
                f"{name}{number}", Plant(tags, number), Changes(number) if changes else None
            )
            dispatcher = CountsDials("127.0.0.1", port, handlers=engine)
            runner = EngineRunner(dispatcher, engine, engine)
            await nursery.start(runner.run)
            runners.append(runner)
            await trio.sleep(spread_s / len(ports))
        while any(runner.state not in ("Connected", "Reconnected") for runner in runners):  # noqa: ASYNC110 - of many, none to wait for alone
            await trio.sleep(0.01)
        tell(ready=True)
        await trio.to_thread.run_sync(obey, runners)


def obey(runners: list[EngineRunner]) -> None:
    """Do what the benchmark tells."""
    while True:
        told = hear()
        if told["do"] == "cost":
            tell(**cpu(), **memory())
        elif told["do"] == "dials":
            tell(dials=CountsDials.dials)
        elif told["do"] == "notify":
            notify_in_turn(runners, told["count"], told["every_s"])
            tell(notified=True)


def notify_in_turn(runners: list[EngineRunner], count: int, every_s: float) -> None:
    """Let one engine after the other send the time as a notification."""
    turn = itertools.cycle(runners)

    def notify() -> None:
        next(turn).on_notify_command(repr(time.monotonic()))

    repeat_every(every_s, count, notify)


async def catch_up(name: str, port: int, count: int, tags: int) -> None:
    """Begin with a backlog; tell when it is complete, and obey while it is sent."""
    engine = StubEngine(name, Plant(tags), is_quiet=True)
    dispatcher = FirstDialFails("127.0.0.1", port, handlers=engine)
    runner = EngineRunner(dispatcher, engine, engine)
    filled = False

    async def fill(before: str, after: str) -> None:
        nonlocal filled
        tell(state=after, at=time.monotonic())
        if after == "Disconnected" and not filled:
            filled = True
            now = time.time()
            gc.collect()
            before_bytes = memory()["rss"]
            for number in range(count):
                values = [model(tag) for tag in engine.plant.tags(now + 5 * number)]
                runner.post(em.TagsUpdatedMsg(tags=values))
            gc.collect()
            tell(filled=memory()["rss"] - before_bytes)

    runner.state_changing_callback = fill
    async with trio.open_nursery() as nursery:
        nursery.start_soon(runner.run)
        await trio.to_thread.run_sync(obey, [runner])


async def run_log(name: str, port: int, lines: int) -> None:
    """Be late in a run with this many lines; tell when it is on, and then obey."""
    began = time.monotonic() - Recording.LATE_S
    engine = ReplayEngine(name, recording=Recording(lines), now_s=lambda: time.monotonic() - began)
    dispatcher = EngineDispatcher("127.0.0.1", port, handlers=engine)
    runner = EngineRunner(dispatcher, engine, engine)

    async def start() -> None:
        runner.on_start(Recording.RUN_ID)
        tell(ready=True)

    runner.first_steady_state_callback = start
    async with trio.open_nursery() as nursery:
        nursery.start_soon(runner.run)
        await trio.to_thread.run_sync(obey, [runner])


def wire() -> None:
    """Replay the recording, on a clock that jumps whenever there is nothing to do."""
    book = Book(deflate=True)

    async def serve(stream: trio.abc.Stream) -> None:
        connection = Connection(book)
        async with stream:
            async for data in stream:
                reply = connection.receive(bytes(data))
                if reply:
                    await stream.send_all(reply)

    async def replay() -> None:
        async with trio.open_nursery() as nursery:

            async def open_stream(host: str, port: int) -> trio.abc.Stream:
                await trio.lowlevel.checkpoint()
                ours, theirs = trio.testing.memory_stream_pair()
                nursery.start_soon(serve, theirs)
                return ours

            engine = ReplayEngine("wire")
            dispatcher = EngineDispatcher(handlers=engine, open_stream=open_stream)
            runner = EngineRunner(
                dispatcher, engine, engine, clock=lambda: EPOCH + trio.current_time()
            )

            async def start() -> None:
                runner.on_start(Recording.RUN_ID)

            runner.first_steady_state_callback = start
            await nursery.start(runner.run)
            await trio.sleep(Recording.DURATION_S)
            runner.on_stop()
            await trio.sleep(1)
            nursery.cancel_scope.cancel()

    trio.run(replay, clock=trio.testing.MockClock(autojump_threshold=0))
    tell(
        ended=True,
        cpu_s=time.process_time(),
        messages=book.messages,
        message_bytes=book.message_bytes,
        tcp_bytes=book.received_bytes + book.sent_bytes,
    )


def outbox() -> None:
    """Fill a durable outbox and tell how fast; fill another one, recover it, and tell how fast."""
    with tempfile.TemporaryDirectory() as folder:
        engine, plant = StubEngine(), Plant(20)
        samples = _samples(plant, SAMPLES)
        with DurableOutbox(Path(folder) / "rates") as box:
            tell(samples_s=SAMPLES / _put(box, samples, commit_s=0.5))
            notification = engine.create_notification(mdl.NotificationTopic.RUN_START, "Hello")
            began = time.monotonic()
            for _ in range(EVENTS):
                box.put(notification)
            tell(events_s=EVENTS / (time.monotonic() - began))
        path = Path(folder) / "recovery"
        with DurableOutbox(path) as box:
            for _ in range(RECOVERED // SAMPLES):
                _put(box, samples, commit_s=1e9)
        del samples
        gc.collect()
        began = time.monotonic()
        with DurableOutbox(path) as box:
            tell(recovery_s=time.monotonic() - began, recovered=len(box))


def _samples(plant: Plant, count: int) -> list[em.TagsUpdatedMsg]:
    return [
        em.TagsUpdatedMsg(tags=[model(tag) for tag in plant.tags(EPOCH + 5 * number)])
        for number in range(count)
    ]


def _put(box: DurableOutbox, samples: Iterable[em.TagsUpdatedMsg], commit_s: float) -> float:
    """Put samples in, with a commit at this interval (s); return how long it took (s)."""
    began = committed = time.monotonic()
    for sample in samples:
        box.put(sample)
        if time.monotonic() - committed > commit_s:
            box.commit()
            committed = time.monotonic()
    box.commit()
    return time.monotonic() - began


def main() -> None:
    """Do the job for which the process was started."""
    logging.disable(logging.CRITICAL)
    begin()
    given = job()
    name = given.pop("job")
    if name in ("wire", "outbox"):
        {"wire": wire, "outbox": outbox}[name]()
        obey([])
    else:
        jobs: dict[str, Any] = {"engines": engines, "catch_up": catch_up, "run_log": run_log}
        trio.run(lambda: jobs[name](**given))


if __name__ == "__main__":
    main()
