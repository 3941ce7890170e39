"""The rules of the public protocol that every engine must keep."""

from collections.abc import Callable, Iterable

import trio
from attrs import define, field

from trio_runner.protocol import models as mdl
from trio_runner.simulation.trials._oracle import Oracle

AGREE_S = 5.0
"""How long a control state may disagree with what was told of runs (s)."""

AHEAD_S = 1.0
"""How far a tag's time may be ahead of the clock, since engines round (s)."""

STILL_S = 1.0
"""A value that changes more than this after it was last told needs a new time (s)."""


@define(eq=False)
class Manners:
    """Watches the engine of one process. `clock` is its clock; all processes share `run_ids`."""

    oracle: Oracle
    clock: Callable[[], float]
    run_ids: set[str]
    run_id: str | None = field(default=None, init=False)
    """The run that was told of last, until its end is told."""
    _agreed_at: float = field(factory=trio.current_time, init=False)
    _latest_s: float = field(default=0.0, init=False)
    """The latest time that the clock has shown, since it may jump back."""
    _told: dict[str, tuple[float, mdl.TagValue]] = field(factory=dict, init=False)
    """Each tag as it was last told, and when by the clock (s)."""

    def expect(self, holds: object, what: str) -> None:
        """Note a violation by the engine unless `holds` is true."""
        self.oracle.expect(holds, what)

    def begin_run(self, run_id: str) -> None:
        """Note the beginning of a run; check that none is on and that its id is new."""
        on = self.run_id
        self.expect(on is None, f"on_start({run_id!r}) was called while run {on!r} was on")
        is_new = run_id not in self.run_ids
        self.expect(is_new, f"on_start({run_id!r}) was called with the id of another run")
        self.run_ids.add(run_id)
        self.run_id, self._agreed_at = run_id, trio.current_time()

    def end_run(self) -> None:
        """Note the end of a run; check that one is on."""
        self.expect(self.run_id is not None, "on_stop() was called while no run was on")
        self.run_id, self._agreed_at = None, trio.current_time()

    def show(self, *, is_running: bool) -> None:
        """Check that the control state agrees with what was told of runs, or has not for long."""
        now = trio.current_time()
        if is_running == (self.run_id is not None):
            self._agreed_at = now
        else:
            self.oracle.states_told.disagreed_at = now
        for_s = now - self._agreed_at
        what = (
            "that a run is on, but on_start() was not called"
            if is_running
            else f"that no run is on, but on_stop() was not called for run {self.run_id!r}"
        )
        self.expect(for_s <= AGREE_S, f"the control state has shown for {for_s:.1f} s {what}")

    def check_tags(self, tags: Iterable[mdl.TagValue]) -> None:
        """Check that tags have times of the engine's clock, and new values have new times.

        By these times the aggregator decides what is newer than what it has, and stores it.
        """
        now = self.clock()
        self._latest_s = max(self._latest_s, now)
        for tag in tags:
            ahead_s = tag.tick_time - self._latest_s
            self.expect(
                ahead_s <= AHEAD_S,
                f"the time of tag {tag.name!r} is {ahead_s:.3g} s ahead of the engine's clock",
            )
            told_at, before = self._told.get(tag.name, (now, tag))
            is_stale = tag.value != before.value and tag.tick_time == before.tick_time
            self.expect(
                not is_stale or now - told_at <= STILL_S,
                f"tag {tag.name!r} went from {before.value} to {tag.value}, but kept the same time",
            )
            self._told[tag.name] = (now, tag)
