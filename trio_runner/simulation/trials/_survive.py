"""`survive`: put your own engine into the storm, and get the oracle's verdict as an assertion."""

from collections.abc import Awaitable, Callable, Iterator, Sequence
from pathlib import Path
from typing import TypeVar, cast

from trio_runner.simulation.trials._faults import FAULTS
from trio_runner.simulation.trials._guest import Engine, Invitation
from trio_runner.simulation.trials._lanes import Lanes, lanes_of
from trio_runner.simulation.trials._picture import picture
from trio_runner.simulation.trials._record import Record
from trio_runner.simulation.trials._simulate import DURATION_S, Report, live, scheduled
from trio_runner.simulation.trials._trace import Trace

OF_THE_SIMULATED_ENGINE = {
    "bad_handlers",
    "big_archive",
    "bug",
    "burst",
    "cut_at_size",
    "long_run_log",
    "noisy_log",
    "slow_archive_line",
    "stuck_handlers",
    "tag_storm",
    "toggle_runs",
}
"""Faults that the simulated engine causes itself, or whose size depends on its messages."""

EngineT = TypeVar("EngineT", bound=Engine)


async def do_nothing(engine: object) -> None:
    """Do nothing, like an engine that only answers."""


def survive(
    make: Callable[[Callable[[], float]], EngineT],
    seed: int,
    duration_s: float = DURATION_S,
    *,
    run: Callable[[EngineT], Awaitable[object]] = do_nothing,
    kinds: Sequence[str] | None = None,
    keep: Sequence[int] | None = None,
    html: Path | str | None = None,
) -> Report:
    """Let your own engine live through the faults of a seed for duration_s (s, virtual).

    `make(clock)` makes the engine of a process: message builder, emitter and command handlers in
    one object, which takes its times from `clock` (seconds since the epoch). `run(engine)` is what
    the engine does by itself; it is cancelled when the process ends. Processes are killed and
    started again, each with a new engine, and people press Start and Stop. `kinds` and `keep`
    choose among the faults as for `simulate`. A picture of the life is written to the file `html`.
    Call it outside Trio, in a test that is not async. For the same life each time, seed any
    randomness of your engine too.

    This checks all that `simulate` checks, by what the engine says to its runner and what the
    aggregator makes of it. It also checks the engine. The engine must not raise in a message
    builder. It must tell of the beginning and the end of each run once, and show what it has told.
    It must stamp tags by the clock, and hold Trio's thread for less than a second of real time.
    Handlers may raise and take their time.

    Raises AssertionError that says which promise was broken, when, and how to repeat it.
    """
    __tracebackhide__ = True
    record = Record()
    # `run` gets only engines that `make` has made, so the cast is safe.
    invited = Invitation(make, cast("Callable[[Engine], Awaitable[object]]", run))
    known = sorted(FAULTS.keys() - OF_THE_SIMULATED_ENGINE)
    planned = scheduled(seed, duration_s, known, kinds, keep)
    report = live(seed, duration_s, planned, Trace(record=record), invited)
    call = _call(seed, duration_s, kinds, keep)
    if html is not None:
        verdict = report.violation or "Every promise was kept"
        page = picture(record, call, verdict, is_bad=report.violation is not None)
        Path(html).write_text(page, encoding="utf-8")
    if report.violation is not None:
        text = "\n".join(_told(report, lanes_of(record), call))
        raise AssertionError(text) from next(iter(invited.errors), None)
    return report


def _told(report: Report, lanes: Lanes, call: str) -> Iterator[str]:
    at_s, promise = lanes.violation or (report.simulated_s, report.violation)
    yield f"seed {report.seed} broke a promise at {at_s:.3f} s: {promise}"
    on = [fault.name for fault in lanes.faults if fault.from_s <= at_s <= fault.to_s]
    yield f"Faults that were on: {', '.join(on) or 'none'}"
    yield "The last lines of its trace:"
    yield from (f"  {line}" for line in report.last_lines)
    yield f"Repeat it with: {call}"


def _call(
    seed: int, duration_s: float, kinds: Sequence[str] | None, keep: Sequence[int] | None
) -> str:
    chosen = {"kinds": kinds, "keep": keep}
    more = "".join(f", {name}={what!r}" for name, what in chosen.items() if what is not None)
    return f"survive(..., seed={seed}, duration_s={duration_s:g}{more})"
