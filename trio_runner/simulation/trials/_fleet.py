"""A fleet: whole runners that all lose one aggregator, on a simulated network, in virtual time.

`_herd` models the dials alone. This shows that its results hold for whole runners, that nothing is
lost, and that no unit starves.
"""

import math
from random import Random

import trio
import trio.testing
from attrs import define, field, frozen

from trio_runner._backoff import Turns
from trio_runner._plain_engine import PlainEngine
from trio_runner._runner import EngineRunner
from trio_runner._timing import Timing
from trio_runner.net import EngineDispatcher, Session
from trio_runner.protocol import engine_messages as em
from trio_runner.protocol import models as mdl
from trio_runner.simulation.stand_ins._change import Change
from trio_runner.simulation.stand_ins._network import Network
from trio_runner.simulation.stand_ins._server import Aggregator
from trio_runner.simulation.trials._herd import CONNECTIONS, SYN_S, Account, Loss
from trio_runner.simulation.trials._process import EPOCH
from trio_runner.simulation.trials._simulate import no_logging, repeatable

SAMPLES_S = 5.0
"""The time between two samples of a unit (s): long, since only the dials matter here."""

TIMING = Timing(tick_s=1, steady_s=SAMPLES_S, offline_s=SAMPLES_S)

START_S = 10.0
"""The time over which processes start (s)."""

SETTLED_S = 15.0
"""How long links live before they are lost (s): so long that the backoff begins anew."""

EVENTS = 3
"""How many events each unit sends: before the loss, while it is away, and when it is back."""


@frozen
class FleetReport:
    """How a fleet came back, and what became of its data."""

    account: Account
    events_lost: int
    samples_lost: int
    samples_least: int
    """How many samples arrived of the unit with the fewest."""
    samples_most: int
    """How many samples arrived of the unit with the most."""

    @property
    def violation(self) -> str | None:
        """The promise that was broken, or None."""
        if self.events_lost or self.samples_lost:
            return f"{self.events_lost} events and {self.samples_lost} samples were lost"
        if self.samples_least < self.samples_most / 2:
            return f"one unit had {self.samples_least} samples, another {self.samples_most}"
        return None


def run_fleet(units: int, loss: Loss, *, in_one_process: bool = True, seed: int = 0) -> FleetReport:
    """Let this many units lose their aggregator, and return how they came back.

    The same arguments give the same report. Call it outside Trio.
    """
    with repeatable(seed), no_logging():
        fleet = _Fleet(loss, units, seed, in_one_process=in_one_process)
        clock = trio.testing.MockClock(autojump_threshold=0)
        return trio.run(fleet.run, clock=clock, strict_exception_groups=True)


@define(eq=False)
class _OneDesk(Aggregator):
    """An aggregator that starts to serve `rate` connections a second (1/s), in their order."""

    rate: float = math.inf
    _free_at: float = field(default=-math.inf, init=False)

    async def serve(self, stream: trio.abc.Stream) -> None:
        self._free_at = max(self._free_at, trio.current_time()) + 1 / self.rate
        await trio.sleep_until(self._free_at)
        await super().serve(stream)


@define(eq=False, slots=False)
class _Unit(PlainEngine):
    """A unit whose one tag counts its samples."""

    count: int = 0
    runner: EngineRunner = field(init=False)
    dialled: list[float] = field(factory=list, init=False)
    arrived: list[float] = field(factory=list, init=False)
    back: float = math.inf

    def read_tags(self) -> list[mdl.TagValue]:
        """Return the count."""
        now = self.clock()
        return [mdl.TagValue(name="Count", tick_time=now, value=self.count, value_unit="")]

    def create_tag_updates_msg(self, run_id: str | None) -> em.TagsUpdatedMsg | None:
        """Return a sample."""
        self.count += 1
        return super().create_tag_updates_msg(run_id)

    def create_tag_updates_snapshot_msg(self) -> em.TagsUpdatedMsg:
        """Return a sample."""
        self.count += 1
        return super().create_tag_updates_snapshot_msg()


class _Dispatcher(EngineDispatcher):
    """A dispatcher that notes when its unit dials."""

    def __init__(self, unit: _Unit, fleet: "_Fleet") -> None:
        super().__init__("aggregator.example", handlers=unit, open_stream=self._open_stream)
        self._unit = unit
        self._fleet = fleet
        self._is_first = False

    async def dial(
        self,
        registration: em.RegisterEngineMsg,
        timing: Timing,
        *,
        task_status: trio.TaskStatus[Session] = trio.TASK_STATUS_IGNORED,
    ) -> None:
        self._unit.dialled.append(trio.current_time())
        self._is_first = True
        await super().dial(registration, timing, task_status=task_status)

    async def _open_stream(self, host: str, port: int) -> trio.abc.Stream:
        await self._fleet.until_heard()
        stream = await self._fleet.network.open_stream(host, port)
        if self._is_first:
            self._is_first = False
            self._unit.arrived.append(trio.current_time())
        return stream


@define(eq=False)
class _Fleet:
    """The units, and what happens to them."""

    loss: Loss
    size: int
    seed: int
    in_one_process: bool = field(kw_only=True)
    network: Network = field(init=False)
    _units: list[_Unit] = field(factory=list, init=False)
    _aggregator: _OneDesk = field(factory=_OneDesk, init=False)
    _is_silent: bool = field(default=False, init=False)
    _change: Change = field(factory=Change, init=False)
    """Notified when a unit is back."""

    async def run(self) -> FleetReport:
        """Start all units, let them lose the aggregator, wait until all are back, and stop all."""
        async with trio.open_nursery() as nursery:
            self.network = Network(self._aggregator, nursery)
            for number in range(self.size):
                nursery.start_soon(self._live, number)
            await self._until_all_are_back()
            await trio.sleep(SETTLED_S)
            self._tell_an_event()
            began = await self._lose()
            await self._until_all_are_back()
            self._tell_an_event()
            await trio.sleep(2 * SAMPLES_S)
            for unit in self._units:
                nursery.start_soon(unit.runner.shutdown)
            for unit in self._units:
                await unit.runner.shutdown()
            nursery.cancel_scope.cancel()
        return self._report(began)

    def _chance(self, what: str) -> Random:
        return Random(f"{self.seed} {what}")  # noqa: S311 - nothing secret

    async def _live(self, number: int) -> None:
        unit = _Unit(
            f"Unit {number}",
            computer_name="host",
            data_log_interval_s=SAMPLES_S,
            clock=lambda: EPOCH + trio.current_time(),
        )
        unit.runner = EngineRunner(
            _Dispatcher(unit, self),
            unit,
            unit,
            timing=TIMING,
            rng=self._chance(f"waits {number}"),
            clock=unit.clock,
        )

        async def note_back() -> None:
            unit.back = trio.current_time()
            self._change.notify()

        unit.runner.connected_callback = unit.runner.reconnected_callback = note_back
        self._units.append(unit)
        if not self.in_one_process:
            unit.runner._tree.connector.turns = Turns()
            await trio.sleep(self._chance(f"start {number}").uniform(0, START_S))
        await unit.runner.run()

    async def _until_all_are_back(self) -> None:
        await self._change.wait_until(
            lambda: (
                len(self._units) == self.size and all(unit.back < math.inf for unit in self._units)
            )
        )

    def _tell_an_event(self) -> None:
        for unit in self._units:
            unit.runner.on_notify_command("Look")

    async def _lose(self) -> float:
        """Lose all links, wait until the aggregator can be reached again, and return the start."""
        began = trio.current_time()
        for unit in self._units:
            unit.back = math.inf
            unit.dialled.clear()
            unit.arrived.clear()
        self._aggregator.rate = CONNECTIONS * self.loss.rate
        self._is_silent = self.loss.is_silent
        if self.loss.is_silent:
            self.network.reset()
        else:
            self._aggregator.down()
            self._aggregator.kill()
        await trio.sleep(self.loss.away_s / 2)
        self._tell_an_event()
        await trio.sleep_until(began + self.loss.away_s)
        self._is_silent = False
        self._aggregator.up()
        return began

    async def until_heard(self) -> None:
        """Wait until a SYN is heard, sent again as often as an operating system sends it."""
        began = trio.current_time()
        for syn_s in SYN_S:
            await trio.sleep_until(began + syn_s)
            if not self._is_silent:
                return
        await trio.sleep_forever()

    # The report

    def _report(self, began: float) -> FleetReport:
        samples, events_lost, samples_lost = [], 0, 0
        for unit in self._units:
            record = self._aggregator.engine(unit.runner.statistics().engine_id)
            counts = [
                tag.value
                for received in record.received
                if isinstance(received.message, em.TagsUpdatedMsg) and received.refused is None
                for tag in received.message.tags
            ]
            samples.append(len(counts))
            samples_lost += unit.count - len(set(counts))
            events_lost += EVENTS - len({event.sequence_number for event in record.notifications})
        account = Account(
            dialled=[at - began for unit in self._units for at in unit.dialled],
            arrived=[at - began for unit in self._units for at in unit.arrived],
            back=[unit.back - began for unit in self._units],
            away_s=self.loss.away_s,
        )
        return FleetReport(account, events_lost, samples_lost, min(samples), max(samples))
