"""The benchmarks of engines that come and go: how soon they return and start, what they need."""

import itertools
import subprocess
import time
from bisect import bisect_left
from collections.abc import Callable
from pathlib import Path

from tests.bench._benchmarks import SIDES, Step, running
from tests.bench._child import ROOT, Pythons, child, receiver
from tests.bench._rows import Row, at_most, median, spread
from tests.bench.work import memory
from tests.helpers.install import VERSION, both_of_version

OUTAGES = {0.0: 20, 1.0: 20, 5.0: 20, 30.0: 8}
"""How long connections are refused (s), and how many engines are affected."""
CROWD = 500
IDLE_S = 8.0


def reconnect(where: Pythons, step: Step) -> list[Row]:
    """Measure how soon engines are back."""
    took: dict[str, list[list[float]]] = {}
    for side in SIDES:
        step(f"outages of 0 to 30 s: {side}")
        took[side] = _outages(where, side)
    rows = []
    for n, lasts_s in enumerate(OUTAGES):
        ours, theirs = (median(took[side][n]) for side in SIDES)
        share, goal = (0.2, "a fifth") if lasts_s < 5 else (0.25, "a quarter")
        met = at_most(share, ours, theirs)
        what = f"refused for {lasts_s:g} s, median"
        rows.append(Row("reconnect", what, "s", ours, theirs, goal, met))
    return rows


def restart(where: Pythons, step: Step) -> list[Row]:
    """Measure how crowded the dials are when engines come back."""
    rows, crowds = [], {}
    for side in SIDES:
        step(f"{CROWD} engines: {side}")
        crowds[side] = _restart(where, side)
    for what, unit, n, bound in (
        ("dials that arrive in 100 ms", "dials", 0, 60.0),
        ("dials in 100 ms, refused ones too", "dials", 1, 60.0),
        ("until all are back", "s", 2, 15.0),
    ):
        ours, theirs = (crowds[side][n] for side in SIDES)
        what = f"{CROWD} engines: {what}"
        rows.append(Row("reconnect", what, unit, ours, theirs, f"<= {bound:g}", ours <= bound))
    return rows


def _outages(where: Pythons, side: str) -> list[list[float]]:
    with child(where, "sink", ports=len(OUTAGES)) as sink:
        ports = sink.hear("ports")["ports"]
        dialled = [port for port, n in zip(ports, OUTAGES.values(), strict=True) for _ in range(n)]
        with running(where, side, dialled, spread_s=3):
            time.sleep(1)
            outages = list(zip(ports, OUTAGES, strict=True))
            told = sink.ask("outage", "took_s", outages=outages, back=len(dialled), within_s=60)
    return [told["took_s"][str(port)] for port in ports]


def _restart(where: Pythons, side: str) -> tuple[float, float, float]:
    with (
        receiver(where, "sink") as (sink, port),
        running(where, side, [port] * CROWD, spread_s=10) as engines,
    ):
        time.sleep(1)
        began = time.monotonic()
        told = sink.ask("outage", "took_s", outages=[(port, 2.0)], back=CROWD, within_s=40)
        dials = [at for at in engines.ask("dials", "dials")["dials"] if at > began]
    back_s = told["took_s"][str(port)]
    all_back_s = max(back_s) if len(back_s) == CROWD else float("inf")
    return _most_within(told["dialled"], 0.1), _most_within(dials, 0.1), all_back_s


def _most_within(times: list[float], window_s: float) -> float:
    """Return how many of the times fall into the fullest window."""
    ordered = sorted(times)
    return float(
        max((bisect_left(ordered, at + window_s) - n for n, at in enumerate(ordered)), default=0)
    )


def start(where: Pythons, step: Step) -> list[Row]:
    """Measure how long a process takes to say something, and how long its imports take.

    Both sides have their bytecode, as pip leaves it.
    """
    package = ROOT / "trio_runner"
    subprocess.run([where.ours, "-m", "compileall", "-q", package], check=True)
    took: dict[str, dict[str, list[float]]] = {what: {s: [] for s in SIDES} for what in STARTS}
    for run, side in itertools.product(range(5), SIDES):
        step(f"run {run + 1}: {side}")
        took["--help"][side].append(_help_s(COMMANDS[side](where)))
        took["import"][side].append(_import_s(where.of(side), MODULES[side]))
        with receiver(where, "sink") as (sink, port):
            began = time.monotonic()
            with running(where, side, [port], 0):
                introduced = sink.ask("show", "introduced")["introduced"][0]
            took["to the first UodInfo"][side].append(introduced - began)
    rows = []
    for what, (share, goal) in STARTS.items():
        ours, theirs = (took[what][side] for side in SIDES)
        a, b = median(ours), median(theirs)
        met = at_most(share, a, b)
        rows.append(Row("start", what, "s", a, b, goal, met, None, spread(ours, theirs)))
    return rows


STARTS = {
    "--help": (1 / 2, "a half"),
    "import": (1 / 3, "a third"),
    "to the first UodInfo": (1 / 2, "a half"),
}
MODULES = {"trio_side": "trio_runner", "asyncio_side": "openpectus.engine.main"}
COMMANDS: dict[str, Callable[[Pythons], list[str | Path]]] = {
    "trio_side": lambda where: [where.ours, "-m", "trio_runner", "--help"],
    "asyncio_side": lambda where: [where.theirs.with_name("pectus-engine"), "--help"],
}


def _help_s(command: list[str | Path]) -> float:
    began = time.monotonic()
    subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.DEVNULL)
    return time.monotonic() - began


def _import_s(python: Path, module: str) -> float:
    """Return how long an import takes in a fresh process (s), without the interpreter's start."""
    code = (
        f"import time; began = time.monotonic(); import {module}; print(time.monotonic() - began)"
    )
    ended = subprocess.run([python, "-c", code], cwd=ROOT, check=True, capture_output=True)
    return float(ended.stdout.split()[-1])


def footprint(where: Pythons, step: Step) -> list[Row]:
    """Measure the memory of an idle engine with the demo UOD, both commands in one environment."""
    commands = both_of_version(VERSION)
    python = commands / "python"
    (uod,) = commands.parent.glob("lib/python3*/site-packages/openpectus/engine/**/demo_uod.py")
    ours_first: dict[str, list[str | Path]] = {
        "trio_side": [python, "-m", "trio_runner", "engine", "--outbox", "memory"],
        "asyncio_side": [commands / "pectus-engine"],
    }
    sizes: dict[str, list[float]] = {side: [] for side in SIDES}
    for run, side in itertools.product(range(3), SIDES):
        step(f"run {run + 1}: {side}")
        with receiver(where, "sink", deflate=True) as (_, port):
            engine = [*ours_first[side], "-ahn", "127.0.0.1", "-ap", str(port), "-uod", str(uod)]
            sizes[side].append(_rss_mb(engine))
    ours, theirs = (sizes[side] for side in SIDES)
    a, b, apart = median(ours), median(theirs), spread(ours, theirs)
    name = "idle engine, demo UOD"
    return [Row(name, "resident memory", "MB", a, b, "no more", a <= 1.02 * b, None, apart)]


def _rss_mb(command: list[str | Path]) -> float:
    """Return the memory of a process that has run for a while (MB)."""
    nowhere = subprocess.DEVNULL
    with subprocess.Popen(command, cwd=ROOT, stdout=nowhere, stderr=nowhere) as process:
        try:
            time.sleep(IDLE_S)
            return memory(process.pid)["rss"] / 1e6
        finally:
            process.kill()


def durable_outbox(where: Pythons, step: Step) -> list[Row]:
    """Measure how fast the durable outbox takes messages, and recovers them after a crash."""
    figures: dict[str, list[float]] = {"samples_s": [], "events_s": [], "recovery_s": []}
    for _ in range(3):
        step("an outbox")
        with child(where, "trio_side", job="outbox") as engine:
            for key, values in figures.items():
                values.append(engine.hear(key)[key])
    samples, events, recovery = (median(values) for values in figures.values())
    name = "durable outbox"
    return [
        Row(name, "samples taken", "/s", samples, None, ">= 5,000", samples >= 5_000),
        Row(name, "events taken", "/s", events, None, ">= 1,000", events >= 1_000),
        Row(name, "50,000 recovered", "s", recovery, None, "<= 1 s", recovery <= 1),
    ]
