"""A check of what the aggregator has stored against what the engine did.

Answers alone prove little: a sample may be answered with Success and thrown away. So this looks
into the aggregator stand-in, which stores, refuses and throws away as the real one does. It
compares the plot log, the listed runs and the notifications that were passed on.
"""

import math
from bisect import bisect_right
from collections import Counter

import trio
from attrs import define, field

from trio_runner.protocol import engine_messages as em
from trio_runner.simulation.stand_ins._aggregator import AggregatorRules
from trio_runner.simulation.trials._oracle import Oracle
from trio_runner.simulation.trials._watched_link import SAMPLE, Key

VALUE = "Count"
"""The tag that is plotted; its value is different in every sample."""

LISTED_MAX = 6
"""How often a run may be listed: once more for each time that its end is sent again.

An aggregator that works on an archive ends the link itself if somebody presses a button meanwhile.
That can happen to several tries in a row.
"""

AGE_S = 5.0
"""How old the newest value may be, apart from its time on the way (s)."""

SETTLED_S = 10.0
"""How long nothing must have stood in the way before the age is checked (s)."""

CATCHING_UP = 3
"""How many times the duration of catching up is added to that.

Samples that were made meanwhile go out first, in order. The thinnest path that must carry the data
log's samples is three quarters full with them.
"""

ROUNDING_S = 1e-6


@define(eq=False)
class Stored:
    """Follows samples and runs from the engine to where people look for them."""

    oracle: Oracle
    aggregator: AggregatorRules
    interval_s: float
    """The engine's data-log interval (s)."""
    _samples: dict[str, list[tuple[float, int]]] = field(factory=dict, init=False)
    """The time on the wall clock (s) and the value of each sample, by its run."""
    _made_at: dict[int, float] = field(factory=dict, init=False)
    """When each value was made that the aggregator does not have yet (s)."""
    _newest_made_at: float = field(default=-math.inf, init=False)
    """When the newest value that the aggregator has was made (s)."""
    _quiet_since: float = field(default=0.0, init=False)
    _doubtful: set[str] = field(factory=set, init=False)
    """Runs that the aggregator may have mistaken for others, through no fault of ours."""
    _offset_s: float = field(default=math.nan, init=False)
    _clock_has_jumped: bool = field(default=False, init=False)

    def make(self, message: em.EngineMessage, run_id: str | None) -> None:
        """Note a message that the engine hands over, and its run."""
        if not isinstance(message, em.TagsUpdatedMsg):
            return
        tag = message.tags[0]
        self._made_at[int(str(tag.value))] = trio.current_time()
        offset_s = tag.tick_time - trio.current_time()
        # After the clock jumps back, nothing is newer than what is stored.
        self._clock_has_jumped |= abs(offset_s - self._offset_s) > ROUNDING_S
        self._offset_s = offset_s
        if run_id is not None:
            samples = self._samples.setdefault(run_id, [])
            samples.append((tag.tick_time, int(str(tag.value))))

    def receive(self, message: em.EngineMessage, refused: str | None) -> None:
        """Note a message that the aggregator has received, and why it had no effect if it had none.

        While the oracle is tainted, mark the run on the aggregator's side as doubtful.
        """
        if isinstance(message, em.TagsUpdatedMsg) and refused is None:
            made_at = self._made_at.pop(int(str(message.tags[0].value)), -math.inf)
            self._newest_made_at = max(self._newest_made_at, made_at)
        if not self.oracle.taint:
            return
        record = self.aggregator.engines.get(message.engine_id)
        if record is not None and record.unit.run is not None:
            self._doubtful.add(record.unit.run.run_id)
        run_id = getattr(message, "run_id", None)
        if run_id is not None:
            self._doubtful.add(run_id)

    # At any time

    def check_second(self, *, is_quiet: bool, way_s: float) -> None:
        """Check that the newest value is young if nothing has stood in its way for a while.

        `is_quiet` says whether that is so now, and `way_s` is a message's time on the way (s).
        """
        now = trio.current_time()
        if not is_quiet:
            self._quiet_since = now
        if now - self._quiet_since >= SETTLED_S + CATCHING_UP * self.oracle.catching_up_s:
            age_s = now - self._newest_made_at
            young = age_s <= AGE_S + way_s
            self.oracle.expect(young, f"the newest value at the aggregator is {age_s:.1f} s old")

    # At the end

    def check_end(self) -> None:
        """Check what people find when everything has been delivered."""
        made = set(self.oracle.made)
        sure = [key for key in self.oracle.made if not self.oracle.is_given_up(key)]
        self._check_notifications(sure)
        listed = Counter(run.run_id for run in self.aggregator.recent_runs)
        for kind, run_id in sure:
            ends = ("RunStartedMsg", run_id), ("RunStoppedMsg", run_id)
            is_sure = run_id not in self._doubtful and not any(map(self.oracle.is_given_up, ends))
            if kind != "RunStoppedMsg" or not is_sure or not made.issuperset(ends):
                continue
            times = listed[run_id]
            self.oracle.expect(1 <= times <= LISTED_MAX, f"run {run_id} is listed {times} times")
            if not (self._clock_has_jumped or self.oracle.thinned):
                self._check_plot(run_id)

    def _check_notifications(self, sure: list[Key]) -> None:
        told = [n for record in self.aggregator.engines.values() for n in record.notifications]
        bodies = {str(message.notification.body) for message in told}
        for kind, body in sure:
            self.oracle.expect(
                kind != "notification" or body in bodies, f"nobody got the notification {body}"
            )

    def _check_plot(self, run_id: str) -> None:
        """Check that each sample of a run has a stored one at most an interval before it."""
        plotted = self.aggregator.plot_log.get(run_id, {}).get(VALUE, [])
        # Samples that a disk has brought back are stored a second time, after newer ones.
        stored = sorted(sample.tick_time for sample in plotted)
        made = dict.fromkeys(value for _, value in self._samples.get(run_id, ()))
        for sample in plotted:
            self.oracle.expect(
                sample.value in made,
                f"the value {sample.value} is stored in run {run_id}, but was not made there",
            )
        for at_s, value in self._samples.get(run_id, ()):
            place = bisect_right(stored, at_s + ROUNDING_S)
            before_s = stored[place - 1] if place else -math.inf
            is_there = at_s - before_s <= self.interval_s + ROUNDING_S
            key = (SAMPLE, str(value))
            is_excused = self.oracle.is_given_up(key) or key in self.oracle.passed
            if not is_there and not is_excused:
                self.oracle.expect(False, f"the value {value} of run {run_id} was not stored")
