"""The line itself: what stands in it, what is in flight, what lets others pass, and its bound."""

import itertools
import logging
import threading
import time
from bisect import insort
from collections import deque
from collections.abc import Iterable
from pathlib import Path

from attrs import define, field

from trio_runner._outbox._entry import OUTBOX_BYTES_MAX, Entry
from trio_runner._outbox._journal import Journal
from trio_runner._outbox._shrinking import smaller_end
from trio_runner._outbox._thinning import every_second_of_the_densest
from trio_runner._outbox._threads import Lock, Threads
from trio_runner._say_once import SayOnce
from trio_runner._warnings import Warnings
from trio_runner.protocol import engine_messages as em
from trio_runner.protocol import pack

logger = logging.getLogger(__name__)

PASSED_AFTER = 3
"""After this many failures of a notice, the end of a run passes it too."""

FAILURES_MAX = 21
"""How often an event fails before it is set aside, which takes at least 15 min of pauses.

The pauses are 1, 2, 4, 8, 16, 32 s and then 60 s each: 63 s + 14 * 60 s = 903 s.
"""

SAMPLE_FAILURES_MAX = 8
"""How often a sample fails before it is set aside: 63 s + 60 s = 123 s of pauses."""

SMALLER_AFTER_CUTS = 3
"""If a link ends while the end of a run is alone in flight, and the message has failed this often,
it goes out with less in it."""

THINNED_FROM, THINNED_TO = 8, 16
"""Thinning begins if at least one message of 8 in the line is a sample that was never sent, and
stops when fewer than one of 16 is."""


def _number(entry: Entry) -> int:
    return entry.sequence_number


def _due_at(entry: Entry) -> float:
    return entry.due_at


def _no_counts() -> dict[str, int]:
    return dict.fromkeys(
        ("event", "sample", "delivered", "thinned", "set_aside", "merged", "archives_left_out"), 0
    )


@define(eq=False)
class Line:
    """Events and samples in the order in which they were taken.

    Messages in flight are kept apart from them. So are notices that stand aside so that samples can
    pass.
    """

    bytes_max: int = OUTBOX_BYTES_MAX
    threads: Threads = field(default=threading, kw_only=True)
    """Makes the locks. Tests that explore how threads meet give a scheduler of their own."""
    open_run: Entry | None = field(default=None, init=False)
    """RunStarted of the run that the aggregator knows to be on, to be repeated on a new link."""

    cut: Entry | None = field(default=None, init=False)
    """What was alone in flight when the link before this one ended."""

    _knows_run: bool = field(default=True, init=False)
    """Whether the aggregator has taken the beginning of the run to which outgoing messages
    belong."""
    warnings: Warnings = field(factory=Warnings, init=False)
    """What the unit's people are to see of its messages and their disk."""

    _journal: Journal = field(factory=Journal, init=False)
    _line: deque[Entry] = field(factory=deque, init=False)
    _in_flight: dict[int, Entry] = field(factory=dict, init=False)
    _aside: list[Entry] = field(factory=list, init=False)
    """Notices that stand aside so that samples can pass, in order."""
    _lock: Lock = field(init=False)
    _numbers: int = field(default=0, init=False)
    _bytes: int = field(default=0, init=False)
    _is_in_order: bool = field(default=True, init=False)
    """Whether what is in flight was sent in the order of its numbers."""
    _run_events: int = field(default=0, init=False)
    """How many run events are not delivered yet."""
    _thinnable: int = field(default=0, init=False)
    """How many samples in the line were never sent."""
    _counts: dict[str, int] = field(factory=_no_counts, init=False)
    _say: SayOnce = field(factory=lambda: SayOnce(logger), init=False)

    @_lock.default
    def _new_lock(self) -> Lock:
        return self.threads.RLock()

    def next_number(self) -> int:
        """Return the next sequence number."""
        with self._lock:
            self._numbers += 1
            return self._numbers

    @property
    def last_number(self) -> int:
        """The last sequence number that was given out."""
        return self._numbers

    def head(self) -> Entry | None:
        """Return what is to be sent next, or None if there is nothing yet."""
        with self._lock:
            return self._line[0] if self._line and self._line[0].is_queued else None

    @property
    def has_line(self) -> bool:
        """Whether messages stand in line, although `head` may give none of them yet."""
        return bool(self._line)

    @property
    def has_aside(self) -> bool:
        """Whether a notice stands aside."""
        return bool(self._aside)

    def next_aside(self) -> Entry:
        """Return the notice that is to be sent next of those aside; there must be one.

        That is the first without a pause, or else the one that is due first.
        """
        with self._lock:
            never_failed = (entry for entry in self._aside if not entry.due_at)
            return next(never_failed, None) or min(self._aside, key=_due_at)

    @property
    def is_held_up(self) -> bool:
        """Whether a notice that stands aside has to go before the end of a run."""
        with self._lock:
            return any(entry.failures < PASSED_AFTER for entry in self._aside)

    def oldest_number(self) -> int | None:
        """Return the lowest sequence number of what is not delivered, or None if there is nothing.

        A notice that has failed so often that nothing waits for it does not count.
        """
        with self._lock:
            oldest = [self._line[0].sequence_number] if self._line else []
            if self._in_flight:
                numbers = self._in_flight
                oldest.append(next(iter(numbers)) if self._is_in_order else min(numbers))
            awaited = (e.sequence_number for e in self._aside if e.failures < PASSED_AFTER)
            oldest += itertools.islice(awaited, 1)
            return min(oldest, default=None)

    @property
    def has_run_events(self) -> bool:
        """Whether a run event is not delivered yet."""
        return self._run_events > 0

    @property
    def samples_waiting(self) -> int:
        """How many samples have never been sent."""
        return self._thinnable

    def take(self) -> Entry:
        """Take the head. It is in flight until `delivered`, `retry`, `set_aside` or `rewind`."""
        with self._lock:
            return self._take(self._line.popleft())

    def let_pass(self) -> None:
        """Let the head, which is a notice, stand aside for what comes after it."""
        with self._lock:
            insort(self._aside, self._line.popleft(), key=_number)

    def take_aside(self, entry: Entry) -> Entry:
        """Take a notice that stands aside. It is in flight like what `take` takes."""
        with self._lock:
            self._aside.remove(entry)
            return self._take(entry)

    def _take(self, entry: Entry) -> Entry:
        entry.tries += 1
        last = next(reversed(self._in_flight), 0)
        self._is_in_order = last < entry.sequence_number and (self._is_in_order or not last)
        self._in_flight[entry.sequence_number] = entry
        if entry.tries == 1:
            self._thinnable -= not entry.is_event
            self._journal.sent(entry)
        return entry

    def delivered(self, entry: Entry) -> None:
        """Remove a message that the aggregator has."""
        with self._lock:
            is_stored = self._knows_run or entry.is_event
            counted_as = "delivered" if is_stored else "set_aside"
            self._drop([self._in_flight.pop(entry.sequence_number)], counted_as)
            self._journal.gone(entry)
            if entry.is_run_event:
                self._knows_run = True
            if entry.kind is em.RunStartedMsg:
                self.open_run = entry
            elif entry.kind is em.RunStoppedMsg:
                self.open_run = None

    def retry(self, entry: Entry, due_at: float) -> None:
        """Put a message that is in flight back, before everything newer; a notice stands aside.

        It is tried again from `due_at` on (s on the sender's clock).
        """
        with self._lock:
            entry.due_at = due_at
            entry.links = 0  # a message that is answered ends no link
            del self._in_flight[entry.sequence_number]
            if entry.is_notice:
                insort(self._aside, entry, key=_number)
            else:
                self._put_back([entry])

    def failed(self, entry: Entry, why: str, due_at: float) -> None:
        """Note that the aggregator failed to handle a message; try it again or set it aside."""
        entry.failures += 1
        if not self._is_given_up(entry) or self._shrink(entry):
            self.retry(entry, due_at)
        else:
            self.set_aside(entry, why)

    def refused(self, entry: Entry, why: str) -> None:
        """Note that the aggregator refuses a message for good; make it smaller or set it aside."""
        if self._shrink(entry):
            self.retry(entry, 0)
        else:
            self.set_aside(entry, why)

    def _is_given_up(self, entry: Entry) -> bool:
        return entry.failures >= (FAILURES_MAX if entry.is_event else SAMPLE_FAILURES_MAX)

    def _shrink(self, entry: Entry) -> bool:
        """Make a message smaller if possible; return whether it was."""
        smaller = smaller_end(entry.text) if entry.kind is em.RunStoppedMsg else None
        if smaller is None:
            return False
        text, left_out = smaller
        self._warn(logging.ERROR, "%s goes out without its %s", entry, left_out)
        with self._lock:
            self._counts["archives_left_out"] += left_out == "archive"
            self._replace(entry, text)
        return True

    def _replace(self, entry: Entry, text: str) -> None:
        self._bytes -= entry.size
        entry.replace(pack(text))
        self._bytes += entry.size
        self._journal.changed(entry)

    def set_aside(self, entry: Entry, why: str) -> None:
        """Give up a message for good, so that the line goes on."""
        text = "The aggregator does not take %s, so it is set aside: %s"
        # another error log about it would fail in turn, without end
        if entry.kind is em.ErrorLogMsg:
            logger.error(text, entry, why)
        else:
            self._warn(logging.ERROR, text, entry, why)
        with self._lock:
            self._drop([self._in_flight.pop(entry.sequence_number)], "set_aside")
            self._journal.set_aside(entry, why)
            if entry.kind is em.RunStoppedMsg:
                self.open_run = None  # otherwise every new link would begin it once more
        if entry.is_run_event:
            self.go_on(knows_run=entry.kind is em.RunStoppedMsg)

    def go_on(self, *, knows_run: bool) -> None:
        """Note whether the aggregator knows the run to which the next message belongs.

        If it does not, it answers samples of that run with Success and throws them away. So they do
        not count as delivered.
        """
        with self._lock:
            if self._knows_run and not knows_run:
                text = "The aggregator has not taken the beginning of a run and may store nothing"
                self._warn(logging.ERROR, "%s of it: its samples count as given up", text)
            self._knows_run = knows_run

    @property
    def in_flight(self) -> int:
        """How many messages are unanswered."""
        return len(self._in_flight)

    def rewind(self, *, beside: bool = False) -> None:
        """Put everything in flight back to the head for a new link, since its outcome is unknown.

        A message that was alone in flight when the link ended may be why it did. `beside` tells
        whether anything was unanswered that is not in the outbox.
        """
        with self._lock:
            self.cut = None
            for entry in self._in_flight.values():
                entry.links += 1
            if len(self._in_flight) == 1 and not beside:
                self._note_cut(*self._in_flight.values())
            self._put_back([*self._in_flight.values(), *self._aside])
            self._in_flight.clear()
            self._aside.clear()

    def _note_cut(self, entry: Entry) -> None:
        self.cut = entry
        entry.failures += 1
        has_shrunk = entry.failures >= SMALLER_AFTER_CUTS and self._shrink(entry)
        if not has_shrunk and self._is_given_up(entry):
            self.set_aside(entry, f"{entry.failures} links ended while it was sent")

    def _put_back(self, entries: Iterable[Entry]) -> None:
        back = list(entries)
        newest = max((entry.sequence_number for entry in back), default=0)
        while self._line and self._line[0].sequence_number < newest:
            back.append(self._line.popleft())
        back.sort(key=_number, reverse=True)
        self._line.extendleft(back)

    def __len__(self) -> int:
        """Return how many events and samples are not yet delivered."""
        return len(self._line) + len(self._in_flight) + len(self._aside)

    def _waiting(self) -> list[Entry]:
        """Return everything that is not delivered, in no particular order."""
        return [*self._in_flight.values(), *self._aside, *self._line]

    def _oldest_s(self) -> float | None:
        """Return how long ago the oldest undelivered message was taken (s), or None."""
        in_flight = list(self._in_flight.values())
        if self._is_in_order:
            del in_flight[1:]
        oldest = [*in_flight, *self._aside[:1], *itertools.islice(self._line, 1)]
        taken_at = min((entry.taken_at for entry in oldest), default=None)
        return None if taken_at is None else max(0.0, time.time() - taken_at)

    def _append(self, entry: Entry) -> None:
        self._line.append(entry)
        self._bytes += entry.size
        self._run_events += entry.is_run_event
        self._thinnable += not entry.is_event
        self._journal.added(entry)
        self._keep_bound()

    def _keep_bound(self) -> None:
        """Thin the line while it is over its bound.

        Thinning looks at the whole line, so it waits until there are enough samples to be worth it.
        If events alone are over the bound, each `put` would otherwise cost as much as the line is
        long.
        """
        if self._thinnable * THINNED_FROM < len(self._line):
            return
        while self._bytes > self.bytes_max and self._thinnable * THINNED_TO >= len(self._line):
            if not self._thin():
                break

    def _thin(self) -> bool:
        """Give up samples of the oldest half, where they are densest; return whether any were.

        A sample that was sent once may have arrived, so it stays: giving it up would make the count
        a guess.
        """
        samples = [entry for entry in self._line if not entry.is_event and not entry.tries]
        given_up = every_second_of_the_densest(samples)
        if not given_up:
            return False
        gone = set(map(id, given_up))
        self._line = deque(entry for entry in self._line if id(entry) not in gone)
        self._thinnable -= len(given_up)
        self._drop(given_up, "thinned")
        for entry in given_up:
            self._journal.gone(entry)
        text = (
            f"The outbox has reached its bound of {self.bytes_max} bytes: in its oldest half every"
            " second sample is given up, where samples are densest"
        )
        thinned = self._counts["thinned"]
        self._say(logging.WARNING, "%s; %d in all", text, thinned, about="the bound")
        self.warnings.tell(logging.WARNING, text)  # the running count is in the statistics
        return True

    def _warn(self, level: int, text: str, *values: object) -> None:
        """Log a text and show it to the unit's people, without the computer's folders."""
        logger.log(level, text, *values)
        told = text % values
        for path in values:
            if isinstance(path, Path):
                told = told.replace(str(path), path.name)
        self.warnings.tell(level, told)

    def _drop(self, entries: Iterable[Entry], counted_as: str) -> None:
        for entry in entries:
            self._bytes -= entry.size
            self._run_events -= entry.is_run_event
            self._counts[counted_as] += 1
