"""The line itself: what stands in it, what is in flight, and its bound in bytes."""

import logging
import threading
from collections import deque
from collections.abc import Iterable

from attrs import define, field

from trio_runner._outbox._entry import OUTBOX_BYTES_MAX, Entry
from trio_runner._outbox._journal import Journal
from trio_runner._outbox._thinning import every_second_of_the_densest
from trio_runner.protocol import engine_messages as em

logger = logging.getLogger(__name__)

THINNED_FROM, THINNED_TO = 8, 16
"""The line is thinned if one of 8 in it is a sample that was never sent, until one of 16 is."""


def _no_counts() -> dict[str, int]:
    return dict.fromkeys(
        ("event", "sample", "delivered", "thinned", "set_aside", "archives_left_out"), 0
    )


@define(eq=False)
class Line:
    """Events and samples in the order in which they were taken, those in flight apart."""

    bytes_max: int = OUTBOX_BYTES_MAX
    open_run: Entry | None = field(default=None, init=False)
    """RunStarted of the run that is on as the aggregator knows it, to be repeated on a new link."""

    _journal: Journal = field(factory=Journal, init=False)
    _line: deque[Entry] = field(factory=deque, init=False)
    _in_flight: dict[int, Entry] = field(factory=dict, init=False)
    _lock: threading.RLock = field(factory=threading.RLock, init=False)
    _numbers: int = field(default=0, init=False)
    _bytes: int = field(default=0, init=False)
    _retries: int = field(default=0, init=False)
    _events: int = field(default=0, init=False)
    _thinnable: int = field(default=0, init=False)
    """How many samples in the line were never sent."""
    _counts: dict[str, int] = field(factory=_no_counts, init=False)

    def next_number(self) -> int:
        """Return the next sequence number."""
        with self._lock:
            self._numbers += 1
            return self._numbers

    def head(self) -> Entry | None:
        """Return what is to be sent next, None if there is nothing yet."""
        with self._lock:
            return self._line[0] if self._line and self._line[0].is_queued else None

    def oldest_number(self) -> int | None:
        """Return the least sequence number of what is not delivered, None if there is nothing."""
        with self._lock:
            if not self._in_flight:
                return self._line[0].sequence_number if self._line else None
            # What is tried again is in flight behind what is newer, and rare.
            oldest = next(iter(self._in_flight)) if not self._retries else min(self._in_flight)
            return min(oldest, self._line[0].sequence_number) if self._line else oldest

    @property
    def has_events(self) -> bool:
        """Whether an event is not delivered yet."""
        return self._events > 0

    def take(self) -> Entry:
        """Take the head; it is in flight until `delivered`, `retry`, `set_aside` or `rewind`."""
        with self._lock:
            entry = self._line.popleft()
            entry.tries += 1
            self._in_flight[entry.sequence_number] = entry
            if entry.tries == 1:
                self._thinnable -= not entry.is_event
                self._journal.sent(entry)
            return entry

    def delivered(self, entry: Entry) -> None:
        """Let a message go: the aggregator has it."""
        with self._lock:
            self._drop([self._in_flight.pop(entry.sequence_number)], "delivered")
            self._journal.gone(entry)
            if entry.kind is em.RunStartedMsg:
                self.open_run = entry
            elif entry.kind is em.RunStoppedMsg:
                self.open_run = None

    def retry(self, entry: Entry) -> None:
        """Put a message that is in flight back, in front of all that is newer."""
        with self._lock:
            self._put_back([self._in_flight.pop(entry.sequence_number)])
            self._retries += 1

    def set_aside(self, entry: Entry, why: str) -> None:
        """Give up a message that the aggregator will never take, so that the line goes on."""
        logger.error("The aggregator does not take %s, it is set aside: %s", entry, why)
        with self._lock:
            self._drop([self._in_flight.pop(entry.sequence_number)], "set_aside")
            self._journal.set_aside(entry, why)
            if entry.kind is em.RunStoppedMsg:
                self.open_run = None  # or every new link would begin it once more

    def rewind(self) -> None:
        """Put all that is in flight back to the head: the link is new, its outcome unknown."""
        with self._lock:
            self._put_back(self._in_flight.values())
            self._in_flight.clear()
            self._retries = 0

    def _put_back(self, entries: Iterable[Entry]) -> None:
        tried = list(entries)
        while self._line and self._line[0].tries:
            tried.append(self._line.popleft())
        tried.sort(key=lambda entry: entry.sequence_number, reverse=True)
        self._line.extendleft(tried)

    def __len__(self) -> int:
        """Return how many events and samples are not yet delivered."""
        return len(self._line) + len(self._in_flight)

    def _append(self, entry: Entry) -> None:
        self._line.append(entry)
        self._bytes += entry.size
        self._events += entry.is_event
        self._thinnable += not entry.is_event
        self._journal.added(entry)
        self._keep_bound()

    def _keep_bound(self) -> None:
        """Thin the line while it is over its bound.

        Thinning looks at the whole line, so it waits for samples that are worth it: where events
        alone are over the bound, a put would else cost as much as the line is long.
        """
        if self._thinnable * THINNED_FROM < len(self._line):
            return
        while self._bytes > self.bytes_max and self._thinnable * THINNED_TO >= len(self._line):
            if not self._thin():
                break

    def _thin(self) -> bool:
        """Give up every second of the densest in the oldest half; return whether there was one.

        A sample that was sent once may have arrived: giving it up would make the count a guess.
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
        # Once loudly; the statistics count on.
        first = self._counts["thinned"] == len(given_up)
        logger.log(
            logging.WARNING if first else logging.DEBUG,
            "The outbox has reached its bound of %d bytes: of its oldest half every second sample"
            " is given up, where they are densest; %d in all",
            self.bytes_max,
            self._counts["thinned"],
        )
        return True

    def _drop(self, entries: Iterable[Entry], counted_as: str) -> None:
        for entry in entries:
            self._bytes -= entry.size
            self._events -= entry.is_event
            self._counts[counted_as] += 1
