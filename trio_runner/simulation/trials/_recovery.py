"""Checks after the last fault: the runner is back in time, and ends with nothing left."""

import trio
from attrs import define

from trio_runner.simulation.stand_ins._server import Aggregator
from trio_runner.simulation.trials._conditions import Conditions
from trio_runner.simulation.trials._oracle import Oracle
from trio_runner.simulation.trials._process import RESTART_S, Processes
from trio_runner.simulation.trials._state_changes import WAIT_S


@define(eq=False)
class RecoveryCheck:
    """Checks that the effects of the faults are over once the faults are."""

    oracle: Oracle
    processes: Processes
    aggregator: Aggregator
    usual: Conditions

    async def check_back(self) -> float:
        """Check that a fresh event arrives and the state is steady in time; return the time (s)."""
        began = trio.current_time()
        self.oracle.trace.note("faults", "ended")
        await trio.lowlevel.checkpoint()  # first run the tasks that the last fault's end has woken
        await self.processes.born.wait_until(lambda: self.processes.now is not None)
        process = self.processes.now
        assert process is not None
        process.engine.notify(process.runner)
        fresh = self.oracle.made[-1]
        waiting = process.runner.statistics().outbox.waiting
        patience_s = (
            WAIT_S + self.oracle.state.dial_s + RESTART_S + 2 * waiting * self.usual.exchange_s
        )
        patience_s += 2 * self.processes.largest_bytes / self.usual.bytes_per_s
        with trio.move_on_after(patience_s) as patience:
            await self.aggregator.wait_until(
                lambda: (
                    fresh in self.oracle.handled | self.oracle.excused
                    # Messages that a fault has left on the way come before this answer.
                    and not self.oracle.is_unanswered(fresh)
                    and self._is_steady()
                )
            )
        took_s = trio.current_time() - began
        seen = process.runner.statistics()
        self.oracle.expect(
            not patience.cancelled_caught,
            f"{took_s:.1f} s after the last fault the runner is in {process.runner.state}, with"
            f" {seen.outbox.waiting} messages waiting ({seen.last_failure})",
        )
        return took_s

    def _is_steady(self) -> bool:
        """Tell whether the present process is steady; a bug may just have ended the one before."""
        process = self.processes.now
        return process is not None and process.runner.state in ("Connected", "Reconnected")

    async def check_end(self) -> None:
        """Stop the process cleanly, and check that nothing waits and no stream is open."""
        process = await self.processes.end()
        if process is not None:
            self.oracle.check_end(process.outbox.statistics())
            held = [wire for wire in process.wires if wire.is_held]
            self.oracle.expect(not held, f"{len(held)} streams were left open")
