"""The engine's processes, one after the other, from their starts to whatever ends them."""

import io
import math
from collections.abc import Callable, Generator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from random import Random

import trio
from attrs import define, evolve, field

from trio_runner._intake import log_of
from trio_runner._outbox import MemoryOutbox, Outbox
from trio_runner._outbox_sqlite import DurableOutbox, OutboxNotWritable, export
from trio_runner._runner import EngineRunner
from trio_runner._tasks import offload_to_thread
from trio_runner._timing import Timing
from trio_runner._warnings import UnitWarning, Warnings
from trio_runner.net import EngineDispatcher
from trio_runner.protocol import encode_body
from trio_runner.protocol import engine_messages as em
from trio_runner.simulation.stand_ins._change import Change
from trio_runner.simulation.stand_ins._disk import SimulatedDisk
from trio_runner.simulation.stand_ins._network import Network, Wire
from trio_runner.simulation.stand_ins._sometimes import sometimes
from trio_runner.simulation.trials._busy import BusyEngine, EngineBug
from trio_runner.simulation.trials._conditions import Conditions
from trio_runner.simulation.trials._guest import Guest, Invitation
from trio_runner.simulation.trials._ledger import Death
from trio_runner.simulation.trials._manners import Manners
from trio_runner.simulation.trials._oracle import Oracle
from trio_runner.simulation.trials._stored import Stored
from trio_runner.simulation.trials._thread import RunLogTimes
from trio_runner.simulation.trials._watched_link import ROUNDING_S, Key, keys_of_body
from trio_runner.simulation.trials._witness import Witness
from trio_runner.simulation.trials._written import cost

EPOCH = 1_700_000_000.0
"""The wall clock at virtual time 0 (s)."""

DATA_LOG_INTERVAL_S = 1.0
"""The engine's data-log interval (s)."""

RESTART_S = 1.0
"""The time between the end of a process and the next start (s)."""

STOP_S = Timing().flush_s + 3.0
"""How long a clean stop may take, whatever disks and handlers do (s)."""


@define(eq=False, kw_only=True)
class _OneOfAKind(Warnings):
    """Warnings that can be followed one by one, like everything that an engine makes."""

    number: Callable[[], int]
    made: Callable[[em.EngineMessage], None]

    def take(self, now: float) -> list[UnitWarning]:
        """Return the warnings, each with a unique number."""
        taken = [
            evolve(told, text=f"{told.text} [{self.number()}]") for told in Warnings.take(self, now)
        ]
        if taken:
            self.made(log_of(taken, now))
        return taken


@define(eq=False)
class Process:
    """One runner with its engine, from its start to its end."""

    runner: EngineRunner
    engine: BusyEngine | Guest
    outbox: Outbox
    witness: Witness
    scope: trio.CancelScope = field(factory=trio.CancelScope, init=False)
    working: trio.CancelScope = field(factory=trio.CancelScope, init=False)
    wires: list[Wire] = field(factory=list, init=False)
    ended: trio.Event = field(factory=trio.Event, init=False)
    is_over: bool = field(default=False, init=False)
    """Whether it has ended, or counts as ended while what is left of it unwinds."""


@define(eq=False)
class Processes:
    """Keeps a process of the engine running, and ends it as a fault asks.

    `chance` gives each part of the world its own random generator. Without a disk, the outbox is in
    memory.
    """

    oracle: Oracle
    stored: Stored
    network: Network
    disk: SimulatedDisk | None
    usual: Conditions
    rng: Random
    chance: Callable[[str], Random]
    invited: Invitation | None = None
    """The engine that lives here in place of the simulated one."""
    now: Process | None = field(default=None, init=False)
    """The process that lives, if any."""
    born: Change = field(factory=Change, init=False)
    """Notified when a process has started."""
    count: int = field(default=0, init=False)
    """How many processes there were."""
    largest_bytes: int = field(default=2000, init=False)
    """The largest size that an event of any process may have, storms of tags aside (bytes)."""
    events_cost: float = field(default=0.0, init=False)
    """How much may be written for all events that processes have made (bytes)."""
    clock_offset_s: float = field(default=0.0, init=False)
    computer_name: str = field(default="host", init=False)
    _next_name: str = field(default="host", init=False)
    """The computer's name from the next start on."""
    _things: int = field(default=0, init=False)
    """How many events, samples and lines have been numbered, over all processes."""
    _open_run: str | None = field(default=None, init=False)
    """The run that was on when the last process died."""
    _in_doubt: bool = field(default=False, init=False)
    _run_ids: set[str] = field(factory=set, init=False)
    """The ids of all runs that invited engines have begun."""
    _is_ending: bool = field(default=False, init=False)

    def wall_clock(self) -> float:
        """Return the seconds since the epoch by the clock of the engine's computer."""
        return EPOCH + trio.current_time() + self.clock_offset_s

    def number(self) -> int:
        """Return a number that was not returned before."""
        self._things += 1
        return self._things

    @property
    def engine_id(self) -> str:
        """The id under which the aggregator knows the engine."""
        return f"{self.computer_name}_Unit"

    @property
    def is_written_by_runner(self) -> bool:
        """Whether a runner writes the outbox; otherwise whatever tells of an event does."""
        return self.now is not None and self.now.outbox.commit_wanted is not None

    def rename(self) -> None:
        """Give the engine's computer another name, from the next process on."""
        self._next_name = f"host-{self.number()}"

    def note_size(self, size: int) -> None:
        """Note that an engine may make an event of so many bytes."""
        self.largest_bytes = max(self.largest_bytes, 2000 + size)

    # From start to end

    async def keep_one(self) -> None:
        """Start a process, and another whenever one has ended, until `end`."""
        async with trio.open_nursery() as nursery:
            while not self._is_ending:
                # A power cut in mid-write kills the process that lives, and this one does not yet.
                try:
                    with self._being_born():
                        process = self._start()
                except OutboxNotWritable as error:
                    is_full = self.disk is not None and self.disk.is_full
                    self.oracle.expect(is_full, f"no process could start: {error}")
                    # Under a new name the outbox writes everything that waits once more, and the
                    # disk is full. So a service would try again.
                    await trio.sleep(RESTART_S)
                    continue
                nursery.start_soon(self._run, process)
                await process.ended.wait()
                if not self._is_ending:
                    await trio.sleep(RESTART_S)

    @contextmanager
    def _being_born(self) -> Generator[None, None, None]:
        if self.disk is None:
            yield
            return
        with self.disk.powered(), self.disk.elsewhere():
            yield

    def _start(self) -> Process:
        self.count += 1
        self.computer_name = self._next_name
        damaged = self._damaged_copies()
        outbox = self._open_outbox()
        found = outbox.run_id
        old = outbox.unit if isinstance(outbox, DurableOutbox) else None
        is_renamed = old not in (None, self.engine_id)
        kept = self._kept(str(old))
        self.oracle.begin_life(durable=self.disk is not None, outbox=outbox.statistics())
        if self.disk is not None:
            is_damaged = self._damaged_copies() != damaged
            if is_damaged:
                self.oracle.note_damage()
            in_doubt = self._in_doubt or is_damaged
            self.oracle.find_open_run(found, self._open_run, in_doubt=in_doubt)
            if found != self._open_run:
                self.oracle.taint = True  # no process will end the aggregator's run
        resumes = self.rng.random() < 0.3 and not is_renamed and self.invited is None
        resumed = found if resumes else None
        if found is not None and resumed is None and not is_renamed:
            # The runner ends the run with a message that only the outbox makes.
            self.oracle.make_end_of_run(found)
            sometimes("run ended for it")
        sometimes("run resumed", resumed)
        try:
            self.now = process = self._make(outbox, resumed)
        except BaseException:
            outbox.close()
            raise
        if is_renamed:
            new = [file for file in self._kept(str(old)) if file not in kept]
            self.oracle.part_from(_messages_in(new), outbox.statistics())
        self.born.notify()
        self.oracle.trace.note("process", self.count, "starts")
        return process

    def _kept(self, what: str) -> list[Path]:
        """Return the files of this kind that are kept beside the outbox, without their WALs."""
        if self.disk is None:
            return []
        path = self.disk.path
        files = sorted(path.parent.glob(f"{path.name}.{what}*"))
        return [file for file in files if not file.name.endswith("-wal")]

    def _damaged_copies(self) -> list[tuple[str, int]]:
        """Return the copies of damaged outboxes by name and inode: the oldest may be replaced."""
        return [(file.name, file.stat().st_ino) for file in self._kept("damaged")]

    def _make(self, outbox: Outbox, resumed: str | None) -> Process:
        engine: BusyEngine | Guest
        if self.invited is not None:
            engine = self._welcome(self.invited, lambda: process)
        else:
            engine = BusyEngine(
                computer_name=self.computer_name,
                data_log_interval_s=DATA_LOG_INTERVAL_S,
                clock=self.wall_clock,
                count=self.number,
                made=lambda message: self._note_made(process, message),
                rng=self.chance(f"engine {self.count}"),
                run_logs=RunLogTimes(self.oracle.expect),
                run_id=resumed,
            )
        dispatcher = EngineDispatcher(
            "aggregator.example",
            handlers=engine,
            open_stream=lambda host, port: self._open_stream(process, host, port),
        )
        outbox.warnings = _OneOfAKind(
            number=self.number, made=lambda message: self._note_made(process, message)
        )
        witness = Witness(dispatcher, self.oracle)
        runner = EngineRunner(
            witness,
            engine,
            engine,
            outbox=outbox,
            resume_run=resumed,
            timing=Timing(steady_s=self.usual.steady_s),
            offload=self.disk.offload if self.disk is not None else offload_to_thread,
            rng=self.chance(f"waits {self.count}"),
            clock=self.wall_clock,
        )
        process = Process(runner, engine, outbox, witness)
        return process

    def _welcome(self, invited: Invitation, process: Callable[[], Process]) -> Guest:
        return Guest(
            engine=invited.make(self.wall_clock),
            invited=invited,
            manners=Manners(self.oracle, self.wall_clock, self._run_ids),
            made=lambda message: self._note_made(process(), message),
            count=self.number,
            computer_name=self.computer_name,
            interval_s=DATA_LOG_INTERVAL_S,
            is_over=lambda: process().is_over,
        )

    def _note_made(self, process: Process, message: em.EngineMessage) -> None:
        if not process.is_over:
            if self.invited is not None and not isinstance(message, em.TagsUpdatedMsg):
                self.note_size(len(encode_body(message)))
            self.events_cost += cost(message)
            self.oracle.make(message)
            self.stored.make(message, process.engine.run_id)

    def _open_outbox(self) -> Outbox:
        if self.disk is None:
            return MemoryOutbox(self.usual.bytes_max)
        return DurableOutbox(
            path=self.disk.path,
            bytes_max=self.usual.bytes_max,
            clock=trio.current_time,
            connect=self.disk.connect,
        )

    async def _open_stream(self, process: Process, host: str, port: int) -> trio.abc.Stream:
        if process.is_over:
            raise OSError("the process is dead")
        stream = await self.network.open_stream(host, port)
        wire = self.network.wires[-1]
        process.wires = [*(old for old in process.wires if old.is_held), wire]
        if process.is_over:
            wire.reset()
        return stream

    async def _run(self, process: Process) -> None:
        how: Death = "stopped"
        try:
            with process.scope:
                try:
                    await self._live(process)
                except* EngineBug:
                    how = "raised"
        finally:
            with self.disk.elsewhere() if self.disk is not None else nullcontext():
                process.outbox.close()
        self._note_end(process, how)

    async def _live(self, process: Process) -> None:
        with process.runner.state_changes() as changes:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._watch_states, process, changes)
                nursery.start_soon(self._work, process)
                try:
                    await process.runner.run()
                finally:
                    process.working.cancel()

    async def _work(self, process: Process) -> None:
        with process.working:
            await process.engine.work(process.runner)

    async def _watch_states(
        self, process: Process, changes: "trio.MemoryReceiveChannel[object]"
    ) -> None:
        async for change in changes:
            if not process.is_over:
                self.oracle.change_state(getattr(change, "before"), getattr(change, "after"))  # noqa: B009

    def _note_end(self, process: Process, how: Death) -> None:
        """Note the end of a process, once: a dead process may unwind for a while."""
        if process.is_over:
            return
        self.oracle.trace.note("process", "ends:", how)
        outbox = process.outbox.statistics()
        self.oracle.end_life(how, durable=self.disk is not None, outbox=outbox)
        self._open_run = process.engine.run_id
        is_slow = how == "killed" and self.oracle.has_slow_disk
        self._in_doubt = how == "torn" or is_slow or outbox.degraded is not None
        process.is_over, process.witness.is_on = True, False
        self.now = None
        process.ended.set()

    # Ways to end

    async def end(self) -> Process | None:
        """Stop the process cleanly, start no other, and return it."""
        self._is_ending = True
        process = self.now
        await self.stop()
        return process

    async def stop(self) -> None:
        """Stop the process cleanly, wait for its end, and check that it took no longer than it may.

        Do nothing if no process lives.
        """
        process = self.now
        if process is not None:
            began, was_waiting = trio.current_time(), process.outbox.statistics().waiting
            process.working.cancel()
            self.oracle.is_stopping = True
            await process.runner.shutdown()
            await process.ended.wait()
            took_s = trio.current_time() - began
            waiting = process.outbox.statistics().waiting
            sometimes("flush cut", waiting and took_s >= Timing().flush_s)
            sometimes("flushed", was_waiting and not waiting)
            in_time = took_s <= STOP_S + ROUNDING_S
            self.oracle.expect(in_time, f"the end of a process took {took_s:.1f} s")

    def kill(self, *, power: bool, torn: bool = False) -> None:
        """Kill the process at once.

        With `power` or `torn` its computer loses power, so that the aggregator hears nothing.
        """
        process = self.now
        if process is None:
            return
        self._note_end(process, "torn" if torn else "killed")
        for wire in process.wires:
            if power or torn:
                wire.up.lose()
                wire.down.stall()
                wire.down.lose()
            else:
                wire.reset()
        if self.disk is not None:
            self.disk.die(power=power or torn)
        process.working.cancel()
        process.scope.cancel()

    def tear(self) -> None:
        """Lose the power in mid-commit; called from within a step of the process that dies."""
        self.kill(power=True, torn=True)

    def moved_at(self) -> float:
        """Return when a larger piece of one of the process's messages last left (s)."""
        wires = self.now.wires if self.now is not None else []
        return max((wire.up.moved_at for wire in wires), default=-math.inf)

    def forget_the_dead(self) -> None:
        """Reset the connections of dead processes, so that the aggregator hears of their ends."""
        for wire in list(self.network.wires):
            if wire.up.stage == "lost":
                wire.reset()

    def with_engine(self, do: Callable[[BusyEngine, EngineRunner], object]) -> list[BusyEngine]:
        """Do something with the simulated engine if its process lives.

        Return the engine in a list, which is empty if none lives or if the engine is a guest.
        """
        process = self.now
        if process is None or process.runner.state in ("Stopped", "ShutdownComplete"):
            return []
        if isinstance(process.engine, Guest):
            return []
        do(process.engine, process.runner)
        return [process.engine]


def _messages_in(files: list[Path]) -> list[tuple[Key, ...]]:
    """Return the keys of each message that waits in the outboxes of ended processes."""
    messages: list[tuple[Key, ...]] = []
    for file in files:
        lines = io.StringIO()
        export(file, lines)
        for body in lines.getvalue().splitlines():
            kind = body.rsplit('"_type":"', 1)[1].partition('"')[0]
            messages.append(keys_of_body(kind, body))
    return messages
