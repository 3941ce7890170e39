"""People at the aggregator's pages: they press buttons, and an engine has to answer in time."""

import math
from collections.abc import Generator
from contextlib import contextmanager
from random import Random

import trio
from attrs import define, field

from trio_runner.protocol import MessageBase
from trio_runner.protocol import aggregator_messages as am
from trio_runner.simulation.stand_ins._network import Network
from trio_runner.simulation.stand_ins._server import Aggregator
from trio_runner.simulation.trials._oracle import WORK_S, Oracle

CALL_S = 2.0
"""What an aggregator gives an engine to answer a call (s)."""

HANDLER_S = 1.5
"""What an engine's handler has of that (s)."""

EVERY_S = 15.0
"""Between two buttons, on average (s)."""

SETTLED_S = 12.0
"""So long after trouble (s) a link may still be one that suffers from it: 10 s until that shows."""


@define(eq=False)
class Callers:
    """Calls the engine, and checks that each answer comes in time unless there is trouble."""

    aggregator: Aggregator
    network: Network
    oracle: Oracle
    engine_id: str
    calls: int = field(default=0, init=False)
    _troubles: int = field(default=0, init=False)
    _trouble_until: float = field(default=-math.inf, init=False)

    async def press_buttons(self, rng: Random) -> None:
        """Press a button now and then."""
        while True:
            await trio.sleep(rng.expovariate(1 / EVERY_S))
            await self.call(am.InjectCodeMsg(pcode="Mark: A"))

    async def call(self, message: MessageBase) -> None:
        """Call the engine as the page does, and check that the answer comes in time."""
        was_calm = self.is_calm
        self.calls += 1
        try:
            answer = await self.aggregator.call(self.engine_id, message)
        except trio.BrokenResourceError:
            return  # the connection ended
        except trio.TooSlowError:
            late = was_calm and self.is_calm and not self._is_far
            self.oracle.expect(not late, f"a call was not answered within {CALL_S:g} s")
            return
        self.oracle.trace.note(f"call answered {type(answer).__name__}")

    @contextmanager
    def trouble(self) -> Generator[None, None, None]:
        """Mark a time in which an answer to the aggregator may be late through no fault of ours."""
        self._troubles += 1
        try:
            yield
        finally:
            self._troubles -= 1
            self._trouble_until = trio.current_time() + SETTLED_S

    @property
    def _is_far(self) -> bool:
        """Whether an answer that takes all the time that a handler has would be too late."""
        way_s = self.network.latency_s + self.network.jitter_s
        return HANDLER_S + WORK_S + 2 * way_s > CALL_S

    @property
    def is_calm(self) -> bool:
        """Whether there is no trouble, and none that a link may still suffer from."""
        # A process without power leaves such a wire.
        dead = any(wire.up.stage == "lost" for wire in self.network.wires)
        return not (dead or self._troubles or trio.current_time() < self._trouble_until)
