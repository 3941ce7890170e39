"""An engine for a storm: it writes down what it does before its runner hears of it.

    python -m tests.storm.unit PORT OUTBOX NOTES SEED

With the seed "quiet" it begins no runs and sends no events of its own.
"""

import json
import sys
import time
import uuid
from collections.abc import Callable
from pathlib import Path
from random import Random

import trio
from attrs import define, field

from tests.interop._counting import TAG, CountingUnit
from trio_runner import DurableOutbox, EngineDispatcher, EngineRunner
from trio_runner._cli._signals import stop_on_signal
from trio_runner.protocol import engine_messages as em
from trio_runner.protocol import models as mdl

__all__ = ["LOG_INTERVAL_S", "NAME", "TAG", "StormUnit"]

NAME = "Storm"

LOG_INTERVAL_S = 1.0
"""The data-log interval (s)."""


@define(eq=False, kw_only=True)
class StormUnit(CountingUnit):
    """A unit that counts its samples, and also begins and ends runs, notifies and logs."""

    name: str = NAME
    data_log_interval_s: float = LOG_INTERVAL_S
    tell: Callable[[str, str], None]
    """Write down what is done with which run."""
    _errors: list[mdl.ErrorLogEntry] = field(factory=list, init=False)

    def create_error_log_msg(self) -> em.ErrorLogMsg | None:
        """Return the errors since the last call."""
        errors, self._errors = self._errors, []
        return em.ErrorLogMsg(log=mdl.ErrorLog(entries=errors)) if errors else None

    def fail(self) -> None:
        """Log an error."""
        entry = mdl.ErrorLogEntry(message="a fault", created_time=time.time(), severity=40)
        self._errors.append(entry)

    async def work(self, runner: EngineRunner, rng: Random) -> None:
        """Begin and end runs, notify and log, until cancelled."""
        runs: list[str] = []
        while True:
            await trio.sleep(rng.uniform(0.1, 2))
            what = rng.random()
            if what < 0.5:
                runner.on_notify_command("Look!")
            elif what < 0.8:
                self.fail()
            elif runs:
                self.tell("end", runs[0])
                runner.on_stop()
                runs.clear()
            else:
                runs.append(str(uuid.uuid4()))
                self.tell("begin", runs[0])
                runner.on_start(runs[0])


async def run(port: int, outbox_path: Path, notes: Path, seed: str) -> None:
    """Run until signalled."""
    with notes.open("a") as file, DurableOutbox(outbox_path) as outbox:

        def write(what: str, at: float, value: object) -> None:
            run_id = runner.statistics().run_id
            file.write(json.dumps([what, at, value, run_id]) + "\n")
            file.flush()

        unit = StormUnit(
            note=lambda sample: write("sample", *sample),
            tell=lambda what, run_id: write(what, time.time(), run_id),
        )
        # No other process of the storm must count the same values: none goes on with another's run.
        unit.count = int(time.time() * 1000) % 10**9 * 1000
        dispatcher = EngineDispatcher("127.0.0.1", port, handlers=unit)
        runner = EngineRunner(dispatcher, unit, unit, outbox=outbox)
        async with trio.open_nursery() as nursery:
            await nursery.start(stop_on_signal, nursery.cancel_scope.cancel)
            sys.stdout.write("ready\n")
            sys.stdout.flush()
            if seed != "quiet":
                nursery.start_soon(unit.work, runner, Random(f"{seed} {time.time()}"))
            await runner.run()


if __name__ == "__main__":
    _, a_port, an_outbox, the_notes, a_seed = sys.argv
    trio.run(run, int(a_port), Path(an_outbox), Path(the_notes), a_seed)
