"""Where everything is that a simulated engine made, and what may be missing of it at the end.

A message is received and answered, or it waits, was thinned, was set aside, or was lost with what a
process had in memory. The ledger checks that nothing else becomes of it, and that what is given up
leaves an even picture.
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
from trio_runner.simulation.trials._trace import Trace
from trio_runner.simulation.trials._watched_link import ROUNDING_S, RUN_EVENTS, SAMPLE, Key

CUT_MIN = 8
"""So many samples missing in a row are cut off, unless many are missing beside them as well."""

FEW = 12
"""Who has room for no more samples gives up of the 6 oldest: what then stays may lie far apart."""

COMMIT_S = 0.5
"""What a durable outbox may lose of samples, and forget of answers, when the process dies (s)."""

SLOW_DISK_S = 3.0
"""What a slow disk adds: 1 s until it is said to be, from the next sample, 2 s later (s)."""

Death = Literal["stopped", "raised", "killed", "torn"]
"""How a process ended: in order, by a bug of its engine, at once, or at once in mid-commit."""


@define(eq=False)
class Ledger:
    """The books; `on_violation` is called with the first rule that is broken."""

    trace: Trace
    on_violation: Callable[[str], None]
    violation: str | None = field(default=None, init=False)
    made: list[Key] = field(factory=list, init=False)
    """Every event and sample that the engine made, in order."""
    received: dict[Key, int] = field(factory=dict, init=False)
    """How often the aggregator has got each."""
    handled: set[Key] = field(factory=set, init=False)
    """What the aggregator has carried out."""
    excused: set[Key] = field(factory=set, init=False)
    """What was lost with a process that had it in memory only."""
    thinned: int = field(default=0, init=False)
    """By the statistics of the processes that have ended."""
    deaths: int = field(default=0, init=False)
    """Processes that ended otherwise than in order."""
    taint: bool = field(default=False, init=False)
    """Whether the aggregator may take the next samples for another run's, through no fault."""
    _made_at: dict[Key, float] = field(factory=dict, init=False)
    _place: dict[Key, int] = field(factory=dict, init=False)
    _newest: int = field(default=-1, init=False)
    """The place of the newest that was received."""
    _answered: dict[Key, float] = field(factory=dict, init=False)
    _set_aside: dict[Key, float] = field(factory=dict, init=False)
    _set_aside_now: int = field(default=0, init=False)
    """How many the process that lives has set aside."""
    _inherited: int = field(default=0, init=False)
    _numbers: dict[Key, int] = field(factory=dict, init=False)
    _numbered: dict[int, Key | None] = field(factory=dict, init=False)
    """What was sent with each number, None for a state."""
    _bodies: dict[Key, int] = field(factory=dict, init=False)
    """The hash of what was sent."""
    _durable: bool = field(default=True, init=False)
    """Whether the process that lives has its outbox on a disk."""
    _life_began: int = field(default=0, init=False)
    """How much was made before the process that lives."""
    _settled: int = field(default=0, init=False)
    """How much was made before the outbox last was empty: nothing of that can wait any more."""
    _engine_run: str | None = field(default=None, init=False)
    """The run that the engine has."""
    _engine_run_since: float = field(default=0.0, init=False)
    _runs: dict[str, str | None] = field(factory=dict, init=False)
    """The run that the aggregator has, of each name that the engine has had."""
    _healthy_disk_at: float = field(default=0.0, init=False)
    _slow_disks: int = field(default=0, init=False)
    """How many faults slow down the disk."""
    _slow_disk_until: float = field(default=-math.inf, init=False)
    _thinned_before: int = field(default=0, init=False)
    """What the process that lives had given up at the last check."""
    _newest_before: int = field(default=-1, init=False)
    """The place of the newest that was received by then."""
    _crowded: set[Key] = field(factory=set, init=False)
    """What waited while the outbox had room for few samples, so that none was sure of it."""

    def expect(self, holds: object, what: str) -> None:
        """Note a violation unless something holds."""
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
        """Note that the engine has another name, and what is kept of what waited under the old."""
        sometimes("kept apart", kept)
        waiting = self._inherited
        self._inherited = outbox.waiting + outbox.thinned + outbox.set_aside
        self.expect(len(kept) == waiting - self._inherited, f"{waiting} waited, kept is {kept}")
        self.excused.update(key for keys in kept for key in keys if key not in self.handled)
        self._settled = 0
        self._set_engine_run(None)
        # Who has heard of a run that was on hears of no end of it under this name.
        self.taint = True

    def note_damage(self) -> None:
        """Note that the disk has spoilt some of what waits, as was told: nobody knows what."""
        sometimes("damage told")
        self._numbered.clear()
        self._excuse(-1.0, events=True)
        self.taint = True

    def make_end_of_run(self, run_id: str) -> None:
        """Note that the outbox ends a run that was open when the process died."""
        self._add(("RunStoppedMsg", run_id))

    def made_at(self, key: Key) -> float:
        """Return when the engine made it (s), before all time if it never did."""
        return self._made_at.get(key, -math.inf)

    def is_given_up(self, key: Key) -> bool:
        """Tell whether it need not arrive: it was lost with a process, or set aside."""
        return key in self.excused or key in self._set_aside

    def fates(self) -> Iterator[tuple[Key, str]]:
        """Yield what has not arrived, and why; what still waits has no fate yet."""
        for place, key in enumerate(self.made):
            if key in self.handled:
                continue
            if key in self._set_aside:
                yield key, "set aside"
            elif key in self.excused:
                yield key, "lost with its process"
            elif key[0] == SAMPLE and place < self._newest:
                yield key, "given up, as the outbox was full"

    # Processes

    @contextmanager
    def slow_disk(self) -> Generator[None, None, None]:
        """Mark a time in which the disk is slow, or hangs."""
        self._slow_disks += 1
        try:
            yield
        finally:
            self._slow_disks -= 1
            self._slow_disk_until = trio.current_time() + SLOW_DISK_S

    @property
    def has_slow_disk(self) -> bool:
        """Whether what was put in just now may have to wait for its disk."""
        return bool(self._slow_disks) or trio.current_time() < self._slow_disk_until

    def begin_life(self, *, durable: bool, outbox: OutboxStatistics) -> None:
        """Note that a process has started, with what is in its outbox."""
        self._inherited = outbox.waiting + outbox.thinned + outbox.set_aside
        self._durable, self._life_began = durable, len(self.made)
        self._set_engine_run(None)
        self._healthy_disk_at = trio.current_time()
        self._set_aside_now = self._thinned_before = 0
        self._settled = 0  # what had gone may be back, if the disk was not told
        if not durable:
            self._numbers.clear()
            self._numbered.clear()

    def find_open_run(self, run_id: str | None, expected: str | None, *, in_doubt: bool) -> None:
        """Check the run that the outbox of a new process knows."""
        self._set_engine_run(run_id)
        beginning = ("RunStartedMsg", str(expected))
        if beginning in self._set_aside:
            expected = None  # a run is known by its beginning, and that was given up
        may_differ = in_doubt or beginning in self.excused
        if in_doubt:
            self._numbered.clear()  # how far they had come may not have been written
            # Nor may the end of a run have been: this process ends it again, or a later one.
            self._forget(("RunStoppedMsg", str(run_id)))
        self.expect(
            run_id == expected or may_differ, f"the outbox knows run {run_id}, open was {expected}"
        )

    def _forget(self, key: Key) -> None:
        if self._place.pop(key, None) is not None:
            self.excused.add(key)  # until it is made anew, which it is not while the run goes on
        self._numbers.pop(key, None)
        self._bodies.pop(key, None)
        self._answered.pop(key, None)
        self.received.pop(key, None)

    def end_life(self, how: Death, *, durable: bool, outbox: OutboxStatistics) -> None:
        """Note that a process has ended, and what it may have taken with it."""
        self.check_books(outbox)
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
            # Trio's thread does not wait for the disk: what it put in just now may not be on it.
            self.excused.update(key for key in self.made if self._made_at[key] >= now)
        if not durable or outbox.degraded is not None:
            # The beginning or the end of a run may be lost with it, or come once more.
            self.taint = True

    def _excuse(self, since: float, *, events: bool) -> None:
        for key in self.made:
            may_be_lost = self._made_at[key] >= since and (events or key[0] == SAMPLE)
            if may_be_lost and key not in self.handled:
                self.excused.add(key)
        for answers in (self._answered, self._set_aside):
            for key, at in list(answers.items()):
                if at >= since:  # the answer may be forgotten
                    del answers[key]
                    if key not in self.handled:
                        self.excused.add(key)

    def _check_loss(self, outbox: OutboxStatistics) -> None:
        """Check that a process takes with it what waited in its memory, and no more."""
        here = self.made[self._life_began :]
        lost = [key for key in here if key not in self.handled and key not in self._set_aside]
        # Of what was logged, any number is one message.
        events = sum(1 for key in lost if key[0] not in (SAMPLE, "errors"))
        waiting, thinned = outbox.waiting, outbox.thinned
        self.expect(events <= waiting, f"{events} events are lost, and {waiting} messages waited")
        self.expect(
            sum(1 for key in lost if key[0] != "errors") <= waiting + thinned,
            f"{len(lost)} messages are lost, {waiting} waited and {thinned} were given up",
        )

    # The run that the aggregator has

    def _follow_run(self, key: Key, engine_id: str) -> None:
        kind, run_id = key
        if kind == "RunStartedMsg":
            self.taint = self._has_no_end(run_id)
            self._runs[engine_id] = run_id
        elif kind == "RunStoppedMsg":
            # A run whose beginning was set aside cannot be the one that is on.
            known = ("RunStartedMsg", run_id) not in self._set_aside
            on = self._runs.get(engine_id)
            self.expect(
                on in (None, run_id) or not known, f"RunStopped {run_id} came while {on} was on"
            )
            self.taint = False
            self._runs[engine_id] = None

    def _has_no_end(self, run_id: str) -> bool:
        """Tell whether a run that begins on the wire may be one that nobody will end.

        Its end was lost, or may be, with a process that had it, or its beginning, in memory only.
        """
        beginning, end = ("RunStartedMsg", run_id), ("RunStoppedMsg", run_id)
        if beginning in self.excused:
            return True
        if not self._durable and self._place.get(beginning, 0) < self._life_began:
            return True  # who would have made its end is dead
        return end in self.excused and run_id != self._engine_run

    # At any time

    def check_books(self, outbox: OutboxStatistics) -> None:
        """Check that what was taken, or was left by an earlier process, is somewhere."""
        gone = outbox.delivered + outbox.thinned + outbox.set_aside + outbox.waiting
        taken = self._inherited + outbox.events_taken + outbox.samples_taken
        self.expect(gone == taken, f"{taken} messages were taken, {gone} are accounted for")
        self.expect(
            outbox.set_aside == self._set_aside_now,
            f"{outbox.set_aside} messages are said to be set aside, {self._set_aside_now} were",
        )

    def _note_thinned(self) -> None:
        """Note that samples were given up."""

    def _note_room(self, outbox: OutboxStatistics) -> None:
        """Note what waits, if samples were given up and few are left that could be."""
        if outbox.thinned > self._thinned_before:
            self._thinned_before = outbox.thinned
            sometimes("thinned")
            self._note_thinned()
            sometimes("thinned beside events", self._events_waiting())
            if outbox.waiting - self._not_to_be_thinned() <= FEW:
                sometimes("few samples left")
                # What is behind them may have arrived since.
                self._crowded.update(self.made[self._newest_before + 1 :])
        self._newest_before = self._newest

    def may_a_run_event_wait(self) -> bool:
        """Tell whether one may be in the outbox, or under way, so that states wait for it."""
        done = self._answered.keys() | self._set_aside.keys()
        young = self.made[self._settled :]
        return any(key[0] in RUN_EVENTS and key not in done for key in young)

    def _not_to_be_thinned(self) -> int:
        done = self._answered.keys() | self._set_aside.keys()
        return self._events_waiting() + sum(1 for key in self._numbers if key not in done)

    def _events_waiting(self) -> int:
        done = self._answered.keys() | self._set_aside.keys()
        young = self.made[self._settled :]
        return sum(1 for key in young if key[0] != SAMPLE and key not in done)

    # At the end

    def check_end(self, outbox: OutboxStatistics) -> None:
        """Check what holds when all has been delivered."""
        self.expect(outbox.waiting == 0, f"{outbox.waiting} messages were left waiting")
        given_up = self.excused | self._set_aside.keys()
        made = dict.fromkeys(self.made)  # once each: the end of a run may be made anew
        missing = [key for key in made if key not in self.handled and key not in given_up]
        events = [key for key in missing if key[0] != SAMPLE]
        self.expect(not events, f"{len(events)} events never arrived, the first: {events[:1]}")
        holes, told = len(missing) - len(events), self.thinned
        right = holes == told if not (self.deaths or self.excused) else holes <= told
        self.expect(right, f"{holes} samples never arrived, and {told} are said to be given up")
        self._check_evenly_thin(set(missing))

    def _check_evenly_thin(self, missing: set[Key]) -> None:
        """Check that of a long outage no part is gone as a whole."""
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
                self.expect(many, f"{length} samples in a row were given up, and few beside them")
