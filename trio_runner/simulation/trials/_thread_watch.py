"""Tells who holds up Trio's thread: a mock clock knows nothing of the time that really passes."""

import sys
import time
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import NamedTuple

import trio
from attrs import define, field

HELD_S = 1.0
"""So long a step of the engine's may take of real time (s): an answer to a call has 1.5."""

WAITED = Path("/proc/thread-self/schedstat")
"""Where Linux counts, as the second number, how long the thread has waited for a processor (ns)."""

OURS = Path(__file__).parents[2], Path(trio.__file__).parents[1]
"""Folders of what is no engine's: this package's, and those of the libraries beside Trio."""


class Moment(NamedTuple):
    """A moment in the life of a thread."""

    awake_s: float
    """By a clock that stands still while the thread waits for a processor (s)."""
    worked_s: float
    """What it has had of processors (s)."""
    waits: int
    """How often it has waited of itself, as for hardware or for a time."""


def moment() -> Moment:
    """Return the moment that it is for this thread."""
    try:
        waited_ns = int(WAITED.read_text().split()[1])
    except OSError:
        waited_ns = 0
    return Moment(time.perf_counter() - waited_ns / 1e9, time.thread_time(), _waits())


def held_s(since: Moment) -> float:
    """Return how long the thread was held since then by what it does (s).

    A busy computer, or its host, may let it stand for seconds: it has not waited of itself then.
    """
    now = moment()
    if now.waits > since.waits:
        return now.awake_s - since.awake_s
    return now.worked_s - since.worked_s


def _waits() -> int:
    if sys.platform == "linux":
        import resource

        return resource.getrusage(resource.RUSAGE_THREAD).ru_nvcsw
    return time.perf_counter_ns()  # nobody counts: it may have waited at any time


def held(who: str, took_s: float) -> str:
    """Return what is told of a part of an engine that took so long (s)."""
    return f"the engine's {who} held Trio's thread for {took_s:.1f} s"


@define(eq=False)
class ThreadWatch(trio.abc.Instrument):
    """Measures the steps of the tasks that are the engine's.

    `tasks` has those that it was called in, by what was called; others are known by where their
    code is. `on_held` is called with who it was and how long it took (s).
    """

    tasks: dict[trio.lowlevel.Task, str]
    on_held: Callable[[str, float], None]
    _who: str = field(default="", init=False)
    _began: Moment | None = field(default=None, init=False)

    def before_task_step(self, task: trio.lowlevel.Task) -> None:
        """Note when a step of the engine's begins."""
        self._who = self.tasks.get(task) or ("" if _is_ours(task) else task.name)
        self._began = moment() if self._who else None

    def after_task_step(self, task: trio.lowlevel.Task) -> None:
        """Tell if it took long."""
        if self._began is not None:
            took_s = held_s(self._began)
            if took_s >= HELD_S:
                self.on_held(self._who, took_s)


def _is_ours(task: trio.lowlevel.Task) -> bool:
    code = getattr(task.coro, "cr_code", None)
    return code is None or _is_file_ours(code.co_filename)


@cache
def _is_file_ours(name: str) -> bool:
    return any(Path(name).is_relative_to(folder) for folder in OURS)
