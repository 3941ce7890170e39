"""The ticker: when samples are taken."""

import math
import sys
from collections.abc import Callable, Generator
from contextlib import contextmanager

import trio
from attrs import define, field

from trio_runner._grid import Grid
from trio_runner._histogram import Durations
from trio_runner._intake import Intake
from trio_runner._run_var import of_this_run
from trio_runner._timing import Timing

WAITING_MAX = 2
"""The link does not keep up once this many samples wait that were never sent."""


_grid: trio.lowlevel.RunVar[Grid] = trio.lowlevel.RunVar("grid")
"""The grid that all runners of a Trio run share."""


@define(eq=False)
class Ticker:
    """Samples the engine: at the steady rate within `linked`, at the offline rate otherwise.

    Its deadlines are whole ticks after its start, or at the instant that `Grid` gives it beside
    other engines of its process. So it does not drift. Ticks that were missed because something
    else held the thread are skipped, not made up for. It sleeps through ticks at which nothing is
    due, two of three with a link: many engines in one process would feel them.

    When the link does not keep up, samples are taken less often, down to the offline rate: they are
    sent in order, so the newest would be as old as the line is long. The first sample, and the
    first of each link, holds all tags, since the aggregator may know none.
    """

    _intake: Intake
    _timing: Timing
    _wake_sender: Callable[[], None]
    _offline_s: float = field(init=False)
    _interval_ticks: int = field(init=False)
    _start: float = field(default=0.0, init=False)
    _due: float = field(default=-math.inf, init=False)
    """The number of the next sample's tick."""
    _last: float = field(default=-math.inf, init=False)
    _is_linked: bool = field(default=False, init=False)
    _taken: float = field(default=-math.inf, init=False)
    """The number of the tick at which the last sample was taken."""
    _links: int = field(default=0, init=False)
    _links_told_all: int = field(default=-1, init=False)
    """How many links there had been when all tags were last told."""
    _wait: trio.CancelScope = field(factory=trio.CancelScope, init=False)
    lag_s: Durations = field(factory=Durations, init=False)
    """How late samples were taken (s)."""

    def __attrs_post_init__(self) -> None:
        self._offline_s = self._timing.offline_s
        self._interval_ticks = self._in_ticks(self._offline_s)

    def _in_ticks(self, interval_s: float) -> int:
        return max(1, round(interval_s / self._timing.tick_s))

    def set_data_log_interval(self, interval_s: float | None) -> None:
        """Sample offline at least as often as the unit's data log stores, from the next outage on.

        The aggregator keeps a sample only if it is more than one interval newer. At exactly one
        interval it would drop every second one, so a whole number of samples takes two ticks more
        than an interval: two, since the engine has ticks of its own. What is no time, such as an
        infinite interval, or None, which it becomes in a message, changes nothing.
        """
        if isinstance(interval_s, float | int) and 0 <= interval_s <= sys.float_info.max:
            samples = max(1, math.ceil(interval_s / self._timing.offline_s))
            self._offline_s = interval_s / samples + 2 * self._timing.tick_s

    @contextmanager
    def linked(self) -> Generator[None, None, None]:
        """Sample at the steady rate while there is a link."""
        self._is_linked = True
        self._sample_every(self._timing.steady_s)
        self._links += 1
        try:
            yield
        finally:
            self._is_linked = False
            self._sample_every(self._offline_s)

    def _sample_every(self, interval_s: float) -> None:
        self._interval_ticks = self._in_ticks(interval_s)
        self._wait.deadline = self._next_deadline()

    def _passed(self) -> int:
        """Return the number of the last tick; it is negative before tick 0."""
        return math.floor((trio.current_time() - self._start) / self._timing.tick_s + 1e-6)

    def _next_deadline(self) -> float:
        since = self._last if self._is_linked else self._taken
        self._due = max(self._passed() + 1, since + self._interval_ticks)
        return self._start + self._due * self._timing.tick_s

    def _keeps_up(self) -> bool:
        """Tell whether to take a sample; one that queues after others would be old when it is sent.

        In any case take the samples that the data log stores.
        """
        if self._intake.samples_waiting < WAITING_MAX:
            return True
        next_chance = self._last + self._interval_ticks
        return next_chance - self._taken > self._in_ticks(self._offline_s)

    async def run(self) -> None:
        """Sample until cancelled."""
        uod_info = self._intake.describe()
        if uod_info is not None:
            self.set_data_log_interval(uod_info.data_log_interval_seconds)
        if not self._is_linked:
            self._interval_ticks = self._in_ticks(self._offline_s)
        grid = of_this_run(_grid, Grid)
        with grid.place(trio.current_time(), self._timing.tick_s) as self._start:
            while True:
                with trio.CancelScope(deadline=self._next_deadline()) as self._wait:
                    await trio.sleep_forever()
                self.lag_s.note(max(0.0, trio.current_time() - self._wait.deadline))
                # We may be late, or a link may have changed what is due.
                self._last = min(self._due, self._passed())
                self._sample()

    def _sample(self) -> None:
        if self._keeps_up():
            self._intake.take_tags(whole=self._links_told_all < self._links)
            self._links_told_all = self._links
            self._taken = self._last
        self._intake.take_errors()
        self._intake.take_states()  # offline too: the outbox needs the last ones after a crash
        self._wake_sender()
