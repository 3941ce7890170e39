"""An engine's process, its network, disk and aggregator, in one Trio run; and what befalls them."""

import math
from collections.abc import Awaitable, Callable, Generator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from random import Random

import trio
from attrs import define, field

from trio_runner._outbox import MemoryOutbox, Outbox
from trio_runner._outbox_sqlite import DurableOutbox
from trio_runner._runner import EngineRunner
from trio_runner._timing import Timing
from trio_runner.net import EngineDispatcher
from trio_runner.protocol import OPENPECTUS_VERSION, MessageBase
from trio_runner.protocol import aggregator_messages as am
from trio_runner.protocol import engine_messages as em
from trio_runner.simulation.stand_ins._aggregator import Connection
from trio_runner.simulation.stand_ins._disk import SimulatedDisk
from trio_runner.simulation.stand_ins._network import Network, Wire
from trio_runner.simulation.stand_ins._server import Aggregator
from trio_runner.simulation.trials._busy import BusyEngine, EngineBug
from trio_runner.simulation.trials._ledger import Death
from trio_runner.simulation.trials._oracle import Oracle
from trio_runner.simulation.trials._schedule import Planned
from trio_runner.simulation.trials._trace import Trace
from trio_runner.simulation.trials._watched_link import keys_of
from trio_runner.simulation.trials._witness import Witness

Fault = Callable[["World", Random], Awaitable[None]]
"""What befalls a world, with chance of its own."""

EPOCH = 1_700_000_000.0
"""The wall clock at virtual time 0 (s)."""

BACK_S = 10 + 10
"""Behind the last fault: the longest wait, and the dial (s)."""

CALL_S = 2.0
"""What an aggregator gives an engine to answer a call (s)."""

SETTLED_S = 12.0
"""So long after trouble (s) a link may still be one that suffers from it: 10 s until that shows."""

RESTART_S = 1.0
"""Between the end of a process and its next start (s)."""


@define(eq=False)
class _Recorder(Aggregator):
    """An aggregator whose every message the oracle sees, and which keeps none."""

    oracle: Oracle = field(kw_only=True)
    way_s: Callable[[], float] = field(kw_only=True)
    """How long a message may be on its way (s)."""

    def note(
        self, message: em.EngineMessage, connection: Connection, now: float, refused: str | None
    ) -> None:
        self.oracle.receive(message, connection.number, refused)
        self.oracle.check_line(message.sequence_number, self.way_s(), self.handling_time_s)


@define(eq=False)
class _Life:
    """A process: one runner, from its start to its end."""

    runner: EngineRunner
    engine: BusyEngine
    outbox: Outbox
    witness: Witness
    scope: trio.CancelScope = field(factory=trio.CancelScope, init=False)
    working: trio.CancelScope = field(factory=trio.CancelScope, init=False)
    wires: list[Wire] = field(factory=list, init=False)
    ended: trio.Event = field(factory=trio.Event, init=False)
    is_over: bool = field(default=False, init=False)
    """Whether it has ended, or counts as ended while what is left of it unwinds."""


@define(eq=False)
class World:
    """What is simulated. `run` lets it be, meets it with faults, and checks that it recovers."""

    seed: int
    trace: Trace
    folder: Path
    version: str = field(default=OPENPECTUS_VERSION, init=False)
    rng: Random = field(init=False)
    oracle: Oracle = field(init=False)
    aggregator: _Recorder = field(init=False)
    network: Network = field(init=False)
    disk: SimulatedDisk | None = field(init=False)
    clock_offset_s: float = field(default=0.0, init=False)
    hangs: int = field(default=0, init=False)
    """How many faults hold the aggregator."""
    answer: Callable[[], MessageBase | None] = field(default=lambda: None, init=False)
    """What the aggregator answers instead of handling a message."""
    faults: dict[str, int] = field(factory=dict, init=False)
    calls: int = field(default=0, init=False)
    recovered_s: float = field(default=math.nan, init=False)
    """How long it took to be back behind the last fault (s)."""
    latency_s: float = field(init=False)
    jitter_s: float = field(init=False)
    bytes_per_s: float = field(init=False)
    handling_s: float = field(init=False)
    bytes_max: int = field(init=False)
    steady_s: float = field(init=False)
    _life: _Life | None = field(default=None, init=False)
    _born: trio.Event = field(factory=trio.Event, init=False)
    """Set while a process lives."""
    _lives: int = field(default=0, init=False)
    _open_run: str | None = field(default=None, init=False)
    """The run that was on when the last process died."""
    _in_doubt: bool = field(default=False, init=False)
    _count: int = field(default=0, init=False)
    _troubles: int = field(default=0, init=False)
    _trouble_until: float = field(default=-math.inf, init=False)
    _woken: trio.Event = field(factory=trio.Event, init=False)
    _is_ending: bool = field(default=False, init=False)
    _all: trio.CancelScope = field(factory=trio.CancelScope, init=False)
    _lives_running: trio.Nursery = field(init=False)

    def __attrs_post_init__(self) -> None:
        rng = self.rng = self._chance("world")
        self.latency_s = rng.choice((0.0, 0.001, 0.02, 0.1))
        self.jitter_s = rng.choice((0.0, 0.005, 0.05))
        self.bytes_per_s = rng.choice((math.inf, 1e6, 1e5))
        self.handling_s = rng.choice((0.0, 0.001, 0.01))
        self.bytes_max = rng.choice((20_000, 60_000, 2**26))
        # The usual rate is the fastest; at lower ones each exchange has more of the time alone.
        self.steady_s = rng.choice((Timing().steady_s, 0.5, 1.0, 2.0))
        self.oracle = Oracle(self.trace, lambda _: self._all.cancel(), self.steady_s)
        self.aggregator = _Recorder(
            handling_time_s=self.handling_s,
            on_message=self._on_message,
            oracle=self.oracle,
            way_s=self._way_s,
        )
        self.disk = None
        if rng.random() < 0.6:
            self.disk = SimulatedDisk(self.folder, self._chance("disk"), self._tear)

    @property
    def processes(self) -> int:
        """How many processes there were."""
        return self._lives

    def _chance(self, what: str) -> Random:
        return Random(f"{self.seed} {what}")  # noqa: S311 - nothing secret

    def _next(self) -> int:
        self._count += 1
        return self._count

    def wall_clock(self) -> float:
        """Return the seconds since the epoch as the engine's computer has them."""
        return EPOCH + trio.current_time() + self.clock_offset_s

    # The whole of it

    async def run(self, duration_s: float, faults: Sequence[tuple[Planned, Fault]]) -> None:
        """Let faults happen for a time, then none, and check; stop at the first violation."""
        tasks_before = _count_tasks()
        with self._all:
            async with trio.open_nursery() as nursery, trio.open_nursery() as lives:
                self._lives_running = lives
                self.network = Network(
                    self.aggregator,
                    nursery,
                    self._chance("network"),
                    self.latency_s,
                    self.jitter_s,
                    self.bytes_per_s,
                )
                lives.start_soon(self._keep_a_process)
                nursery.start_soon(self._press_buttons)
                nursery.start_soon(self._look_every_second)
                with trio.move_on_after(duration_s):
                    async with trio.open_nursery() as meeting:
                        for planned, fault in faults:
                            meeting.start_soon(self._meet, planned, fault)
                        await trio.sleep_forever()
                await self._check_recovery()
                await self._check_stop()
                nursery.cancel_scope.cancel()
        if self.oracle.violation is None:
            left = _count_tasks() - tasks_before
            self.oracle.expect(left == 0, f"{left} tasks were left behind")

    async def _meet(self, planned: Planned, fault: Fault) -> None:
        await trio.sleep(planned.at_s)
        self.faults[planned.kind] = self.faults.get(planned.kind, 0) + 1
        self.trace.note(f"fault {planned.number} {planned.kind}")
        try:
            await fault(self, self._chance(f"fault {planned.number}"))
        finally:
            self.trace.note(f"fault {planned.number} {planned.kind} ended")

    async def _check_recovery(self) -> None:
        """Behind the last fault a fresh event must arrive, and the state be steady, in time."""
        began = trio.current_time()
        self.trace.note("faults ended")
        await self._born.wait()
        life = self._life
        assert life is not None
        life.engine.notify(life.runner)
        fresh = self.oracle.made[-1]
        waiting = life.runner.statistics().outbox.waiting
        one_s = 2 * (self.latency_s + self.jitter_s) + 2 * self.handling_s + 0.05
        with trio.move_on_after(BACK_S + RESTART_S + 2 * waiting * one_s) as patience:
            await self.aggregator.wait_until(
                lambda: (
                    fresh in self.oracle.handled | self.oracle.excused
                    # What a fault has left on the way comes before the answer.
                    and not self.oracle.is_unanswered(fresh)
                    and self._is_steady()
                )
            )
        self.recovered_s = trio.current_time() - began
        state, failure = life.runner.state, life.runner.statistics().last_failure
        self.oracle.expect(
            not patience.cancelled_caught,
            f"{self.recovered_s:.1f} s behind the last fault it is {state}"
            f" with {life.runner.statistics().outbox.waiting} messages waiting ({failure})",
        )

    def _is_steady(self) -> bool:
        """Tell whether the process that lives is; a bug may have ended the one before just now."""
        life = self._life
        return life is not None and life.runner.state in ("Connected", "Reconnected")

    async def _check_stop(self) -> None:
        self._is_ending = True
        life = self._life
        if life is None:
            return
        await self.stop_process()
        self.oracle.check_end(life.outbox.statistics())
        held = [wire for wire in life.wires if wire.is_held]
        self.oracle.expect(not held, f"{len(held)} streams were left open")

    async def _look_every_second(self) -> None:
        while True:
            await trio.sleep(1)
            life = self._life
            if life is not None:
                largest = 2000 + 150 * life.engine.storm
                self.oracle.check_second(life.outbox.statistics(), self.bytes_max, largest)

    # The process

    async def _keep_a_process(self) -> None:
        while not self._is_ending:
            # It is a process that loses its power in mid-write, and this one is not born yet.
            with self.disk.powered() if self.disk is not None else nullcontext():
                life = self._start()
            await life.ended.wait()
            if not self._is_ending:
                await trio.sleep(RESTART_S)

    def _start(self) -> _Life:
        self._lives += 1
        outbox = self._open_outbox()
        found = outbox.run_id
        self.oracle.begin_life(durable=self.disk is not None, outbox=outbox.statistics())
        if self.disk is not None:
            self.oracle.find_open_run(found, self._open_run, in_doubt=self._in_doubt)
            if found != self._open_run:
                self.oracle.taint = True  # nobody will end the run that the aggregator has
        resumed = found if self.rng.random() < 0.3 else None
        if found is not None and resumed is None:
            # The runner ends the run; nobody but the outbox makes this message.
            self.oracle.make_end_of_run(found)
        engine = BusyEngine(
            computer_name="host",
            data_log_interval_s=1.0,
            clock=self.wall_clock,
            count=self._next,
            made=lambda message: None if life.is_over else self.oracle.make(message),
            rng=self._chance(f"engine {self._lives}"),
            run_id=resumed,
        )
        dispatcher = EngineDispatcher(
            "aggregator.example",
            handlers=engine,
            open_stream=lambda host, port: self._open_stream(life, host, port),
        )
        witness = Witness(dispatcher, self.oracle)
        runner = EngineRunner(
            witness,
            engine,
            engine,
            outbox=outbox,
            resume_run=resumed,
            timing=Timing(steady_s=self.steady_s),
            offload=_at_once,
            rng=self._chance(f"waits {self._lives}"),
            clock=self.wall_clock,
        )
        self._born.set()
        self._life = life = _Life(runner, engine, outbox, witness)
        self.trace.note(f"process {self._lives} starts")
        self._lives_running.start_soon(self._live, life)
        return life

    def _open_outbox(self) -> Outbox:
        if self.disk is None:
            return MemoryOutbox(self.bytes_max)
        return DurableOutbox(
            path=self.disk.path,
            bytes_max=self.bytes_max,
            clock=trio.current_time,
            connect=self.disk.connect,
        )

    async def _live(self, life: _Life) -> None:
        how: Death = "stopped"
        held: AbstractContextManager[object] = nullcontext()
        if isinstance(life.outbox, DurableOutbox):
            held = life.outbox
        with held, life.scope:
            try:
                with life.runner.state_changes() as changes:
                    async with trio.open_nursery() as nursery:
                        nursery.start_soon(self._watch_states, life, changes)
                        nursery.start_soon(self._work, life)
                        try:
                            await life.runner.run()
                        finally:
                            life.working.cancel()
            except* EngineBug:
                how = "raised"
        self._note_end(life, how)

    async def _work(self, life: _Life) -> None:
        with life.working:
            await life.engine.work(life.runner)

    async def _watch_states(
        self, life: _Life, changes: "trio.MemoryReceiveChannel[object]"
    ) -> None:
        async for change in changes:
            if not life.is_over:
                self.oracle.change_state(getattr(change, "before"), getattr(change, "after"))  # noqa: B009

    def _note_end(self, life: _Life, how: Death) -> None:
        """Note the end of a process, once: the dead may unwind for a while."""
        if life.is_over:
            return
        self.trace.note(f"process ends: {how}")
        self.oracle.end_life(how, durable=self.disk is not None, outbox=life.outbox.statistics())
        degraded = life.outbox.statistics().degraded is not None
        self._open_run = life.engine.run_id
        self._in_doubt = how == "torn" or degraded
        life.is_over, life.witness.is_on = True, False
        self._life, self._born = None, trio.Event()
        life.ended.set()

    async def stop_process(self) -> None:
        """Stop the process in order and wait for its end."""
        life = self._life
        if life is not None:
            life.working.cancel()
            await life.runner.shutdown()
            await life.ended.wait()

    def kill_process(self, *, power: bool, torn: bool = False) -> None:
        """End the process at once; without power the aggregator hears nothing of it."""
        life = self._life
        if life is None:
            return
        self._note_end(life, "torn" if torn else "killed")
        for wire in life.wires:
            if power or torn:
                wire.up.is_lost = wire.down.is_lost = True
                wire.down.is_stalled = True
            else:
                wire.reset()
        if self.disk is not None:
            self.disk.die(power=power or torn)
        life.working.cancel()
        life.scope.cancel()

    def _tear(self) -> None:
        """Lose the power in mid-commit; called in the middle of the dying process's own step."""
        self.kill_process(power=True, torn=True)

    def note_aggregator_dies(self) -> None:
        """Note a run that the aggregator may take for open when it is back, though it has ended.

        What it has stored is the run at the last disconnect, and it takes that for the truth.
        """
        stored = self.aggregator.recent_engines.get(self.engine_id)
        record = self.aggregator.engines.get(self.engine_id)
        run = record.unit.run if record is not None else None
        if stored is not None and (run is None or run.run_id != stored[0]):
            self.oracle.taint = True

    def forget_the_dead(self) -> None:
        """Let the aggregator hear of the ends that it did not hear of."""
        for wire in list(self.network.wires):
            if wire.up.is_lost:
                wire.reset()

    def with_engine(self, do: Callable[[BusyEngine, EngineRunner], object]) -> list[BusyEngine]:
        """Do something with the engine if its process lives; return it."""
        life = self._life
        if life is None or life.runner.state in ("Stopped", "ShutdownComplete"):
            return []
        do(life.engine, life.runner)
        return [life.engine]

    async def _open_stream(self, life: _Life, host: str, port: int) -> trio.abc.Stream:
        if life.is_over:
            raise OSError("the process is dead")
        stream = await self.network.open_stream(host, port)
        wire = self.network.wires[-1]
        life.wires = [*(old for old in life.wires if old.is_held), wire]
        if life.is_over:
            wire.reset()
        return stream

    # The aggregator and its people

    @property
    def engine_id(self) -> str:
        """The id under which the aggregator knows the engine."""
        return "host_Unit"

    async def _on_message(self, message: em.EngineMessage) -> MessageBase | None:
        while self.hangs:
            await self._woken.wait()
        # A state that is refused is not sent again before it changes: no loss, but no test either.
        return self.answer() if keys_of(message) else None

    def wake_aggregator(self) -> None:
        """Let the aggregator look whether it may go on."""
        self._woken.set()
        self._woken = trio.Event()

    @contextmanager
    def trouble(self) -> Generator[None, None, None]:
        """Mark a time in which an answer to the aggregator may be late through no fault of ours."""
        self._troubles += 1
        try:
            yield
        finally:
            self._troubles -= 1
            self._trouble_until = trio.current_time() + SETTLED_S

    def _way_s(self) -> float:
        network = self.network
        return network.latency_s + network.jitter_s if self._is_calm() else math.inf

    async def call(self, message: MessageBase) -> None:
        """Call the engine as the page does, and check that the answer comes in time."""
        was_calm = self._is_calm()
        self.calls += 1
        try:
            answer = await self.aggregator.call(self.engine_id, message)
        except trio.BrokenResourceError:
            return  # the connection ended
        except trio.TooSlowError:
            late = was_calm and self._is_calm()
            self.oracle.expect(not late, f"a call was not answered within {CALL_S:g} s")
            return
        self.trace.note(f"call answered {type(answer).__name__}")

    def _is_calm(self) -> bool:
        dead = any(wire.up.is_lost for wire in self.network.wires)  # of a process without power
        return not (dead or self._troubles or trio.current_time() < self._trouble_until)

    async def _press_buttons(self) -> None:
        rng = self._chance("people")
        while True:
            await trio.sleep(rng.expovariate(1 / 15))
            await self.call(am.InjectCodeMsg(pcode="Mark: A"))


async def _at_once(do: Callable[[], None]) -> None:
    """Do in Trio's thread what is else done in another: a mock clock waits for no thread."""
    await trio.lowlevel.checkpoint()
    do()


def _count_tasks() -> int:
    """Return how many tasks there are, Trio's own included."""
    count, tasks = 0, [trio.lowlevel.current_root_task()]
    while tasks:
        task = tasks.pop()
        if task is not None:
            count += 1
            for nursery in task.child_nurseries:
                tasks.extend(nursery.child_tasks)
    return count
