"""How soon it is back, how soon an operator is answered, and what waiting costs."""

import gc
import statistics
import tracemalloc
from random import Random

import pytest
import trio
from attrs import define, evolve, field

from tests.faults.scene import Scene, scene
from tests.unit import Unit, wall_clock
from trio_runner.protocol import engine_messages as em
from trio_runner.protocol import messages as m
from trio_runner.protocol import models as mdl

GLITCHES, ROUNDS = 15, 5
BACKLOG = 2_000
WAITING, MEASURED = 20_000, 2_000


@define(eq=False, slots=False)
class Share(Random):
    """Draws the same share of every range."""

    share: float = field(default=0.5)

    def uniform(self, a: float, b: float) -> float:
        """Return what lies this share of the way from a to b."""
        return a + (b - a) * self.share


async def test_a_glitch_of_no_time_costs_less_than_a_second() -> None:
    """Of cuts with the aggregator there at once, the median is repaired in under 0.7 s."""
    # The waits are spread evenly over uniform(0.25, 1): their median is 0.625 s, which leaves
    # 0.075 s for the dial and the introduction. A busy machine only adds to that, so the best of
    # three medians tells what the runner needs.
    for _ in range(3):
        median_s = statistics.median(await _glitches())
        if median_s < 0.7:
            return
    pytest.fail(f"the median is {median_s} s")


async def _glitches() -> list[float]:
    took_s: list[float] = []

    async def glitch(share: float) -> None:
        async with scene(rng=lambda: Share(share=share)) as s:
            s.proxy.cut()
            began = trio.current_time()
            await s.until("Reconnected")
            took_s.append(trio.current_time() - began)

    for number in range(ROUNDS):
        async with trio.open_nursery() as nursery:
            # Few at a time, and far apart, so that they do not wait for each other.
            for draw in range(number, GLITCHES, ROUNDS):
                nursery.start_soon(glitch, (draw + 0.5) / GLITCHES)
    assert len(took_s) == GLITCHES
    return took_s


async def test_an_operator_is_answered_while_a_backlog_is_sent() -> None:
    """A command in the midst of 2,000 samples is answered in under 0.5 s, and the link lives."""
    async with scene() as s:
        async with s.proxy.refusing():
            s.proxy.cut()
            await s.noticed()
            for _ in range(BACKLOG):
                s.runner.post(s.unit.create_tag_updates_snapshot_msg())
            s.aggregator.handling_time_s = 0.005  # 10 s for all of them
        await s.until("CatchingUp")
        for _ in range(4):
            await s.samples(50)
            began = trio.current_time()
            answer = await s.command("Pause")
            assert trio.current_time() - began < 0.5
            assert isinstance(answer, m.SuccessMessage)
            assert s.runner.state == "CatchingUp"
        s.aggregator.handling_time_s = 0
        await s.until("Reconnected")
        assert s.runner.statistics().links == 2
    assert s.samples_received() == list(range(1, s.unit.count + 1))
    s.check_repeats()
    s.check_end()


@define(eq=False)
class Plant(Unit):
    """A unit of 10 tags."""

    def read_tags(self) -> list[mdl.TagValue]:
        now_s, count = wall_clock(), self.count
        return [
            mdl.TagValue(
                name=f"Flow transmitter {n}",
                tick_time=now_s,
                value=round(17.3 * (n + 1) + 0.137 * count, 3),
                value_unit="L/h",
            )
            for n in range(10)
        ]


async def test_what_waits_is_small() -> None:
    """Of 20,000 samples of 10 tags none is thinned, and each takes less than 1,500 bytes."""
    async with scene(unit=Plant(secret="right")) as s, s.proxy.refusing():  # noqa: S106
        s.proxy.cut()
        await s.noticed()
        await _post(s, WAITING - MEASURED)
        counted = s.runner.statistics().outbox.bytes_waiting
        tracemalloc.start()  # for some of them only: it makes all of it much slower
        try:
            await _post(s, MEASURED)
            gc.collect()
            taken, _ = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
        outbox = s.runner.statistics().outbox
        assert outbox.waiting >= WAITING
        assert outbox.thinned == 0
        assert outbox.bytes_waiting < s.outbox.bytes_max
        assert taken < 1_500 * MEASURED
        # What counts against the bound is what is taken, rounded up.
        assert taken < outbox.bytes_waiting - counted < 1.5 * taken


async def _post(s: Scene, count: int) -> None:
    sample = s.unit.create_tag_updates_snapshot_msg()
    for number in range(count):
        tags = [evolve(tag, tick_time=tag.tick_time + number) for tag in sample.tags]
        s.runner.post(em.TagsUpdatedMsg(tags=tags))
        if number % 100 == 0:
            await trio.lowlevel.checkpoint()
