"""Where everything is that a simulated engine made, and what may be missing at the end.

A message is received and answered, or it waits, or it was thinned, set aside, or lost with a
process's memory. The ledger checks that nothing else happens to it. It also checks that thinned
samples are spread evenly.
"""

import math
from collections.abc import Callable, Collection, Generator, Iterator
from contextlib import contextmanager
from itertools import groupby
from typing import Literal

import trio
from attrs import define, field

from trio_runner._outbox import OutboxStatistics
from trio_runner.simulation.stand_ins._sometimes import sometimes
from trio_runner.simulation.trials._identities import Identities
from trio_runner.simulation.trials._trace import Trace
from trio_runner.simulation.trials._watched_link import ROUNDING_S, RUN_EVENTS, SAMPLE, Key

CUT_MIN = 8
"""This many samples missing in a row are a hole, unless many are missing beside them too."""

FEW = 12
"""With room for this few samples, thinning works on the oldest 6, so large gaps are legitimate."""

UNDER_WAY_S = 3
"""For how long a sample that was sent may not be on the disk yet, which takes it 2 s after the
first commit that finds it under way."""

COMMIT_S = 0.5
"""How long before a process dies its durable outbox may lose samples and forget answers (s)."""

SLOW_DISK_S = 3.0
"""What a slow disk adds (s): 1 s until it counts as slow, from the next sample, up to 2 s later."""

Death = Literal["stopped", "raised", "killed", "torn"]
"""How a process ended: cleanly, by a bug in its engine, killed, or killed in mid-commit."""


@define(eq=False)
class Ledger:
    """The books on all messages; `on_violation` is called with the first rule that is broken."""

    trace: Trace
    on_violation: Callable[[str], None]
    violation: str | None = field(default=None, init=False)
    made: list[Key] = field(factory=list, init=False)
    """Every event and sample that the engine made, in order."""
    received: dict[Key, int] = field(factory=dict, init=False)
    """How often the aggregator has received each."""
    handled: set[Key] = field(factory=set, init=False)
    """The events and samples that the aggregator has handled."""
    excused: set[Key] = field(factory=set, init=False)
    """Those that may be lost with a process that had them only in memory, or with its disk."""
    thinned: int = field(default=0, init=False)
    """How many were thinned, by the statistics of the processes that have ended."""
    deaths: int = field(default=0, init=False)
    """How many processes were killed."""
    taint: bool = field(default=False, init=False)
    """Whether the aggregator may mistake the next samples for another run's, not by our fault."""
    _made_at: dict[Key, float] = field(factory=dict, init=False)
    _place: dict[Key, int] = field(factory=dict, init=False)
    _newest: int = field(default=-1, init=False)
    """The place in `made` of the newest that was received."""
    _answered: dict[Key, float] = field(factory=dict, init=False)
    _set_aside: dict[Key, float] = field(factory=dict, init=False)
    _set_aside_now: int = field(default=0, init=False)
    """How many messages the present process has set aside."""
    _only_told_again: int = field(default=0, init=False)
    """How many of these were perhaps only told again, as the disk may have lost their answers."""
    _inherited: int = field(default=0, init=False)
    identities: Identities = field(init=False)
    """What was sent."""
    _durable: bool = field(default=True, init=False)
    """Whether the present process has its outbox on a disk."""
    _lives: bool = field(default=False, init=False)
    """Whether a process lives now; what a dead one has sent may still arrive."""
    _life_began: int = field(default=0, init=False)
    """How many events and samples were made before the present process."""
    _settled: int = field(default=0, init=False)
    """How many were made before the outbox was last empty: none of them can wait any more."""
    _engine_run: str | None = field(default=None, init=False)
    """The run that is on at the engine."""
    _engine_run_since: float = field(default=0.0, init=False)
    _runs: dict[str, str | None] = field(factory=dict, init=False)
    """The run that is on at the aggregator, for each id that the engine has had."""
    _healthy_disk_at: float = field(default=0.0, init=False)
    _slow_disks: int = field(default=0, init=False)
    """How many faults slow down the disk."""
    _slow_disk_until: float = field(default=-math.inf, init=False)
    _thinned_before: int = field(default=0, init=False)
    """How many samples the present process had thinned by the last check."""
    _newest_before: int = field(default=-1, init=False)
    """The place in `made` of the newest that was received by the last check."""
    _crowded: set[Key] = field(factory=set, init=False)
    """Messages that waited while the outbox had room for few samples: any may be thinned."""

    @identities.default
    def _nothing_sent(self) -> Identities:
        return Identities(self.expect)

    def expect(self, holds: object, what: str) -> None:
        """Note a violation unless `holds` is true; only the first counts."""
        if not holds and self.violation is None:
            self.violation = what
            self.trace.note("VIOLATION", what)
            self.on_violation(what)

    # What was made

    def _add(self, key: Key) -> None:
        assert key not in self._place, f"{key} was made twice"
        self.excused.discard(key)
        self._place[key] = len(self.made)
        self.made.append(key)
        self._made_at[key] = trio.current_time()
        if key[0] in ("RunStartedMsg", "RunStoppedMsg"):
            self._set_engine_run(key[1] if key[0] == "RunStartedMsg" else None)
        self.trace.note("made", *key, about=(key,))

    def _set_engine_run(self, run_id: str | None) -> None:
        self._engine_run, self._engine_run_since = run_id, trio.current_time()

    def part_from(self, kept: Collection[tuple[Key, ...]], outbox: OutboxStatistics) -> None:
        """Note that the engine has a new id, and which waiting messages are kept under the old."""
        sometimes("kept apart", kept)
        waiting = self._inherited
        self._inherited = outbox.waiting + outbox.thinned + outbox.set_aside
        self.expect(
            len(kept) == waiting - self._inherited,
            f"{waiting} messages waited, but kept under the old name are {kept}",
        )
        self.excused.update(key for keys in kept for key in keys if key not in self.handled)
        self._settled = 0
        self._set_engine_run(None)
        # If the aggregator knows a run under the old id, it will not hear of that run's end.
        self.taint = True

    def note_damage(self) -> None:
        """Note that a damage of the disk was told; it may have spoilt anything that waits."""
        sometimes("damage told")
        self.identities.forget_owners()
        self._excuse(-1.0, events=True)
        self.taint = True

    def make_end_of_run(self, run_id: str) -> None:
        """Note that the outbox ends a run that was open when the process died."""
        self._add(("RunStoppedMsg", run_id))

    def made_at(self, key: Key) -> float:
        """Return when the engine made an event or sample (s), or minus infinity if it never did."""
        return self._made_at.get(key, -math.inf)

    def is_given_up(self, key: Key) -> bool:
        """Tell whether an event or sample need not arrive: lost with a process, or set aside."""
        return key in self.excused or key in self._set_aside

    def fates(self) -> Iterator[tuple[Key, str]]:
        """Yield each event and sample that has not arrived, and why; skip those that still wait."""
        for place, key in enumerate(self.made):
            if key in self.handled:
                continue
            if key in self._set_aside:
                yield key, "set aside"
            elif key in self.excused:
                yield key, "lost with its process"
            elif key[0] == SAMPLE and place < self._newest:
                yield key, "given up because the outbox was full"

    # Processes

    @contextmanager
    def slow_disk(self) -> Generator[None, None, None]:
        """Mark a time in which the disk is slow or hangs."""
        self._slow_disks += 1
        try:
            yield
        finally:
            self._slow_disks -= 1
            self._slow_disk_until = trio.current_time() + SLOW_DISK_S

    @property
    def has_slow_disk(self) -> bool:
        """Whether a message that was put in just now may have to wait for the disk."""
        return bool(self._slow_disks) or trio.current_time() < self._slow_disk_until

    def begin_life(self, *, durable: bool, outbox: OutboxStatistics) -> None:
        """Note that a process has started, and what is in its outbox."""
        self._inherited = outbox.waiting + outbox.thinned + outbox.set_aside
        self._durable, self._life_began, self._lives = durable, len(self.made), True
        self._set_engine_run(None)
        self._healthy_disk_at = trio.current_time()
        self._set_aside_now = self._only_told_again = self._thinned_before = 0
        self._settled = 0  # delivered messages may be back, if the disk did not note their answers
        if not durable:
            self.identities.begin_anew()

    def find_open_run(self, run_id: str | None, expected: str | None, *, in_doubt: bool) -> None:
        """Check the open run that a new process finds in its outbox."""
        self._set_engine_run(run_id)
        beginning = ("RunStartedMsg", str(expected))
        if beginning in self._set_aside:
            expected = None  # a run is known by its beginning, and that was set aside
        may_differ = in_doubt or beginning in self.excused
        if in_doubt:
            self.identities.forget_owners()  # the last numbers may not have been written
            # Nor may the end of a run, so this process or a later one ends the run again.
            self._forget(("RunStoppedMsg", str(run_id)))
        self.expect(
            run_id == expected or may_differ,
            f"the outbox knows run {run_id}, but {expected} was on",
        )

    def _forget(self, key: Key) -> None:
        if self._place.pop(key, None) is not None:
            self.excused.add(key)  # until it is made again, which cannot be while the run goes on
        self.identities.forget(key)
        self._answered.pop(key, None)
        self.received.pop(key, None)

    def end_life(self, how: Death, *, durable: bool, outbox: OutboxStatistics) -> None:
        """Note that a process has ended, and what it may have taken with it."""
        self.check_books(outbox)
        self._note_room(outbox)  # a burst just before the end may have left no room
        self._lives = False
        self.thinned += outbox.thinned
        in_order = how in ("stopped", "raised")
        if not in_order:
            self.deaths += 1
        sometimes("ended by a bug", how == "raised")
        sometimes("left on disk" if durable else "lost with memory", outbox.waiting)
        now = trio.current_time()
        since = -1.0
        is_slow = durable and self.has_slow_disk
        commit_s = COMMIT_S + ROUNDING_S + SLOW_DISK_S * is_slow
        if durable:
            since = now - commit_s if not in_order else now + 1
            if outbox.degraded is not None:
                since = self._healthy_disk_at - commit_s
        if not durable:
            self._check_loss(outbox)
        if durable or outbox.waiting:
            self._excuse(since, events=not durable or is_slow or outbox.degraded is not None)
        if not in_order:
            # Trio's thread does not wait for the disk, so the newest messages may not be on it.
            self.excused.update(key for key in self.made if self._made_at[key] >= now)
        if not durable or outbox.degraded is not None:
            # A run event may be lost with the process, or come once more.
            self.taint = True

    def _excuse(self, since: float, *, events: bool) -> None:
        for key in self.made:
            is_under_way = key[0] == SAMPLE and key in self.identities
            may_be_lost = self._made_at[key] >= since - UNDER_WAY_S * is_under_way and (
                events or key[0] == SAMPLE
            )
            if may_be_lost and key not in self.handled:
                self.excused.add(key)
        for answers in (self._answered, self._set_aside):
            for key, at in list(answers.items()):
                if at >= since:  # the answer may be forgotten
                    del answers[key]
                    if key not in self.handled:
                        self.excused.add(key)

    def _check_loss(self, outbox: OutboxStatistics) -> None:
        """Check that a process loses no more than the messages that waited in its memory."""
        here = self.made[self._life_began :]
        lost = [key for key in here if key not in self.handled and key not in self._set_aside]
        # Any number of logged errors may be one message.
        events = sum(1 for key in lost if key[0] not in (SAMPLE, "errors"))
        waiting, thinned = outbox.waiting, outbox.thinned
        self.expect(
            events <= waiting, f"{events} events are lost, but only {waiting} messages waited"
        )
        self.expect(
            sum(1 for key in lost if key[0] != "errors") <= waiting + thinned,
            f"{len(lost)} messages are lost, but only {waiting} waited and {thinned} were given up",
        )

    # The run that the aggregator has

    def _follow_run(self, key: Key, engine_id: str) -> None:
        kind, run_id = key
        if kind == "RunStartedMsg":
            self.taint = self._has_no_end(run_id)
            self._runs[engine_id] = run_id
        elif kind == "RunStoppedMsg":
            # If a run's beginning was set aside, the aggregator cannot have that run on.
            known = ("RunStartedMsg", run_id) not in self._set_aside
            on = self._runs.get(engine_id)
            self.expect(
                on in (None, run_id) or not known, f"RunStopped {run_id} came while {on} was on"
            )
            self.taint = False
            self._runs[engine_id] = None

    def _has_no_end(self, run_id: str) -> bool:
        """Tell whether a run that begins on the wire may be one that will never be ended.

        That is so if a process had the run's beginning or end only in memory, and died or may have
        died with it.
        """
        beginning, end = ("RunStartedMsg", run_id), ("RunStoppedMsg", run_id)
        if beginning in self.excused:
            return True
        is_of_the_dead = not self._lives or self._place.get(beginning, 0) < self._life_began
        if not self._durable and is_of_the_dead:
            return True  # the process that would have ended the run is dead
        return end in self.excused and run_id != self._engine_run

    # At any time

    def check_books(self, outbox: OutboxStatistics) -> None:
        """Check that what was taken, or was left by an earlier process, is somewhere."""
        gone = outbox.delivered + outbox.thinned + outbox.set_aside + outbox.merged
        gone += outbox.waiting
        taken = self._inherited + outbox.events_taken + outbox.samples_taken
        self.expect(gone == taken, f"{taken} messages were taken, but {gone} are accounted for")
        self.expect(
            self._set_aside_now - self._only_told_again <= outbox.set_aside <= self._set_aside_now,
            f"{outbox.set_aside} messages are said to be set aside, but {self._set_aside_now} were",
        )

    def _note_thinned(self) -> None:
        """Note that samples were thinned."""

    def _note_room(self, outbox: OutboxStatistics) -> None:
        """Note what waits, if samples were thinned and only few are left that could be."""
        if outbox.thinned > self._thinned_before:
            self._thinned_before = outbox.thinned
            sometimes("thinned")
            self._note_thinned()
            sometimes("thinned beside events", self._events_waiting())
            if outbox.waiting - self._not_to_be_thinned() <= FEW:
                sometimes("few samples left")
                # Start from the last check: messages after that may have arrived since.
                self._crowded.update(self.made[self._newest_before + 1 :])
        self._newest_before = self._newest

    def may_a_run_event_wait(self) -> bool:
        """Tell whether a run event may wait or be unanswered; state messages wait for it then."""
        young = self.made[self._settled :]
        return any(key[0] in RUN_EVENTS and not self._is_done(key) for key in young)

    def _not_to_be_thinned(self) -> int:
        return self._events_waiting() + sum(1 for key in self.identities if not self._is_done(key))

    def _events_waiting(self) -> int:
        young = self.made[self._settled :]
        return sum(1 for key in young if key[0] != SAMPLE and not self._is_done(key))

    def _is_done(self, key: Key) -> bool:
        return key in self._answered or key in self._set_aside

    # At the end

    def check_end(self, outbox: OutboxStatistics) -> None:
        """Check what holds when everything has been delivered."""
        self.expect(outbox.waiting == 0, f"{outbox.waiting} messages were left waiting")
        given_up = self.excused | self._set_aside.keys()
        made = dict.fromkeys(self.made)  # once each: the end of a run may be made again
        missing = [key for key in made if key not in self.handled and key not in given_up]
        events = [key for key in missing if key[0] != SAMPLE]
        self.expect(not events, f"{len(events)} events never arrived, the first: {events[:1]}")
        holes, told = len(missing) - len(events), self.thinned
        right = holes == told if not (self.deaths or self.excused) else holes <= told
        self.expect(right, f"{holes} samples never arrived, but {told} are said to be given up")
        self._check_evenly_thin(set(missing))

    def _check_evenly_thin(self, missing: set[Key]) -> None:
        """Check that no part of a long outage is missing as a whole."""
        samples = [key for key in self.made if key[0] == SAMPLE]
        gone = [key in missing for key in samples]
        place = 0
        cut_off = missing - self._crowded
        for is_gone, run in groupby(samples, cut_off.__contains__):
            length, before = len(list(run)), place
            place += length
            if is_gone and length >= CUT_MIN:
                beside = gone[max(0, before - 2 * length) : before], gone[place:][: 2 * length]
                many = max(map(sum, beside)) * 4 >= length
                self.expect(many, f"{length} samples in a row were given up, but few beside them")
