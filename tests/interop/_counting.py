"""An engine whose one tag counts its samples, and which writes each one down as it is taken.

As a program it runs at the aggregator's port, with an outbox on disk, until it is killed. If it is
given a run, that begins with the first link:

    python -m tests.interop._counting PORT OUTBOX NOTES [RUN_ID]
"""

import sys
import time
from collections.abc import Callable
from pathlib import Path

import trio
from attrs import define, field

from trio_runner import DurableOutbox, EngineDispatcher, EngineRunner, PlainEngine
from trio_runner.protocol import engine_messages as em
from trio_runner.protocol import models as mdl

TAG = "Count"
NAME = "Counting unit"
LOG_INTERVAL_S = 0.5
"""The time between two stored samples (s), so that at 0.3 s some are not stored."""

Sample = tuple[float, int]
"""When it was taken (s since the epoch), and its value."""


@define(eq=False, kw_only=True)
class CountingUnit(PlainEngine):
    """Its tag is one higher in every sample; `note` is told before the runner gets the sample."""

    name: str = NAME
    data_log_interval_s: float = LOG_INTERVAL_S
    note: Callable[[Sample], None]
    count: int = field(default=0, init=False)
    _now: float = field(factory=time.time, init=False)

    def read_tags(self) -> list[mdl.TagValue]:
        """Return the tag as it was last sampled."""
        return [mdl.TagValue(name=TAG, tick_time=self._now, value=self.count, value_unit="")]

    def create_tag_updates_msg(self, run_id: str | None) -> em.TagsUpdatedMsg | None:
        """Take a sample."""
        return self.create_tag_updates_snapshot_msg()

    def create_tag_updates_snapshot_msg(self) -> em.TagsUpdatedMsg:
        """Take a sample."""
        self.count += 1
        self._now = self.clock()
        self.note((self._now, self.count))
        return super().create_tag_updates_snapshot_msg()


async def run(port: int, outbox_path: Path, notes: Path, run_id: str | None) -> None:
    """Run until killed."""
    with notes.open("a") as file, DurableOutbox(outbox_path) as outbox:

        def note(sample: Sample) -> None:
            print(*sample, runner.statistics().run_id, file=file, flush=True)

        unit = CountingUnit(note=note)
        dispatcher = EngineDispatcher("127.0.0.1", port, handlers=unit)
        runner = EngineRunner(dispatcher, unit, unit, outbox=outbox)

        async def begin() -> None:
            if run_id is not None:
                runner.on_start(run_id)

        runner.connected_callback = begin
        await runner.run()


def noted(notes: Path, run_id: str) -> list[Sample]:
    """Return the samples of a run that the program has written down."""
    lines = [line.split() for line in notes.read_text().splitlines()]
    return [(float(at), int(value)) for at, value, of_run in lines if of_run == run_id]


if __name__ == "__main__":
    _, a_port, an_outbox, the_notes, *a_run = sys.argv
    trio.run(run, int(a_port), Path(an_outbox), Path(the_notes), a_run[0] if a_run else None)
