"""Real engines, a real aggregator, and faults that are drawn from a seed.

The seed gives the schedule, but the machine decides the exact times. In the end the aggregator's
database is judged.
"""

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Generator
from contextlib import asynccontextmanager, contextmanager, suppress
from pathlib import Path
from random import Random

import httpx2
import trio
from attrs import define, field

from tests.faults.proxy import Proxy
from tests.helpers.install import VERSION, aggregator_command, both_of_version
from tests.interop._aggregator import RealAggregator, eventually
from tests.interop._unit import open_api
from trio_runner._outbox_sqlite import summarize

from .judge import Doubts, Judge
from .processes import Broken, Engine
from .unit import NAME

SKID, DEMO = "Storm skid", "DemoUod"

DISK_BYTES = 4 * 1024 * 1024
"""The size of the outboxes' disk, where we may make one (bytes)."""

HEALED_S = 120.0
"""How soon after the last fault everything must be delivered (s)."""


@contextmanager
def small_disk(folder: Path) -> Generator[bool, None, None]:
    """Make a small disk of a folder while the block runs; yield whether we could: it takes root."""
    mount, umount = shutil.which("mount"), [str(shutil.which("umount")), "-l"]
    command = [str(mount), "-t", "tmpfs", "-o", f"size={DISK_BYTES}", "tmpfs", str(folder)]
    is_small = mount is not None and os.geteuid() == 0 and subprocess.call(command) == 0
    try:
        yield is_small
    finally:
        if is_small:
            subprocess.check_call([*umount, str(folder)])


@define(eq=False)
class Storm:
    """A storm: its engines, its aggregator, and what has happened to them."""

    seed: int
    folder: Path
    proxy: Proxy
    aggregator: RealAggregator
    has_small_disk: bool
    rng: Random = field(init=False)
    unit: Engine = field(init=False)
    engines: list[Engine] = field(init=False)
    happened: dict[str, int] = field(factory=dict, init=False)
    """How often each fault has happened."""
    disk_full: list[tuple[float, float]] = field(factory=list, init=False)
    _busy: set[str] = field(factory=set, init=False)
    """The targets that something is happening to."""

    def __attrs_post_init__(self) -> None:
        self.rng = Random(self.seed)
        at = ["-ap", str(self.proxy.port), "--outbox"]
        unit = [str(self.proxy.port), self._outbox("unit"), str(self.notes), str(self.seed)]
        skid = ["simulated", "--name", SKID, *at, self._outbox("skid")]
        demo = ["engine", *at, self._outbox("demo")]
        python, other = sys.executable, str(both_of_version(VERSION) / "python")
        self.unit = self._engine(NAME, "ready", [python, "-m", "tests.storm.unit", *unit])
        self.engines = [
            self.unit,
            self._engine(SKID, "Ctrl-C ends", [python, "-m", "trio_runner", *skid]),
            self._engine(DEMO, "The outbox is", [other, "-m", "trio_runner", *demo]),
        ]

    @property
    def disk(self) -> Path:
        return self.folder / "disk"

    @property
    def notes(self) -> Path:
        return self.folder / "notes"

    def _outbox(self, name: str) -> str:
        return str(self.disk / f"{name}.outbox")

    def _engine(self, name: str, ready: str, command: list[str]) -> Engine:
        place = command.index("--outbox") + 1 if "--outbox" in command else -3
        return Engine(name, command, ready, Path(command[place]), self.folder / f"{name}.log")

    async def rage(self, duration_s: float) -> None:
        """Let faults happen for duration_s (s), and return when all are over.

        Raises a group with Broken if an engine ends by itself or does not stop cleanly.
        """
        async with trio.open_nursery() as nursery:
            until = trio.current_time() + duration_s
            while trio.current_time() < until:
                await trio.sleep(self.rng.uniform(0.5, 3))
                for engine in self.engines:
                    engine.check()
                fault = self.rng.choice(FAULTS)
                nursery.start_soon(fault, self, Random(self.rng.random()))

    @contextmanager
    def only(self, target: str, what: str) -> Generator[bool, None, None]:
        """Let only one thing at a time happen to a target; yield whether this one may."""
        is_free = target not in self._busy
        if is_free:
            self._busy.add(target)
            self.happened[what] = self.happened.get(what, 0) + 1
        try:
            yield is_free
        finally:
            if is_free:
                self._busy.discard(target)

    async def judge(self) -> str:
        """End all runs, wait until everything is delivered, and return how much there was.

        Raises Broken if something is still missing after `HEALED_S`.
        """
        for engine in self.engines:
            engine.kill()
            engine.start()
        judge, doubts = Judge(self.aggregator.database, self.notes), self._doubts()

        async def complaints() -> list[str]:
            return [*self._waiting(), *judge.complaints(doubts)]

        await self.unit.stop()
        self.unit.command[-1] = "quiet"
        self.unit.start()
        try:
            await eventually(complaints, lambda said: not said, within_s=HEALED_S)
        except AssertionError as error:
            raise Broken(f"{error}\n{self.happened}") from None
        for engine in self.engines:
            await engine.stop()
        return judge.counts()

    def _doubts(self) -> Doubts:
        return Doubts(list(self.unit.killed_at), list(self.disk_full))

    def _waiting(self) -> list[str]:
        waiting = {engine.name: summarize(engine.outbox).waiting for engine in self.engines}
        return [f"{count} messages of {name} wait" for name, count in waiting.items() if count > 5]


Fault = Callable[[Storm, Random], Awaitable[None]]
FAULTS: list[Fault] = []


def fault(happen: Fault) -> Fault:
    """Add a fault to the list."""
    FAULTS.append(happen)
    return happen


@fault
async def kill_engine(storm: Storm, rng: Random) -> None:
    """Kill an engine, and start it again after a while."""
    engine = rng.choice(storm.engines)
    with storm.only(engine.name, "kill_engine") as is_free:
        if is_free:
            engine.kill()
            await trio.sleep(rng.uniform(0, 3))
            engine.start()
            await trio.sleep(1)


@fault
async def stop_engine(storm: Storm, rng: Random) -> None:
    """End an engine cleanly, and start it again."""
    engine = rng.choice(storm.engines)
    with storm.only(engine.name, "stop_engine") as is_free:
        if is_free:
            await engine.stop()
            await trio.sleep(rng.uniform(0, 3))
            engine.start()


@fault
async def freeze_engine(storm: Storm, rng: Random) -> None:
    """Freeze an engine's process, as a sleeping computer does."""
    engine = rng.choice(storm.engines)
    with storm.only(engine.name, "freeze_engine") as is_free:
        if is_free:
            engine.signal(signal.SIGSTOP)
            await trio.sleep(rng.uniform(0.2, 15))
            engine.signal(signal.SIGCONT)


@fault
async def press(storm: Storm, rng: Random) -> None:
    """Press a button of a unit that has buttons."""
    name, button = rng.choice((SKID, DEMO)), rng.choice(("Start", "Start", "Stop", "Pause"))
    storm.happened["press"] = storm.happened.get("press", 0) + 1
    with suppress(httpx2.HTTPError, AssertionError), trio.move_on_after(10):
        async with open_api(storm.aggregator, name) as api:
            await api.press(button)


@fault
async def kill_aggregator(storm: Storm, rng: Random) -> None:
    """Kill the aggregator or end it cleanly, and start it on the same database."""
    with storm.only("aggregator", "kill_aggregator") as is_free:
        if is_free:
            end = rng.choice((storm.aggregator.kill, storm.aggregator.stop))
            await trio.to_thread.run_sync(end)
            await trio.sleep(rng.uniform(0, 5))
            await trio.to_thread.run_sync(storm.aggregator.start)


@fault
async def freeze_aggregator(storm: Storm, rng: Random) -> None:
    """Let the aggregator answer nothing for a while."""
    with storm.only("aggregator", "freeze_aggregator") as is_free:
        if is_free:
            storm.aggregator.signal(signal.SIGSTOP)
            await trio.sleep(rng.uniform(0.2, 20))
            storm.aggregator.signal(signal.SIGCONT)


@fault
async def cut(storm: Storm, rng: Random) -> None:
    """Cut all connections, cleanly or with a reset."""
    storm.happened["cut"] = storm.happened.get("cut", 0) + 1
    rng.choice((storm.proxy.cut, storm.proxy.reset))()


@fault
async def refuse(storm: Storm, rng: Random) -> None:
    """Cut all connections, and refuse new ones for a while."""
    with storm.only("listening", "refuse") as is_free:
        if is_free:
            async with storm.proxy.refusing():
                storm.proxy.cut()
                await trio.sleep(rng.uniform(0, 5))


@fault
async def hold_up(storm: Storm, rng: Random) -> None:
    """Let the newest connection lose everything one way, stand still, or be slow for a while."""
    proxy = storm.proxy
    with storm.only("line", "hold_up") as is_free:
        if is_free and proxy.connections:
            way = rng.choice(
                (
                    proxy.half_open(up=True),
                    proxy.half_open(down=True),
                    proxy.back_pressure(),
                    proxy.slow(bytes_per_s=rng.uniform(2e3, 1e5), latency_s=rng.uniform(0, 0.5)),
                )
            )
            with way:
                await trio.sleep(rng.uniform(0.2, 15))


@fault
async def fill_disk(storm: Storm, rng: Random) -> None:
    """Fill the disk of the outboxes for a while."""
    if not storm.has_small_disk:
        return
    with storm.only("disk", "fill_disk") as is_free:
        if is_free:
            began, filler = time.time(), storm.disk / "filler"
            with suppress(OSError), filler.open("wb", buffering=0) as file:
                while file.write(bytes(4096)):
                    pass
            await trio.sleep(rng.uniform(0.2, 10))
            filler.unlink()
            storm.disk_full.append((began, time.time()))


@asynccontextmanager
async def gathering(seed: int, folder: Path) -> AsyncGenerator[Storm, None]:
    """Start everything that a storm needs; end it after the block."""
    (folder / "disk").mkdir()
    with (
        small_disk(folder / "disk") as has_small_disk,
        RealAggregator(aggregator_command(), folder) as aggregator,
    ):
        async with trio.open_nursery() as nursery:
            proxy = Proxy(aggregator.port)
            await nursery.start(proxy.run)
            storm = Storm(seed, folder, proxy, aggregator, has_small_disk)
            try:
                for engine in storm.engines:
                    engine.start()
                yield storm
            finally:
                for engine in storm.engines:
                    engine.kill()
            nursery.cancel_scope.cancel()
