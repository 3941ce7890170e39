"""The jobs of the benchmarks, done by the asyncio engine of `openpectus`.

It runs in the environment of `openpectus`, so nothing here imports this project's package. Its twin
is `trio_side`.
"""

# mypy: ignore-errors
# It builds on packages of another environment than the one that is type-checked.

import asyncio
import gc
import itertools
import logging
import time
from types import SimpleNamespace

import openpectus.engine.engine_runner as engine_runner
import openpectus.protocol.engine_messages as em
import openpectus.protocol.models as mdl
from openpectus.aggregator.models import NotificationTopic, WebPushNotification
from openpectus.engine.engine_runner import EngineRunner
from openpectus.lang.exec.events import EventEmitter
from openpectus.protocol.aggregator_messages import ExecuteControlCommandMsg, SuccessMessage
from openpectus.protocol.engine_dispatcher import EngineDispatcher
from openpectus.protocol.exceptions import ProtocolNetworkException

from tests.bench.lines import hear, job, leave, tell
from tests.bench.work import (
    STEADY_S,
    Changes,
    Plant,
    Recording,
    begin,
    cpu,
    memory,
    repeat_every,
)

INTRODUCED = ("Connected", "Reconnected")


def model(tag) -> mdl.TagValue:
    """Return a tag in this side's form."""
    name, tick_time, value, unit, formatted, direction = tag
    return mdl.TagValue(
        name=name,
        tick_time=tick_time,
        value=value,
        value_unit=unit,
        value_formatted=formatted,
        direction=direction,
    )


class StubBuilder:
    """Makes messages from the values of a `Plant`."""

    def __init__(self, name: str, tags: int, seed: int = 0, changes: bool = False) -> None:
        self.name = name
        self.plant = Plant(tags, seed)
        self.changes = Changes(seed) if changes else None
        self.is_quiet = False

    def read(self) -> list[mdl.TagValue]:
        """Return the tags."""
        now = time.time()
        tags = [model(tag) for tag in self.plant.tags(now)]
        if self.changes is not None:
            tags.append(model(self.changes.tag(now)))
        return tags

    def create_register_engine_msg(self, **who) -> em.RegisterEngineMsg:
        return em.RegisterEngineMsg(
            computer_name="bench", engine_version="0.1.1585", secret="", **who
        )

    def create_uod_info(self) -> em.UodInfoMsg:
        return em.UodInfoMsg(
            readings=[],
            commands=[],
            uod_definition=mdl.UodDefinition(commands=[], system_commands=[], tags=[]),
            plot_configuration=mdl.PlotConfiguration.empty(),
            hardware_str="",
            required_roles=set(),
            data_log_interval_seconds=5,
        )

    def create_tag_updates_msg(self, run_id):
        return None if self.is_quiet else em.TagsUpdatedMsg(tags=self.read(), run_id=run_id)

    def create_tag_updates_snapshot_msg(self):
        return em.TagsUpdatedMsg(tags=self.read())

    def create_runlog_msg(self, run_id):
        return em.RunLogMsg(id="", run_id=run_id, runlog=mdl.RunLog.empty())

    def create_queued_runlog_msg(self):
        return None

    def create_error_log_msg(self):
        return None

    def create_control_state_msg(self):
        state = mdl.ControlState(is_running=False, is_holding=False, is_paused=False)
        return em.ControlStateMsg(control_state=state)

    def create_method_state_msg(self):
        return em.MethodStateMsg(method_state=mdl.MethodState.empty())

    def create_method_msg(self):
        lines = [mdl.MethodLine(id="0", content="")]
        return em.MethodMsg(method=mdl.Method(lines=lines, version=0))

    def create_run_started_msg(self, run_id, tick_time):
        return em.RunStartedMsg(run_id=run_id, started_tick=tick_time)

    def create_run_stopped_msg(self, run_id):
        return em.RunStoppedMsg(
            run_id=run_id,
            runlog=self.create_runlog_msg(run_id).runlog,
            method_state=self.create_method_state_msg().method_state,
            archive=None,
            archive_filename=None,
        )

    def create_wpn_notify_command_msg(self, text):
        return em.WebPushNotificationMsg(
            notification=WebPushNotification(title=self.name, body=text),
            topic=NotificationTopic.NOTIFICATION_CMD,
        )

    def create_wpn_run_started_msg(self):
        return self.create_wpn_notify_command_msg("Run started.")

    def create_wpn_run_stopped_msg(self):
        return self.create_wpn_notify_command_msg("Run has stopped.")


class ReplayBuilder(StubBuilder):
    """Makes messages from a `Recording`, on a clock that the replay moves."""

    def __init__(self, name: str, lines: int = 100) -> None:
        super().__init__(name, tags=0)
        self.recording = Recording(lines)
        self.now_s = 0.0
        self._lines: dict[str, mdl.RunLogLine] = {}

    def create_tag_updates_msg(self, run_id):
        tags = [model(tag) for tag in self.recording.changing(self.now_s)]
        return em.TagsUpdatedMsg(tags=tags, run_id=run_id)

    def create_tag_updates_snapshot_msg(self):
        return em.TagsUpdatedMsg(tags=[model(tag) for tag in self.recording.tags(self.now_s)])

    def create_runlog_msg(self, run_id):
        lines = [self._line(line) for line in self.recording.lines(self.now_s)]
        return em.RunLogMsg(id="", run_id=run_id, runlog=mdl.RunLog(lines=lines))

    def _line(self, line) -> mdl.RunLogLine:
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

    def create_control_state_msg(self):
        state = mdl.ControlState(is_running=True, is_holding=False, is_paused=False)
        return em.ControlStateMsg(control_state=state)

    def create_method_state_msg(self):
        ids = self.recording.executed(self.now_s)
        state = mdl.MethodState.empty().model_copy(update={"executed_line_ids": ids})
        return em.MethodStateMsg(method_state=state)


class FirstDialFails(EngineDispatcher):
    """Begins as if after an outage."""

    has_failed = False

    async def connect_async(self) -> None:
        if not self.has_failed:
            self.has_failed = True
            raise ProtocolNetworkException("the benchmark wants a backlog")
        await super().connect_async()


class CountsDials(EngineDispatcher):
    """Notes when it dials."""

    dials: list[float] = []  # noqa: RUF012 - of all of them

    async def connect_async(self) -> None:
        self.dials.append(time.monotonic())
        await super().connect_async()


def make(builder: StubBuilder, port: int, kind=EngineDispatcher) -> EngineRunner:
    """Return a runner for an engine."""
    options = ("uod_name", "uod_author_name", "uod_author_email", "uod_filename", "location")
    who = {**dict.fromkeys(options, ""), "uod_name": builder.name}
    dispatcher = kind(builder, f"127.0.0.1:{port}", False, who)

    async def pause(message) -> SuccessMessage:
        return SuccessMessage()

    dispatcher.set_rpc_handler(ExecuteControlCommandMsg, pause)
    emitter = EventEmitter([])
    runner = EngineRunner(dispatcher, builder, emitter, asyncio.get_running_loop())
    runner.emitter = emitter
    return runner


async def engines(
    name: str, ports: list[int], tags: int, changes: bool = False, spread_s: float = 0.0
) -> None:
    """Keep an engine at each of the ports; tell when all are in steady state, and then obey."""
    runners, waiting = [], asyncio.Event()
    steady = 0

    async def note() -> None:
        nonlocal steady
        steady += 1
        if steady == len(ports):
            waiting.set()

    tasks = set()
    for number, port in enumerate(ports):
        runner = make(StubBuilder(f"{name}{number}", tags, number, changes), port, CountsDials)
        runner.connected_callback = note
        runners.append(runner)
        tasks.add(asyncio.create_task(runner.run()))
        if spread_s:
            await asyncio.sleep(spread_s / len(ports))
    await waiting.wait()
    tell(ready=True)
    await asyncio.to_thread(obey, runners)


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
    # The wait before the next dial is not part of the measurement.
    engine_runner.random = SimpleNamespace(uniform=lambda _least, _most: 0.25)
    builder = StubBuilder(name, tags)
    runner = make(builder, port, FirstDialFails)
    builder.is_quiet = True

    async def fill(before: str, after: str) -> None:
        tell(state=after, at=time.monotonic())
        if after == "Disconnected" and not builder.filled:
            builder.filled = True
            now = time.time()
            gc.collect()
            before_bytes = memory()["rss"]
            for number in range(count):
                tags = [model(tag) for tag in builder.plant.tags(now + 5 * number)]
                await runner._post_async(em.TagsUpdatedMsg(tags=tags))
            gc.collect()
            tell(filled=memory()["rss"] - before_bytes)

    builder.filled = False
    runner.state_changing_callback = fill
    task = asyncio.create_task(runner.run())
    await asyncio.to_thread(obey, [runner])
    await task


async def run_log(name: str, port: int, lines: int) -> None:
    """Be late in a run with this many lines; tell when it is on, and then obey."""
    builder = ReplayBuilder(name, lines)
    builder.now_s = Recording.LATE_S
    runner = make(builder, port)

    async def start() -> None:
        runner.emitter.emit_on_start(Recording.RUN_ID)
        tell(ready=True)

    runner.first_steady_state_callback = start

    async def go_on() -> None:
        while True:
            await asyncio.sleep(STEADY_S)
            builder.now_s += STEADY_S

    await asyncio.gather(runner.run(), go_on(), asyncio.to_thread(obey, [runner]))


async def wire(port: int) -> None:
    """Replay the recording; tell when it has ended.

    The runner's steady-state loop waits for all answers and then sleeps. Only that sleep moves the
    clock of the recording, so the work takes no time on that clock.
    """
    builder = ReplayBuilder("wire")
    ended = asyncio.Event()

    async def sleep(delay_s: float) -> None:
        if delay_s != STEADY_S:
            await asyncio.sleep(delay_s)
            return
        builder.now_s += STEADY_S
        if builder.now_s >= Recording.DURATION_S:
            ended.set()
            await asyncio.sleep(3600)
        await asyncio.sleep(0)

    runner = make(builder, port)
    started = asyncio.Event()

    async def start() -> None:
        runner.emitter.emit_on_start(Recording.RUN_ID)
        started.set()

    runner.first_steady_state_callback = start
    engine_runner.asyncio = SimpleNamespace(**{**vars(asyncio), "sleep": sleep})
    task = asyncio.create_task(runner.run())
    await ended.wait()
    runner.emitter.emit_on_stop()
    await asyncio.sleep(1)
    tell(ended=True, cpu_s=time.process_time())
    await asyncio.to_thread(obey, [])
    await task


def main() -> None:
    """Do the job for which the process was started."""
    logging.disable(logging.CRITICAL)
    begin()
    given = job()
    jobs = {"engines": engines, "catch_up": catch_up, "wire": wire, "run_log": run_log}
    try:
        asyncio.run(jobs[given.pop("job")](**given))
    except KeyboardInterrupt:
        leave()


if __name__ == "__main__":
    main()
