"""The only place where messages wait, and the three rules by which they do.

A message is encoded and compressed when it is put in and from then on is bytes. Events and samples
stand in one line, in the order in which they were taken. The sender takes from its head; what it
has taken stays here, as in flight, until the aggregator's answer says that it has it. When a link
is lost, what was in flight goes back to the head: its outcome is unknown, so it is sent again, with
its old sequence number, before anything newer. Of a state message only the latest is kept, outside
the line.

The outbox may be filled from any thread.
"""

import logging
import threading
import zlib
from collections import deque
from collections.abc import Iterable
from enum import Enum

from attrs import define, field, frozen

from trio_runner.protocol import encode_body
from trio_runner.protocol import engine_messages as em

logger = logging.getLogger(__name__)

OUTBOX_BYTES_MAX = 64 * 1024 * 1024
"""The bound of an outbox in bytes unless another is given: days of a usual unit."""

ENTRY_BYTES = 400
"""What a waiting message costs in memory besides its body, rounded up from what was measured."""


class Delivery(Enum):
    """How a message is delivered."""

    EVENT = "never dropped; nothing else is unanswered while it is sent"
    SAMPLE = "in order with the events, several unanswered at once; thinned at the bound, counted"
    STATE = "the latest only, when it differs from what this link last had answered"


DELIVERY: dict[type[em.EngineMessage], Delivery] = {
    em.RunStartedMsg: Delivery.EVENT,
    em.RunStoppedMsg: Delivery.EVENT,
    em.WebPushNotificationMsg: Delivery.EVENT,
    em.ErrorLogMsg: Delivery.EVENT,
    em.TagsUpdatedMsg: Delivery.SAMPLE,
    em.UodInfoMsg: Delivery.STATE,
    em.MethodMsg: Delivery.STATE,
    em.ControlStateMsg: Delivery.STATE,
    em.MethodStateMsg: Delivery.STATE,
    em.QueuedRunLogMsg: Delivery.STATE,
    em.RunLogMsg: Delivery.STATE,
}
"""The delivery class of every message that a runner sends; the states in the order of sending."""

STATE_TYPES = [kind for kind, delivery in DELIVERY.items() if delivery is Delivery.STATE]


@define(eq=False)
class Entry:
    """A message in the line: its number, its type, its body, encoded and compressed.

    `tries` is how often it was sent.
    """

    sequence_number: int
    kind: type[em.EngineMessage]
    body: bytes
    tries: int = 0

    @property
    def text(self) -> str:
        """The body as `protocol.encode_body` gave it."""
        return zlib.decompress(self.body).decode()

    @property
    def is_event(self) -> bool:
        """Whether this is a barrier."""
        return DELIVERY[self.kind] is Delivery.EVENT

    @property
    def size(self) -> int:
        """What it costs against the bound, in bytes."""
        return len(self.body) + ENTRY_BYTES

    def __str__(self) -> str:
        return f"{self.kind.__name__} {self.sequence_number}"


@frozen
class OutboxStatistics:
    """What has gone through an outbox since it was made, and what is in it now."""

    events_taken: int
    samples_taken: int
    delivered: int
    """Events and samples that the aggregator has said it has."""
    thinned: int
    """Samples given up because the bound was reached."""
    set_aside: int
    """Messages that the aggregator will never take, given up."""
    waiting: int
    """Events and samples not yet delivered, those in flight included."""
    bytes_waiting: int


@define(eq=False)
class MemoryOutbox:
    """An outbox that ends with the process.

    Raises TypeError on a message type that a runner does not send.
    """

    bytes_max: int = OUTBOX_BYTES_MAX
    open_run: Entry | None = field(default=None, init=False)
    """RunStarted of the run that is on as the aggregator knows it, to be repeated on a new link."""

    _line: deque[Entry] = field(factory=deque, init=False)
    _in_flight: dict[int, Entry] = field(factory=dict, init=False)
    _states: dict[type[em.EngineMessage], str] = field(factory=dict, init=False)
    _lock: threading.RLock = field(factory=threading.RLock, init=False)
    _numbers: int = field(default=0, init=False)
    _bytes: int = field(default=0, init=False)
    _counts: dict[str, int] = field(init=False)

    def __attrs_post_init__(self) -> None:
        self._counts = dict.fromkeys(("event", "sample", "delivered", "thinned", "set_aside"), 0)

    def put(self, message: em.EngineMessage) -> None:
        """Take a message in. Any thread may call it; it returns when the message is queued."""
        delivery = DELIVERY.get(type(message))
        if delivery is None:
            raise TypeError(f"{type(message).__name__} is not a message that a runner sends")
        body = encode_body(message)
        with self._lock:
            if delivery is Delivery.STATE:
                self._states[type(message)] = body
                return
            if isinstance(message, em.RunStartedMsg | em.RunStoppedMsg):
                # What waits of them tells of the time before; behind this it would be refused.
                self._states.pop(em.RunLogMsg, None)
                self._states.pop(em.QueuedRunLogMsg, None)
            self._append(Entry(self.next_number(), type(message), _compress(body)))
            self._counts["event" if delivery is Delivery.EVENT else "sample"] += 1

    def next_number(self) -> int:
        """Return the next sequence number."""
        with self._lock:
            self._numbers += 1
            return self._numbers

    # The sender's side

    def head(self) -> Entry | None:
        """Return what is to be sent next, None if all is taken."""
        with self._lock:
            return self._line[0] if self._line else None

    def take(self) -> Entry:
        """Take the head; it is in flight until `delivered`, `retry`, `set_aside` or `rewind`."""
        with self._lock:
            entry = self._line.popleft()
            entry.tries += 1
            self._in_flight[entry.sequence_number] = entry
            return entry

    def delivered(self, entry: Entry) -> None:
        """Let a message go: the aggregator has it."""
        with self._lock:
            self._drop([self._in_flight.pop(entry.sequence_number)], "delivered")
            if entry.kind is em.RunStartedMsg:
                self.open_run = entry
            elif entry.kind is em.RunStoppedMsg:
                self.open_run = None

    def retry(self, entry: Entry) -> None:
        """Put a message that is in flight back to the head."""
        with self._lock:
            self._line.appendleft(self._in_flight.pop(entry.sequence_number))

    def set_aside(self, entry: Entry, why: str) -> None:
        """Give up a message that the aggregator will never take, so that the line goes on."""
        logger.error("The aggregator does not take %s, it is set aside: %s", entry, why)
        with self._lock:
            self._drop([self._in_flight.pop(entry.sequence_number)], "set_aside")

    def rewind(self) -> None:
        """Put all that is in flight back to the head: the link is new, its outcome unknown."""
        with self._lock:
            self._line.extendleft(reversed(self._in_flight.values()))
            self._in_flight.clear()

    def state(self, kind: type[em.EngineMessage]) -> str | None:
        """Return the latest state message of a type, encoded, None if there is none."""
        with self._lock:
            return self._states.get(kind)

    # Its bound

    def statistics(self) -> OutboxStatistics:
        """Return the counts and sizes of this moment."""
        with self._lock:
            return OutboxStatistics(
                events_taken=self._counts["event"],
                samples_taken=self._counts["sample"],
                delivered=self._counts["delivered"],
                thinned=self._counts["thinned"],
                set_aside=self._counts["set_aside"],
                waiting=len(self),
                bytes_waiting=self._bytes,
            )

    def __len__(self) -> int:
        """Return how many events and samples are not yet delivered."""
        return len(self._line) + len(self._in_flight)

    def _append(self, entry: Entry) -> None:
        self._line.append(entry)
        self._bytes += entry.size
        while self._bytes > self.bytes_max and self._thin():
            pass

    def _thin(self) -> bool:
        """Give up every second sample of the oldest half; return whether there was one to give up.

        A sample that was sent once may have arrived: giving it up would make the count a guess.
        """
        samples = [entry for entry in self._line if not entry.is_event and not entry.tries]
        given_up = samples[: max(2, len(samples) // 2)][1::2]
        if not given_up:
            return False
        gone = set(map(id, given_up))
        self._line = deque(entry for entry in self._line if id(entry) not in gone)
        self._drop(given_up, "thinned")
        logger.warning(
            "The outbox has reached its bound of %d bytes: every second sample of its oldest half"
            " is given up, %d now, %d in all",
            self.bytes_max,
            len(given_up),
            self._counts["thinned"],
        )
        return True

    def _drop(self, entries: Iterable[Entry], counted_as: str) -> None:
        for entry in entries:
            self._bytes -= entry.size
            self._counts[counted_as] += 1


def _compress(text: str) -> bytes:
    # Level 1: of a sample of 20 tags it leaves 460 of 3,100 bytes; level 6 takes 14 more, in
    # nearly twice the time.
    return zlib.compress(text.encode(), 1)
