"""The world of a life: the engine's process, network, disk and aggregator in one Trio run."""

import math
from collections import deque
from collections.abc import Awaitable, Callable, Generator, Sequence
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from random import Random

import trio
from attrs import define, field

from trio_runner.protocol import OPENPECTUS_VERSION, MessageBase
from trio_runner.protocol import engine_messages as em
from trio_runner.simulation.stand_ins._change import Change
from trio_runner.simulation.stand_ins._disk import SimulatedDisk
from trio_runner.simulation.stand_ins._network import Network
from trio_runner.simulation.stand_ins._records import Connection
from trio_runner.simulation.stand_ins._server import Aggregator
from trio_runner.simulation.stand_ins._sometimes import sometimes
from trio_runner.simulation.trials._callers import Callers
from trio_runner.simulation.trials._conditions import Conditions, draw
from trio_runner.simulation.trials._guest import Invitation
from trio_runner.simulation.trials._oracle import Oracle
from trio_runner.simulation.trials._process import DATA_LOG_INTERVAL_S, Processes
from trio_runner.simulation.trials._rate import Rate
from trio_runner.simulation.trials._record import Second
from trio_runner.simulation.trials._recovery import RecoveryCheck
from trio_runner.simulation.trials._schedule import Planned
from trio_runner.simulation.trials._stored import Stored
from trio_runner.simulation.trials._trace import Trace
from trio_runner.simulation.trials._watched_link import SAMPLE, keys_of
from trio_runner.simulation.trials._written import Written

Fault = Callable[["World", Random], Awaitable[None]]
"""A function that does something to a world, with a random generator of its own."""

Answer = Callable[[], MessageBase | None]
"""An answer in place of handling a message, or None to handle it."""


LINE_S = 10
"""How far back to look for messages that may be under way with the newest value (s)."""

THINNEST_BYTES_S = 600
"""A thinner path need not carry the samples that the data log stores, one a second (bytes/s)."""

THIN_BYTES_S = 1e5
"""A thinner path need not carry a storm of tags; see `STORM_S` (bytes/s)."""

PONG_BYTES_S = 1e4
"""A thinner path may hold up a pong for longer than the aggregator waits for it (bytes/s)."""

STORM_S = 180.0
"""How long after a storm of tags a thin path may still be busy with it (s)."""

BEARING = em.UodInfoMsg, em.MethodMsg, em.RunStartedMsg, em.RunStoppedMsg, em.TagsUpdatedMsg
"""If these are not handled, no samples are stored; other messages hold up nothing."""


def handle_it() -> None:
    """Return None, so that the message is handled."""


@define(eq=False)
class _Recorder(Aggregator):
    """An aggregator that shows every message to the oracle and keeps none."""

    oracle: Oracle = field(kw_only=True)
    way_s: Callable[[], float] = field(kw_only=True)
    """Returns the longest time that a message may be on its way (s)."""
    may_expect_pong: Callable[[], bool] = field(kw_only=True)
    stored: Stored = field(init=False)
    rate: Rate = field(init=False)

    def __attrs_post_init__(self) -> None:
        self.stored = Stored(self.oracle, self, DATA_LOG_INTERVAL_S)
        self.rate = Rate(self.oracle.expect, self.oracle.steady_s)

    def note(
        self, message: em.EngineMessage, connection: Connection, now: float, refused: str | None
    ) -> None:
        self.oracle.receive(message, connection.number, refused)
        self.oracle.check_line(message.sequence_number, self.way_s(), self.handling_time_s)
        self.stored.receive(message, refused)
        if refused is None:
            for key in keys_of(message):
                if key[0] == SAMPLE:
                    self.rate.receive(self.oracle.made_at(key))

    def note_no_pong(self) -> None:
        late = self.may_expect_pong()
        self.oracle.expect(not late, "a ping of the aggregator's was not answered in time")


@define(eq=False)
class World:
    """What is simulated. `run` lets it live, applies the faults, and checks that it recovers.

    `network`, `processes` and `callers` exist from the start of `run` on.
    """

    seed: int
    trace: Trace
    folder: Path
    invited: Invitation | None = None
    """The engine that lives here, if it is not the simulated one."""
    usual: Conditions = field(init=False)
    """The conditions that every fault restores at its end."""
    version: str = field(default=OPENPECTUS_VERSION, init=False)
    oracle: Oracle = field(init=False)
    aggregator: _Recorder = field(init=False)
    network: Network = field(init=False)
    disk: SimulatedDisk | None = field(init=False)
    processes: Processes = field(init=False)
    callers: Callers = field(init=False)
    answer: Answer = field(default=handle_it, init=False)
    """What the aggregator answers instead of handling an event or a sample."""
    answers: dict[type[em.EngineMessage], list[Answer]] = field(factory=dict, init=False)
    """The same for each kind of message, including state messages."""
    hangs: int = field(default=0, init=False)
    """How many faults make the aggregator hang."""
    woken: Change = field(factory=Change, init=False)
    """Notified when `hangs` goes down."""
    faults: dict[str, int] = field(factory=dict, init=False)
    recovered_s: float = field(default=math.nan, init=False)
    """How long recovery took after the last fault (s)."""
    _storm_at: float = field(default=-math.inf, init=False)
    """When the last storm of tags was seen (s)."""
    _rng: Random = field(init=False)
    _all: trio.CancelScope = field(factory=trio.CancelScope, init=False)

    def __attrs_post_init__(self) -> None:
        self._rng = self._chance("world")
        self.usual = draw(self._rng)
        self.oracle = Oracle(self.trace, lambda _: self._all.cancel(), self.usual.steady_s)
        self.aggregator = _Recorder(
            handling_time_s=self.usual.handling_s,
            on_message=self._on_message,
            oracle=self.oracle,
            way_s=self._way_s,
            may_expect_pong=self._may_expect_pong,
        )
        self.disk = None
        if self.usual.has_disk:
            self.disk = SimulatedDisk(
                self.folder,
                self._chance("disk"),
                lambda: self.processes.tear(),
                lambda: self.oracle.expect(
                    not self.processes.is_written_by_runner, "Trio's thread waits for the disk"
                ),
            )

    def _chance(self, what: str) -> Random:
        return Random(f"{self.seed} {what}")  # noqa: S311 - nothing secret

    async def run(self, duration_s: float, faults: Sequence[tuple[Planned, Fault]]) -> None:
        """Let faults happen for duration_s (s), then check the recovery; stop at a violation."""
        tasks_before = _count_tasks()
        with self._all:
            async with trio.open_nursery() as nursery:
                self._populate(nursery)
                nursery.start_soon(self.processes.keep_one)
                nursery.start_soon(self.callers.press_buttons, self._chance("people"))
                nursery.start_soon(self._look_every_second)
                with trio.move_on_after(duration_s):
                    async with trio.open_nursery() as meeting:
                        for planned, fault in faults:
                            meeting.start_soon(self._meet, planned, fault)
                        await trio.sleep_forever()
                check = RecoveryCheck(self.oracle, self.processes, self.aggregator, self.usual)
                self.recovered_s = await check.check_back()
                if self.invited is not None:  # nothing waits for a run that ends in the last flush
                    await self.callers.send_operators_home()
                await check.check_end()
                self.aggregator.stored.check_end()
                nursery.cancel_scope.cancel()
        if self.oracle.violation is None:
            left = _count_tasks() - tasks_before
            self.oracle.expect(left == 0, f"{left} tasks were left behind")

    def _populate(self, nursery: trio.Nursery) -> None:
        self.network = Network(
            self.aggregator,
            nursery,
            self._chance("network"),
            self.usual.latency_s,
            self.usual.jitter_s,
            self.usual.bytes_per_s,
        )
        self.processes = Processes(
            self.oracle,
            self.aggregator.stored,
            self.network,
            self.disk,
            usual=self.usual,
            rng=self._rng,
            chance=self._chance,
            invited=self.invited,
        )
        self.oracle.tries.moved_at = self.processes.moved_at
        self.callers = Callers(
            self.aggregator, self.network, self.oracle, lambda: self.processes.engine_id
        )
        if self.invited is not None:
            self.callers.slow_handlers += 1  # nobody knows how long its handlers take
            nursery.start_soon(self.callers.start_and_stop, self._chance("operators"))

    async def _meet(self, planned: Planned, fault: Fault) -> None:
        await trio.sleep(planned.at_s)
        self.faults[planned.kind] = self.faults.get(planned.kind, 0) + 1
        self.trace.note("fault", planned.number, planned.kind)
        try:
            await fault(self, self._chance(f"fault {planned.number}"))
        finally:
            self.trace.note("fault", planned.number, planned.kind, "ended")

    async def _look_every_second(self) -> None:
        under_way: deque[int] = deque(maxlen=LINE_S)
        written = Written(self.oracle.expect)
        while True:
            await trio.sleep(1)
            process = self.processes.now
            if process is not None:
                if process.engine.storm:
                    self._storm_at = trio.current_time()
                largest = self.processes.largest_bytes + 150 * process.engine.storm
                self.oracle.check_second(process.outbox.statistics(), self.usual.bytes_max, largest)
            if self.disk is not None:
                written.check_second(
                    is_well=self._is_well and self.disk.is_well,
                    bytes_written=self.disk.bytes_written,
                    events_cost=self.processes.events_cost,
                    log_bytes=self.disk.log_bytes,
                )
            under_way.append(self.oracle.bytes_under_way)
            way_s = self.network.latency_s + self.network.jitter_s
            way_s += max(under_way) / self.network.bytes_per_s
            if self.trace.record is not None:
                self.trace.record.seconds.append(self._as_it_stands())
            is_quiet = self._is_quiet
            self.aggregator.stored.check_second(is_quiet=is_quiet, way_s=way_s)
            latency_s, jitter_s = self.network.latency_s, self.network.jitter_s
            self.aggregator.rate.check_second(
                is_wide=self._is_wide, latency_s=latency_s, jitter_s=jitter_s
            )
            thin = self.network.bytes_per_s < 1500
            sometimes("settled on a thin line", thin and is_quiet)
            exchange_s = 2 * (latency_s + jitter_s) + self.aggregator.handling_time_s
            self.oracle.states_share.check_second(is_quiet=is_quiet, way_s=exchange_s)

    def _as_it_stands(self) -> Second:
        process, disk = self.processes.now, self.disk
        seen = process.outbox.statistics() if process is not None else None
        return Second(
            at_s=trio.current_time(),
            waiting=seen.waiting if seen is not None else None,
            bytes_waiting=seen.bytes_waiting if seen is not None else None,
            disk=disk.trouble if disk is not None else None,
            bytes_written=disk.bytes_written if disk is not None else None,
        )

    @property
    def _is_quiet(self) -> bool:
        """Whether the link is in steady state and nothing keeps samples from arriving."""
        answers = self.answer is handle_it and not any(map(self.answers.get, BEARING))
        stormed = trio.current_time() - self._storm_at < STORM_S
        least = THIN_BYTES_S if stormed else THINNEST_BYTES_S
        carries = self.network.bytes_per_s >= least
        calm = self.callers.is_but_thin and carries and not self.oracle.taint
        return self._is_steady and answers and calm and not self._is_held_up

    @property
    def _is_wide(self) -> bool:
        """Whether nothing but the distance has delayed samples for the last second."""
        changed_at = max(self.oracle.changed_at, self.callers.long_way.ended_at)
        unchanged = trio.current_time() - changed_at > 1
        calm = self.callers.is_but_far and not self.oracle.taint
        waits = self._is_held_up or self.oracle.has_slow_disk
        return self._is_unhindered and unchanged and calm and not waits

    @property
    def _is_held_up(self) -> bool:
        """Whether samples may have to wait for messages in front of them."""
        is_paused = trio.current_time() < self.oracle.tries.paused_until
        return is_paused or self.oracle.may_a_run_event_wait()

    @property
    def _is_well(self) -> bool:
        """Whether network and aggregator are as usual, and the link is in steady state."""
        usual, network = self.usual, self.network
        line = (network.latency_s, network.jitter_s)
        return line == (usual.latency_s, usual.jitter_s) and self._is_unhindered

    @property
    def _is_unhindered(self) -> bool:
        """Whether everything but the distance is as usual, and the link is in steady state."""
        usual, aggregator = self.usual, self.aggregator
        slow = self.hangs or aggregator.muted or aggregator.archiving_time_s
        quick = aggregator.handling_time_s == usual.handling_s and not slow
        wide = self.network.bytes_per_s == usual.bytes_per_s
        answers = self.answer is handle_it and not any(self.answers.values())
        return wide and quick and answers and self._is_steady

    @property
    def _is_steady(self) -> bool:
        process = self.processes.now
        return process is not None and process.runner.state in ("Connected", "Reconnected")

    def trouble(self) -> AbstractContextManager[None]:
        """Mark a time in which our answer to a call may be late through no fault of ours."""
        return self.callers.trouble.lasting()

    def _way_s(self) -> float:
        network = self.network
        return network.latency_s + network.jitter_s if self.callers.is_calm else math.inf

    def _may_expect_pong(self) -> bool:
        return self.callers.is_untroubled and self.network.bytes_per_s >= PONG_BYTES_S

    async def _on_message(self, message: em.EngineMessage) -> MessageBase | None:
        await self.woken.wait_until(lambda: not self.hangs)
        for answer in self.answers.get(type(message), ()):
            if (failed := answer()) is not None:
                return failed
        # `answer` spares state messages: a refused one is not sent again before it changes. That is
        # no loss, but it tests nothing either.
        return self.answer() if keys_of(message) else None

    @contextmanager
    def failing(self, kind: type[em.EngineMessage], answer: Answer) -> Generator[None, None, None]:
        """Let the aggregator give this answer to one kind of message while the block runs."""
        answers = self.answers.setdefault(kind, [])
        answers.append(answer)
        try:
            yield
        finally:
            answers.remove(answer)

    def note_aggregator_dies(self) -> None:
        """Taint the oracle if the aggregator may come back with a run open that has ended.

        The aggregator has stored the run that was on at the last disconnect, and believes that.
        """
        engine_id = self.processes.engine_id
        stored = self.aggregator.recent_engines.get(engine_id)
        record = self.aggregator.engines.get(engine_id)
        run = record.unit.run if record is not None else None
        if stored is not None and (run is None or run.run_id != stored[0]):
            self.oracle.taint = True


def _count_tasks() -> int:
    """Return the number of tasks, including Trio's own."""
    count, tasks = 0, [trio.lowlevel.current_root_task()]
    while tasks:
        task = tasks.pop()
        if task is not None:
            count += 1
            for nursery in task.child_nurseries:
                tasks.extend(nursery.child_tasks)
    return count
