"""How much a durable outbox writes while all is well, as counted by the system, in virtual time."""

import sys
from pathlib import Path
from random import Random

import pytest
import trio
import trio.testing
from attrs import define, evolve, field

from tests.helpers.unit import Middle, Unit
from tests.runner.test_crash import in_place
from tests.test_outbox import LINE
from trio_runner import DurableOutbox, EngineDispatcher, EngineRunner
from trio_runner.protocol import engine_messages as em
from trio_runner.protocol import models as mdl
from trio_runner.simulation import Aggregator
from trio_runner.simulation.stand_ins._network import Network

DAY_S = 24 * 3600


@define(eq=False)
class Busy(Unit):
    """An engine whose run log is different each time that it is asked for it."""

    lines: int = field(kw_only=True)
    tags: int = field(default=1, kw_only=True)
    asked: int = 0

    def __attrs_post_init__(self) -> None:
        rng = Random(1)
        self.run_log = [
            evolve(LINE, id=f"{rng.getrandbits(128):032x}", start=rng.random())
            for _ in range(self.lines)
        ]

    def read_tags(self) -> list[mdl.TagValue]:
        rng, more = Random(self.count), range(self.tags - 1)
        values = [
            mdl.TagValue(name=f"FT{number}", tick_time=0.0, value=rng.random(), value_unit="L/h")
            for number in more
        ]
        return [*super().read_tags(), *values]

    def create_runlog_msg(self, run_id: str) -> em.RunLogMsg:
        self.asked += 1
        lines = [evolve(line, end=float(self.asked)) for line in self.run_log[:1]]
        lines += self.run_log[1:]
        return em.RunLogMsg(id="", run_id=run_id, runlog=mdl.RunLog(lines=lines))


def written() -> int:
    """Return how much this process has written (bytes)."""
    lines = Path("/proc/self/io").read_text().splitlines()
    return int(dict(line.split(": ") for line in lines)["wchar"])


@pytest.mark.skipif(sys.platform != "linux", reason="it counts for each process")
@pytest.mark.parametrize(
    ("lines", "tags", "distance_s", "during_s"),
    [
        (0, 1, 0.4, 300),
        (0, 60, 1.0, 90),
        (0, 100, 0.4, 90),
        (20, 1, 0.02, 300),
        (300, 1, 0.02, 90),
        (1000, 1, 0.02, 60),
    ],
)
async def test_a_healthy_link_writes_less_than_a_gigabyte_a_day(
    lines: int,
    tags: int,
    distance_s: float,
    during_s: float,
    tmp_path: Path,
    autojump_clock: trio.testing.MockClock,
) -> None:
    """The run log changes all the time, or the distance lets commits find samples under way.

    It is 0.3 GB over 0.4 s and over 1 s, with few tags or many. It is 0.3, 0.5 and 0.5 GB with 20,
    300 and 1,000 lines, over ten minutes.
    """
    aggregator, unit = Aggregator(), Busy(lines=lines, tags=tags)
    path = tmp_path / "unit.outbox"
    async with trio.open_nursery() as nursery:
        network = Network(aggregator, nursery, Middle(), distance_s / 2)
        dispatcher = EngineDispatcher("a.example", handlers=unit, open_stream=network.open_stream)
        with DurableOutbox(path, clock=trio.current_time) as outbox:
            runner = EngineRunner(dispatcher, unit, unit, outbox=outbox, offload=in_place)
            await nursery.start(runner.run)
            runner.on_start("run-1")
            await trio.sleep(10)
            before = written()
            await trio.sleep(during_s)
            a_day = (written() - before) * DAY_S / during_s
            nursery.cancel_scope.cancel()
    # Up to 300 lines there is one with each sample, 3.3 times a second. A run log of 1,000 lines
    # has 250,000 characters, and half a million a second are told.
    assert unit.asked > during_s * (3 if lines <= 300 else 1.9)
    assert 0 < a_day < 1e9
