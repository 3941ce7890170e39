"""The benchmarks on the wire: rates, distance, memory, bytes and calls."""

import itertools
import queue
from collections.abc import Callable, Generator
from contextlib import ExitStack, contextmanager
from typing import Any

from tests.bench._child import Child, Pythons, child, receiver
from tests.bench._rows import Row, at_least, at_most, median, percentile, spread

SIDES = ("trio_side", "asyncio_side")
RECEIVERS = {"op_receiver": "openpectus", "sink": "fast sink"}
BACKLOGS = {1_000: 3, 10_000: 3, 50_000: 3}
"""How many messages wait, and how many runs each side makes with them."""

LIMIT_COUNT = 20_000
READY_S = 60.0
"""How long engines may take from their start to steady state (s)."""

CAUGHT_UP_S = 100.0
"""The time after which a side must have lost its connection on the way (s).

At 500 messages/s the longest backlog takes this long.
"""
WAITING = {20: 5_000, 100: 3_000}
DISTANCES = {0.05: 3.0, 0.2: 6.0}
"""Round trips (s), and the goals for a backlog of 2 h (s)."""
BACKLOG_2H = 1_440

Step = Callable[[str], None]
"""Called with the name of what is measured next."""

_names = itertools.count()


@contextmanager
def catching_up(
    where: Pythons, side: str, port: int, count: int, tags: int = 20
) -> Generator[Child, None, None]:
    """Run an engine that begins with this many messages waiting."""
    name = f"{side}{next(_names)}"
    job: dict[str, Any] = {"job": "catch_up", "name": name, "port": port}
    with child(where, side, **job, count=count, tags=tags) as engine:
        yield engine


@contextmanager
def running(
    where: Pythons,
    side: str,
    ports: list[int],
    spread_s: float,
    *,
    changes: bool = False,
) -> Generator[Child, None, None]:
    """Run an engine at each of these ports, all in steady state.

    Raises queue.Empty if they are not all there soon after the time over which they are started.
    """
    name = f"{side}{next(_names)}-"
    job: dict[str, Any] = {"job": "engines", "name": name, "ports": ports, "tags": 20}
    with child(where, side, **job, changes=changes, spread_s=spread_s) as engines:
        engines.hear("ready", spread_s + READY_S)
        yield engines


def catch_up_rate(module: str) -> Callable[[Pythons, Step], list[Row]]:
    """Return the benchmark of the rate into a receiver; for the fast one it measures memory too."""

    def measure(where: Pythons, step: Step) -> list[Row]:
        name, peaks = RECEIVERS[module], dict[str, float]()
        step("the limit")
        limit = _limit(where, module)
        rates: dict[tuple[str, int], list[float]] = {}
        for count, runs in BACKLOGS.items():
            for _, side in itertools.product(range(runs), SIDES):
                step(f"{count} messages: {side}")
                rate, peaks[side] = _rate(where, module, side, count)
                rates.setdefault((side, count), []).append(rate)
        rows = [
            _rate_row(f"{n:,} into {name}", limit, *(rates[s, n] for s in SIDES)) for n in BACKLOGS
        ]
        small, big = (median(rates[SIDES[0], count]) for count in (1_000, 50_000))
        linear = big / small
        what, unit = f"time linear in N, {name}", "rate at 50,000 / at 1,000"
        rows.append(Row("catch-up rate", what, unit, linear, None, ">= 0.8", linear >= 0.8))
        if module == "sink":
            ours, theirs = (peaks[side] / 1e6 for side in SIDES)
            met, what = at_most(0.1, ours, theirs), "catching up 50,000"
            rows.append(Row("peak memory", what, "MB", ours, theirs, "a tenth", met))
        return rows

    return measure


def _rate_row(what: str, limit: float, ours: list[float], theirs: list[float]) -> Row:
    a, b, apart = median(ours), median(theirs), spread(ours, theirs)
    met = at_least(2, a, b)
    return Row("catch-up rate", what, "messages/s", a, b, "2x", met, limit, apart)


def _limit(where: Pythons, module: str) -> float:
    with (
        receiver(where, module) as (_, port),
        child(where, "blaster", port=port, count=LIMIT_COUNT) as blaster,
    ):
        took = blaster.hear("first")
    return float(LIMIT_COUNT / (took["last"] - took["first"]))


def _rate(where: Pythons, module: str, side: str, count: int) -> tuple[float, float]:
    """Return messages/s from CatchingUp to the last arrival, and the engine's peak (bytes)."""
    with receiver(where, module) as (sink, port):
        sink.tell("expect", count=count)
        with catching_up(where, side, port, count) as engine:
            began = _began(engine)
            try:
                rate = count / (sink.hear("first", CAUGHT_UP_S)["last"] - began)
            except queue.Empty:
                rate = 0.0  # it lost the connection on the way, and what was under way with it
            peak = engine.ask("cost", "peak")["peak"]
    return rate, peak


def catch_up_over_distance(where: Pythons, step: Step) -> list[Row]:
    """Measure the time from the state CatchingUp to the arrival of the last message."""
    rows = []
    for (round_trip_s, goal_s), took_s in zip(
        DISTANCES.items(), _by_side(where, step), strict=True
    ):
        ours, theirs = (median(took_s[side]) for side in SIDES)
        what = f"1,440 messages, {round_trip_s * 1000:.0f} ms"
        goal = f"<= {goal_s:g} s"
        apart = spread(*took_s.values())
        met = ours <= goal_s
        rows.append(Row("over distance", what, "s", ours, theirs, goal, met, None, apart))
    return rows


def _by_side(where: Pythons, step: Step) -> Generator[dict[str, list[float]], None, None]:
    for round_trip_s in DISTANCES:
        took_s: dict[str, list[float]] = {side: [] for side in SIDES}
        for _, side in itertools.product(range(3), SIDES):
            step(f"{round_trip_s * 1000:.0f} ms away: {side}")
            took_s[side].append(_over_distance(where, side, round_trip_s))
        yield took_s


def _over_distance(where: Pythons, side: str, round_trip_s: float) -> float:
    with ExitStack() as stack:
        sink, port = stack.enter_context(receiver(where, "op_receiver"))
        far = {"port": port, "round_trip_s": round_trip_s}
        _, port = stack.enter_context(receiver(where, "distance", **far))
        sink.tell("expect", count=BACKLOG_2H)
        engine = stack.enter_context(catching_up(where, side, port, BACKLOG_2H))
        began = _began(engine)
        return float(sink.hear("first")["last"] - began)


def _began(engine: Child) -> float:
    """Wait until an engine begins to send its backlog; return the time of that (s, monotonic)."""
    state = engine.hear("state")
    while state["state"] != "CatchingUp":
        state = engine.hear("state")
    return float(state["at"])


def memory_per_message(where: Pythons, step: Step) -> list[Row]:
    """Measure by how much a process grows for each message that waits."""
    rows = []
    for tags, count in WAITING.items():
        cost: dict[str, list[float]] = {side: [] for side in SIDES}
        for _, side in itertools.product(range(3), SIDES):
            step(f"{tags} tags: {side}")
            with catching_up(where, side, 9, count, tags) as engine:
                cost[side].append(engine.hear("filled")["filled"] / count / 1000)
        ours, theirs = (median(cost[side]) for side in SIDES)
        met = at_most(1 / 20, ours, theirs)
        goal = "a twentieth"
        apart, what = spread(*cost.values()), f"{tags} tags"
        rows.append(Row("memory per message", what, "kB", ours, theirs, goal, met, None, apart))
    return rows


def bytes_on_the_wire(where: Pythons, step: Step) -> list[Row]:
    """Replay an hour of a method."""
    step("an hour: trio_side")
    with child(where, "trio_side", job="wire") as engine:
        ours = engine.hear("ended")
    step("an hour: asyncio_side")
    with (
        receiver(where, "sink", deflate=True) as (sink, port),
        child(where, "asyncio_side", job="wire", port=port) as engine,
    ):
        engine.hear("ended")
        theirs = sink.ask("show", "messages")
    rows = []
    for what, unit, key, share, goal in (
        ("bytes of messages", "MB", "message_bytes", 1 / 10, "a tenth"),
        ("TCP bytes, both ways", "MB", "tcp_bytes", 1 / 3, "a third"),
        ("messages to handle", "messages", "messages", 1 / 2, "a half"),
    ):
        a, b = _total(ours[key]), _total(theirs[key])
        scale = 1e6 if unit == "MB" else 1
        met = at_most(share, a, b)
        rows.append(Row("bytes on the wire", what, unit, a / scale, b / scale, goal, met))
    return rows


def _total(value: Any) -> float:
    return float(sum(value.values()) if isinstance(value, dict) else value)


def answer_to_a_call(where: Pythons, step: Step) -> list[Row]:
    """Measure how long a call of the aggregator takes; over 2 s, the connection ends."""
    idle: dict[str, list[float]] = {side: [] for side in SIDES}
    busy: dict[str, list[float]] = {side: [] for side in SIDES}
    for _, side in itertools.product(range(2), SIDES):
        step(f"idle: {side}")
        with (
            receiver(where, "op_receiver") as (sink, port),
            running(where, side, [port], 0),
        ):
            idle[side] += sink.ask("call", "took_s", count=100, every_s=0.03, behind=2)["took_s"]
        step(f"catching up: {side}")
        with (
            receiver(where, "op_receiver") as (sink, port),
            catching_up(where, side, port, 50_000),
        ):
            told = sink.ask("call", "took_s", count=80, every_s=0.05, behind=500)
            busy[side] += told["took_s"]
    rows = []
    for what, took_s, goal_ms in (("idle", idle, 50), ("catching up 50,000", busy, 250)):
        ours, theirs = (percentile(took_s[side], 99) * 1000 for side in SIDES)
        goal = f"<= {goal_ms} ms"
        rows.append(
            Row("answer to a call", f"p99, {what}", "ms", ours, theirs, goal, ours <= goal_ms)
        )
    return rows
