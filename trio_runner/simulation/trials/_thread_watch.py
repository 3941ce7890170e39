"""Find code that blocks Trio's thread: a mock clock does not notice the time that really passes."""

import sys
import time
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import NamedTuple

import trio
from attrs import define, field

HELD_S = 1.0
"""How long a step of the engine may take in real time (s); an answer to a call has 1.5 s."""

WAITED = Path("/proc/thread-self/schedstat")
"""Linux's file whose second number is how long the thread has waited for a processor (ns)."""

OURS = Path(__file__).parents[2], Path(trio.__file__).parents[1]
"""Folders whose code is not an engine's: this package, and the libraries beside Trio."""


class Moment(NamedTuple):
    """A moment in the life of a thread."""

    awake_s: float
    """The time on a clock that stops while the thread waits for a processor (s)."""
    worked_s: float
    """The processor time that the thread has used (s)."""
    waits: int
    """How often the thread has waited by its own choice, for hardware or for a time."""


def moment() -> Moment:
    """Return the present moment of this thread."""
    try:
        waited_ns = int(WAITED.read_text().split()[1])
    except OSError:
        waited_ns = 0
    return Moment(time.perf_counter() - waited_ns / 1e9, time.thread_time(), _waits())


def held_s(since: Moment) -> float:
    """Return how long the thread's own work has held it since then (s).

    A busy computer, or its host, may suspend the thread for seconds. It has not waited by its own
    choice then, and only its processor time counts.
    """
    now = moment()
    if now.waits > since.waits:
        return now.awake_s - since.awake_s
    return now.worked_s - since.worked_s


def _waits() -> int:
    if sys.platform == "linux":
        import resource

        return resource.getrusage(resource.RUSAGE_THREAD).ru_nvcsw
    return time.perf_counter_ns()  # waits are not counted here: it may have waited at any time


def held(who: str, took_s: float) -> str:
    """Return the text for a part of an engine that held the thread for so long (s)."""
    return f"the engine's {who} held Trio's thread for {took_s:.1f} s"


@define(eq=False)
class ThreadWatch(trio.abc.Instrument):
    """An instrument that measures the steps of the engine's tasks.

    `tasks` holds the tasks in which the engine was called, each with the name of what was called.
    Other tasks are the engine's if their code lies outside our folders. `on_held` is called with
    the name and the time that the step took (s).
    """

    tasks: dict[trio.lowlevel.Task, str]
    on_held: Callable[[str, float], None]
    _who: str = field(default="", init=False)
    _began: Moment | None = field(default=None, init=False)

    def before_task_step(self, task: trio.lowlevel.Task) -> None:
        """Note when a step of one of the engine's tasks begins."""
        self._who = self.tasks.get(task) or ("" if _is_ours(task) else task.name)
        self._began = moment() if self._who else None

    def after_task_step(self, task: trio.lowlevel.Task) -> None:
        """Call `on_held` if the step took too long."""
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
