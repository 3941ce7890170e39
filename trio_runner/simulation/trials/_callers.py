"""People at the aggregator's pages, who press buttons; an engine must answer in time."""

import math
from collections.abc import Callable, Generator
from contextlib import contextmanager
from random import Random

import trio
from attrs import define, field

from trio_runner.protocol import ErrorMessage, MessageBase, SuccessMessage
from trio_runner.protocol import aggregator_messages as am
from trio_runner.simulation.stand_ins._network import BUFFER_BYTES, Network
from trio_runner.simulation.stand_ins._server import Aggregator
from trio_runner.simulation.stand_ins._sometimes import sometimes
from trio_runner.simulation.trials._oracle import Oracle

CALL_S = 2.0
"""How long an aggregator gives an engine to answer a call (s)."""

ANSWER_S = 1.5
"""How soon an engine answers a call even if its handler goes on (s)."""

WORK_S = 0.25
"""How much work from us the aggregator may have to do before it sees our answer (s)."""

EVERY_S = 15.0
"""The average time between two buttons (s)."""

EVERY_RUN_S = 20.0
"""The average time between pressing Start and Stop, and Stop and Start (s)."""

THIN_BYTES_S = 1e6
"""On a thinner path, a large message takes seconds to leave (bytes a second)."""

SETTLED_S = 12.0
"""How long after trouble a link may still suffer from it (s); it takes 10 s to show."""


@define(eq=False)
class Spell:
    """A condition that lasts for a while and is felt for longer; several causes may overlap."""

    _lasting: int = field(default=0, init=False)
    _felt_until: float = field(default=-math.inf, init=False)

    @contextmanager
    def lasting(self) -> Generator[None, None, None]:
        """Let the condition last while the block runs."""
        self._lasting += 1
        try:
            yield
        finally:
            self._lasting -= 1
            self._felt_until = trio.current_time() + SETTLED_S

    @property
    def ended_at(self) -> float:
        """When a cause of the condition last ended (s)."""
        return self._felt_until - SETTLED_S

    @property
    def is_felt(self) -> bool:
        """Whether the condition lasts, or a link may still suffer from it."""
        return bool(self._lasting) or trio.current_time() < self._felt_until


@define(eq=False)
class Callers:
    """Calls the engine, and checks that each answer comes in time unless there is trouble."""

    aggregator: Aggregator
    network: Network
    oracle: Oracle
    engine_id: Callable[[], str]
    calls: int = field(default=0, init=False)
    slow_handlers: int = field(default=0, init=False)
    """How many faults slow down the handlers."""
    _resting: int = field(default=0, init=False)
    _operating: trio.Lock = field(factory=trio.Lock, init=False)
    """Held while a run is begun or ended."""
    trouble: Spell = field(factory=Spell, init=False)
    """Lasts while an answer to the aggregator may be late through no fault of ours."""
    thin_line: Spell = field(factory=Spell, init=False)
    """Lasts while an answer may be late because the path is thin."""
    long_way: Spell = field(factory=Spell, init=False)
    """Lasts while an answer may be late because the aggregator is far away."""

    async def press_buttons(self, rng: Random) -> None:
        """Press a button now and then, until cancelled."""
        while True:
            await trio.sleep(rng.expovariate(1 / EVERY_S))
            if not self._resting:
                await self.call(am.InjectCodeMsg(pcode="Mark: A"))

    async def start_and_stop(self, rng: Random) -> None:
        """Press Start or Stop now and then, by what the page shows, until cancelled."""
        while True:
            await trio.sleep(rng.expovariate(1 / EVERY_RUN_S))
            engine = self.aggregator.engines.get(self.engine_id())
            is_running = engine is not None and engine.unit.control_state.is_running
            async with self._operating:
                await self.call(am.ExecuteControlCommandMsg(name="Stop" if is_running else "Start"))

    async def send_operators_home(self) -> None:
        """Let nobody begin or end a run from now on; return when the last such call has ended."""
        await self._operating.acquire()

    async def call(self, message: MessageBase) -> None:
        """Call the engine as the page does, and check that the answer comes in time."""
        was_calm, began = self.is_calm, trio.current_time()
        might_expect = self._may_expect_an_answer  # the distance may change meanwhile
        self.calls += 1
        try:
            answer = await self.aggregator.call(self.engine_id(), message)
        except trio.BrokenResourceError:
            sometimes("call cut")
            return  # the connection ended
        except trio.TooSlowError:
            may_expect = might_expect and self._may_expect_an_answer
            may_expect = may_expect and not self._is_line_taken(began)
            sometimes("call late")
            late = was_calm and self.is_calm and may_expect
            self.oracle.expect(not late, f"a call was not answered within {CALL_S:g} s")
            return
        sometimes("call answered", isinstance(answer, SuccessMessage))
        sometimes("call refused", isinstance(answer, ErrorMessage))
        sometimes("handler late", "did not carry this out" in str(answer))
        sometimes("handlers many", "still busy" in str(answer))
        self.oracle.trace.note("call", "answered", type(answer).__name__)

    @property
    def _may_expect_an_answer(self) -> bool:
        """Whether an answer could have come in time over this distance."""
        network = self.network
        slow_s = ANSWER_S if self.slow_handlers else 0.0
        return slow_s + WORK_S + 2 * (network.latency_s + network.jitter_s) <= CALL_S

    def _is_line_taken(self, since: float) -> bool:
        """Tell whether a large message was leaving for long: no answer can overtake it."""
        network = self.network
        moved_at = max((wire.up.moved_at for wire in network.wires), default=-math.inf)
        way_s = network.latency_s + network.jitter_s
        # No more than the buffer holds is on the way at once.
        bytes_per_s = min(network.bytes_per_s, BUFFER_BYTES / way_s if way_s else math.inf)
        leaves_s = self.oracle.bytes_under_way / bytes_per_s
        is_thin = bytes_per_s < THIN_BYTES_S or leaves_s > WORK_S
        return is_thin and moved_at >= since

    @contextmanager
    def resting(self) -> Generator[None, None, None]:
        """Let `press_buttons` press no button while the block runs."""
        self._resting += 1
        try:
            yield
        finally:
            self._resting -= 1

    @property
    def is_calm(self) -> bool:
        """Whether nothing makes answers late."""
        return self.is_but_thin and not self.thin_line.is_felt

    @property
    def is_but_thin(self) -> bool:
        """Whether nothing makes answers late, except perhaps a thin path."""
        return self.is_untroubled and not self.long_way.is_felt

    @property
    def is_but_far(self) -> bool:
        """Whether nothing makes answers late, except perhaps a long distance."""
        return self.is_untroubled and not self.thin_line.is_felt

    @property
    def is_untroubled(self) -> bool:
        """Whether nothing makes answers late, except perhaps the path's length and width."""
        # A process that loses power leaves such a wire.
        dead = any(wire.up.stage == "lost" for wire in self.network.wires)
        return not (dead or self.trouble.is_felt)
