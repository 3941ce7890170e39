"""Tells who holds up Trio's thread: a mock clock knows nothing of the time that really passes."""

import time
from collections.abc import Callable

import trio
from attrs import define, field

HELD_S = 1.0
"""So long a step of a task may take of real time (s): an answer to a call has 1.5."""


def held(who: str, took_s: float) -> str:
    """Return what is told of a part of an engine that took so long (s)."""
    return f"the engine's {who} held Trio's thread for {took_s:.1f} s"


@define(eq=False)
class ThreadWatch(trio.abc.Instrument):
    """Measures each step of each task.

    `entered` has what of the engine was called in this step; `on_held` is called with who it was
    and how long it took (s).
    """

    entered: list[str]
    on_held: Callable[[str, float], None]
    _began: float = field(default=0.0, init=False)

    def before_task_step(self, task: trio.lowlevel.Task) -> None:
        """Note when a step begins."""
        self.entered.clear()
        self._began = time.perf_counter()

    def after_task_step(self, task: trio.lowlevel.Task) -> None:
        """Tell if it took long."""
        took_s = time.perf_counter() - self._began
        if took_s >= HELD_S:
            self.on_held(self.entered[-1] if self.entered else task.name, took_s)
