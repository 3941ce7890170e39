"""`python -m tests.bench`: run the benchmarks and print the table."""

import argparse
import json
import os
import platform
import sys
import time
from functools import partial
from pathlib import Path

import attrs
from rich.console import Console
from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from tests.bench import _benchmarks, _lives, _steady
from tests.bench._child import pythons
from tests.bench._rows import Row, table
from tests.bench._steady import Benchmark
from tests.helpers.install import Unavailable

BENCHMARKS: dict[str, Benchmark] = {
    "catch-up": _benchmarks.catch_up_rate("op_receiver"),
    "catch-up-sink": _benchmarks.catch_up_rate("sink"),
    "distance": _benchmarks.catch_up_over_distance,
    "memory": _benchmarks.memory_per_message,
    "wire": _benchmarks.bytes_on_the_wire,
    **{f"steady-{count}": _steady.steady(count) for count in (1, 10, 40, 200)},
    "thousand": _steady.thousand,
    **{f"run-log-{lines}": _steady.run_log(lines) for lines in _steady.LINES_OBSERVED_S},
    "call": _benchmarks.answer_to_a_call,
    "outbox": _lives.durable_outbox,
    "reconnect": _lives.reconnect,
    "restart": _lives.restart,
    "start": _lives.start,
    "footprint": _lives.footprint,
}
ALONE: dict[str, Benchmark] = {"thousand": partial(_steady.thousand, runs=1)}
"""What takes too long in full for a quick look, when it is the only one asked for."""


def main() -> int:
    """Run the benchmarks that were asked for; return 0, or 1 if not all could be run."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench", description=__doc__)
    parser.add_argument("--only", metavar="NAME", choices=BENCHMARKS, help=", ".join(BENCHMARKS))
    parser.add_argument("--json", metavar="FILE", type=Path, help="write the figures here too")
    arguments = parser.parse_args()
    console = Console()
    try:
        where = pythons()
    except Unavailable as error:
        console.print(str(error))
        return 1
    rows, failed = list[Row](), list[str]()
    benchmarks = BENCHMARKS | (ALONE if arguments.only else {})
    names = [arguments.only] if arguments.only else list(BENCHMARKS)
    columns = (SpinnerColumn(), "{task.completed}/{task.total}", TimeElapsedColumn())
    progress = Progress(*columns, TextColumn("{task.description}"), console=Console(stderr=True))
    with progress:
        task = progress.add_task("", total=len(names))
        for name in names:

            def step(what: str, name: str = name) -> None:
                progress.update(task, description=f"{name}: {what}")

            began = time.monotonic()
            try:
                rows += benchmarks[name](where, step)
            except Exception as error:  # the others are worth as much without it
                failed.append(name)
                console.print(f"{name} could not be measured: {error!r}")
            console.print(f"{name}: {time.monotonic() - began:.0f} s")
            progress.advance(task)
    machine = f"{os.cpu_count()} cores, {platform.machine()}, Python {where.version}"
    title = f"{machine}, {time.strftime('%Y-%m-%d')}, asyncio engine of openpectus 0.1.1585"
    # When redirected, it would be folded to 80 columns.
    Console(width=None if sys.stdout.isatty() else 160).print(table(rows, title))
    if arguments.json:
        figures = [{**attrs.asdict(row), "ratio": row.ratio} for row in rows]
        arguments.json.write_text(json.dumps({"machine": title, "rows": figures}, indent=1))
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
