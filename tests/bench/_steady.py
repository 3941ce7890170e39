"""The benchmarks of steady state: what an engine costs, and how late its news arrive."""

import itertools
import queue
import time
from collections.abc import Callable

from attrs import define, field

from tests.bench._benchmarks import SIDES, Step, running
from tests.bench._child import Child, Pythons, child, receiver
from tests.bench._rows import Row, at_most, median, percentile, spread

RUNS = 3
OBSERVED_S = 8.0
START_S = 0.012
"""The time between the starts of two engines (s), since starting is work that is not measured."""

EVENTS = 80
LATENCY_COUNTS = (1, 200)
MANY = 1_000
MANY_RUNS = 5
MANY_START_S = 60.0
LINES_OBSERVED_S = {100: 6.0, 1_000: 8.0, 4_000: 13.0}
"""How long to observe a run log of this many lines (s), more than from one to the next."""

Benchmark = Callable[[Pythons, Step], list[Row]]


@define
class Cost:
    """The costs of the runs of one side, each in its own unit."""

    per_minute_s: list[float] = field(factory=list)
    """The CPU time of an engine (s/min)."""
    per_sample_ms: list[float] = field(factory=list)
    cores: list[float] = field(factory=list)
    delivered: list[float] = field(factory=list)
    """The samples that arrived, divided by those that were due."""
    tag_s: list[float] = field(factory=list)
    event_s: list[float] = field(factory=list)

    def note(
        self, before: dict[str, float], after: dict[str, float], engines: int, samples: int
    ) -> None:
        """Note a run, given the CPU time at its beginning and at its end."""
        took_s, cpu_s = after["now"] - before["now"], after["cpu_s"] - before["cpu_s"]
        self.per_minute_s.append(cpu_s / took_s * 60 / engines)
        self.per_sample_ms.append(cpu_s / samples * 1000 if samples else float("inf"))
        self.cores.append(cpu_s / took_s)
        self.delivered.append(samples / (engines * took_s / 0.3))


def steady(count: int) -> Benchmark:
    """Return the benchmark of this many engines in one process."""

    def measure(where: Pythons, step: Step) -> list[Row]:
        costs = {side: Cost() for side in SIDES}
        floor = Cost()
        for run, side in itertools.product(range(RUNS), SIDES):
            step(f"run {run + 1}: {side}")
            _observe(where, side, count, START_S * count, costs[side])
        step("the floor")
        _floor(where, count, floor)
        ours, theirs = (costs[side] for side in SIDES)
        rows = _cost_rows(count, ours, theirs, floor)
        return rows + (_latency_rows(count, ours, theirs) if count in LATENCY_COUNTS else [])

    return measure


def _cost_rows(count: int, ours: Cost, theirs: Cost, floor: Cost) -> list[Row]:
    few = 0.6 if count <= 10 else 0.5
    keeps_up = median(theirs.delivered) >= 0.95
    kept, kept_there = median(ours.delivered), median(theirs.delivered)
    name, due = f"{count} engines", "of those due"
    return [
        _cost_row(name, "CPU", "s/min", few, *(c.per_minute_s for c in (ours, theirs, floor))),
        _cost_row(
            name,
            "CPU of a sample",
            "ms",
            few if keeps_up else 0.5,
            *(c.per_sample_ms for c in (ours, theirs, floor)),
        ),
        Row(name, "samples delivered", due, kept, kept_there, ">= 0.95", kept >= 0.95),
    ]


def _cost_row(
    name: str,
    what: str,
    unit: str,
    share: float,
    ours: list[float],
    theirs: list[float],
    floor: list[float],
) -> Row:
    a, b, apart = median(ours), median(theirs), spread(ours, theirs)
    met = at_most(share, a, b)
    return Row(name, what, unit, a, b, f"<= {share:g}x", met, median(floor), apart)


def _latency_rows(count: int, ours: Cost, theirs: Cost) -> list[Row]:
    rows, name = [], f"{count} engines"
    for percent in (50, 99):
        a, b = (percentile(cost.tag_s, percent) * 1000 for cost in (ours, theirs))
        # With few samples a percentile is not exact.
        rows.append(Row(name, f"age of a tag, p{percent}", "ms", a, b, "no worse", a <= 1.05 * b))
    a, b = (percentile(cost.event_s, 99) * 1000 for cost in (ours, theirs))
    return [*rows, Row(name, "age of an event, p99", "ms", a, b, "< 10 ms", a < 10)]


def _observe(where: Pythons, side: str, count: int, spread_s: float, cost: Cost) -> None:
    """Let engines run for a while, and note what it costs.

    The receiver agrees to compression, as the aggregator does.
    """
    with (
        receiver(where, "sink", look=True, deflate=True) as (sink, port),
        running(where, side, [port] * count, spread_s, changes=True) as engines,
    ):
        time.sleep(1.5)
        sink.ask("forget", "forgotten")
        _watch(sink, engines, count, cost)
        if count in (*LATENCY_COUNTS, MANY):
            engines.ask("notify", "notified", count=EVENTS, every_s=0.05)
            time.sleep(0.5)
        told = sink.ask("show", "messages")
    cost.tag_s += told["tag_s"]
    cost.event_s += told["event_s"]


def _watch(sink: Child, engines: Child, count: int, cost: Cost) -> None:
    before = engines.ask("cost", "cpu_s")
    time.sleep(OBSERVED_S)
    after = engines.ask("cost", "cpu_s")
    samples = sink.ask("show", "messages")["messages"].get("TagsUpdatedMsg", 0)
    cost.note(before, after, count, samples)


def _floor(where: Pythons, count: int, cost: Cost) -> None:
    with (
        receiver(where, "sink", deflate=True) as (sink, port),
        child(where, "floor_side", port=port, count=count) as clients,
    ):
        clients.hear("ready")
        time.sleep(1)
        sink.ask("forget", "forgotten")
        _watch(sink, clients, count, cost)


def thousand(where: Pythons, step: Step, runs: int = MANY_RUNS) -> list[Row]:
    """Measure a thousand engines in one process, started over a minute; the worst run counts."""
    cost = Cost()
    for run in range(runs):
        step(f"run {run + 1}")
        try:
            _observe(where, SIDES[0], MANY, MANY_START_S, cost)
        except (queue.Empty, RuntimeError):  # links are lost before all are there
            cost.cores.append(float("inf"))
            cost.delivered.append(0.0)
    name, due = f"{MANY:,} engines", f"of those due, the worst of {runs}"
    cores, kept = median(cost.cores), min(cost.delivered)
    event_ms = percentile(cost.event_s, 99) * 1000
    apart = spread(cost.cores)
    return [
        Row(name, "CPU", "cores", cores, None, "<= 0.9", cores <= 0.9, None, apart),
        Row(name, "samples delivered", due, kept, None, ">= 0.95", kept >= 0.95),
        Row(name, "age of an event, p99", "ms", event_ms, None, "< 50 ms", event_ms < 50),
    ]


def run_log(lines: int) -> Benchmark:
    """Return the benchmark of an engine late in a run with this many lines in its run log."""

    def measure(where: Pythons, step: Step) -> list[Row]:
        share: dict[str, list[float]] = {side: [] for side in SIDES}
        sent: dict[str, list[float]] = {side: [] for side in SIDES}
        for run, side in itertools.product(range(RUNS), SIDES):
            step(f"run {run + 1}: {side}")
            busy, bytes_s = _log_cost(where, side, lines)
            share[side].append(busy)
            sent[side].append(bytes_s / 1000)
        rows, name = [], f"run log of {lines:,} lines"
        a, b = (median(share[side]) for side in SIDES)
        apart = spread(*share.values())
        rows.append(Row(name, "thread of the loop", "cores", a, b, "<= 0.1", a <= 0.1, None, apart))
        a, b = (median(sent[side]) for side in SIDES)
        apart = spread(*sent.values())
        rows.append(
            Row(name, "bytes of messages", "kB/s", a, b, "a tenth", at_most(0.1, a, b), None, apart)
        )
        return rows

    return measure


def _log_cost(where: Pythons, side: str, lines: int) -> tuple[float, float]:
    """Return what the loop's thread takes (cores), and the rate of messages (bytes/s)."""
    with (
        receiver(where, "sink", deflate=True) as (sink, port),
        child(where, side, job="run_log", name=f"{side}-log", port=port, lines=lines) as engine,
    ):
        engine.hear("ready")
        time.sleep(2)
        sink.ask("forget", "forgotten")
        before = engine.ask("cost", "cpu_s")
        time.sleep(LINES_OBSERVED_S[lines])
        after, seen = engine.ask("cost", "cpu_s"), sink.ask("show", "messages")
    took_s = after["now"] - before["now"]
    return (after["thread_s"] - before["thread_s"]) / took_s, sum(
        seen["message_bytes"].values()
    ) / took_s
