"""The only place where messages wait, and the three rules by which they do.

A message is encoded and packed when it is put in and from then on is bytes, which go out as they
are. Events and samples stand in one line, in the order in which they were taken. The sender takes
from its head; what it has taken stays here, as in flight, until the aggregator's answer says that
it has it. When a link is lost, what was in flight goes back to the head: its outcome is unknown, so
it is sent again, with its old sequence number, before anything newer. Of a state message only the
latest is kept, outside the line.

An event counts as queued when `put` returns; until then the sender does not see it, nor what stands
behind it. In memory that is at once. An outbox with a journal on disk (`DurableOutbox`) is told of
every change of the line, and has written the event by then.

What a sample costs here is its encoding and packing, once: it is sent, and sent again, as it lies
here. Only thinning looks at the whole line.

The outbox may be filled from any thread.
"""

import logging
import threading
import time
from collections import deque
from collections.abc import Iterable
from enum import Enum
from typing import Any, ClassVar

from attrs import define, evolve, field, frozen

from trio_runner.protocol import encode, encode_body, foreign, kind_of, loads, pack, unpack
from trio_runner.protocol import engine_messages as em
from trio_runner.protocol import models as mdl

logger = logging.getLogger(__name__)

OUTBOX_BYTES_MAX = 64 * 1024 * 1024
"""The bound of an outbox in bytes unless another is given: days of a usual unit."""

COMMIT_S = 0.5
"""How often an outbox that has a disk is to be committed (s)."""

ENTRY_BYTES = 400
"""What a waiting message costs in memory besides its body, rounded up from what was measured."""

MESSAGE_BYTES_MAX = 16 * 1024 * 1024 - 1024
"""The aggregator's server takes frames of 16 MiB; what is around a message in one is under 1 kB."""


SHRINKS_MAX = 1032
"""To how small a part zlib can pack a text at best (zlib's technical details)."""


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

RUN_EVENTS = em.RunStartedMsg, em.RunStoppedMsg
"""The events that change which tags the aggregator takes."""

STATE_TYPES = [kind for kind, delivery in DELIVERY.items() if delivery is Delivery.STATE]


@define(eq=False)
class Entry:
    """A message in the line: its number, its type, its body as `protocol.pack` gave it.

    `taken_at` is when it was put in (seconds since the epoch), `tries` how often it was sent,
    `is_queued` false for as long as the `put` of an event has not returned, and `failures` how
    often the aggregator failed to handle it.
    """

    sequence_number: int
    kind: type[em.EngineMessage]
    body: bytes
    taken_at: float
    tries: int = 0
    is_queued: bool = True
    failures: int = 0

    @property
    def text(self) -> str:
        """The body as `protocol.encode_body` gave it."""
        return unpack(self.body)

    @property
    def is_too_big(self) -> bool:
        """Whether the aggregator would refuse it for its size."""
        return len(self.body) * SHRINKS_MAX > MESSAGE_BYTES_MAX and is_too_big(self.text)

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
    archives_left_out: int
    """Runs whose end went without its archive, since the aggregator takes no message so big."""
    waiting: int
    """Events and samples not yet delivered, those in flight included."""
    bytes_waiting: int
    degraded: str | None = None
    """Why what waits is in memory only although it should be on disk, None if all is well."""


class Journal:
    """Is told of every change of the line; this one keeps none of it.

    It is called with the outbox's lock held, so it notes the change and does no I/O.
    """

    def added(self, entry: Entry) -> None:
        """Note a message that was put in."""

    def sent(self, entry: Entry) -> None:
        """Note a message that may have arrived from now on."""

    def gone(self, entry: Entry) -> None:
        """Note a message that was delivered or thinned."""

    def set_aside(self, entry: Entry, why: str) -> None:
        """Note a message that the aggregator will never take."""


@define(eq=False)
class MemoryOutbox:
    """An outbox that ends with the process.

    Raises TypeError on a message type that a runner does not send.
    """

    is_durable: ClassVar[bool] = False
    """Whether `commit` must be called again and again."""

    bytes_max: int = OUTBOX_BYTES_MAX
    open_run: Entry | None = field(default=None, init=False)
    """RunStarted of the run that is on as the aggregator knows it, to be repeated on a new link."""
    run_id: str | None = field(default=None, init=False)
    """The run that is on behind all that waits."""

    _journal: Journal = field(factory=Journal, init=False)
    _line: deque[Entry] = field(factory=deque, init=False)
    _in_flight: dict[int, Entry] = field(factory=dict, init=False)
    _states: dict[type[em.EngineMessage], str] = field(factory=dict, init=False)
    _lock: threading.RLock = field(factory=threading.RLock, init=False)
    _numbers: int = field(default=0, init=False)
    _bytes: int = field(default=0, init=False)
    _retries: int = field(default=0, init=False)
    _events: int = field(default=0, init=False)
    _counts: dict[str, int] = field(init=False)

    def __attrs_post_init__(self) -> None:
        self._counts = dict.fromkeys(
            ("event", "sample", "delivered", "thinned", "set_aside", "archives_left_out"), 0
        )

    def put(self, message: em.EngineMessage) -> None:
        """Take a message in. Any thread may call it; it returns when the message is queued."""
        kind = kind_of(message)
        delivery = DELIVERY.get(kind)
        if delivery is None:
            raise TypeError(f"{kind.__name__} is not a message that a runner sends")
        body = encode_body(message)
        if is_too_big(body) and isinstance(message, em.RunStoppedMsg) and message.archive:
            logger.error(
                "The archive of run %s is too big to be sent, it is left out", message.run_id
            )
            self._counts["archives_left_out"] += 1
            body = encode_body(evolve(message, archive=None, archive_filename=None))
        if delivery is Delivery.STATE:
            with self._lock:
                self._states[kind] = body
            return
        entry = self._put_in_line(message, pack(body))
        if delivery is Delivery.EVENT:
            try:
                self.commit()
            finally:
                entry.is_queued = True

    def _put_in_line(self, message: em.EngineMessage, body: bytes) -> Entry:
        with self._lock:
            if isinstance(message, em.RunStartedMsg | em.RunStoppedMsg):
                # What waits of them tells of the time before; behind this it would be refused.
                self._states.pop(em.RunLogMsg, None)
                self._states.pop(em.QueuedRunLogMsg, None)
                self.run_id = message.run_id if isinstance(message, em.RunStartedMsg) else None
            entry = Entry(self.next_number(), kind_of(message), body, time.time())
            entry.is_queued = not entry.is_event
            self._counts["event" if entry.is_event else "sample"] += 1
            self._append(entry)
            return entry

    def claim(self, unit: str) -> None:
        """Note whose messages these are, where that outlives the process."""

    def close_run(self) -> None:
        """Put in the end of the run that is on, if one is, for an engine that does not go on.

        It holds the run log and the method state that were put in last, and no archive.
        """
        with self._lock:
            run_id = self.run_id
            last = self._last_states()
        if run_id is not None:
            logger.warning("Run %s was on when the engine ended; it is ended now", run_id)
            obj = encode(
                em.RunStoppedMsg(
                    run_id=run_id,
                    runlog=mdl.RunLog(lines=[]),
                    method_state=mdl.MethodState.untouched(),
                    archive=None,
                    archive_filename=None,
                )
            )
            # As they waited, whatever version of the engine made them.
            self.put(foreign({**obj, **last}, em.RunStoppedMsg))

    def commit(self) -> None:
        """Write what has changed, where there is a disk to write to; any thread may call it."""

    def close(self) -> None:
        """Let go of what the outbox holds besides memory, here nothing."""

    def next_number(self) -> int:
        """Return the next sequence number."""
        with self._lock:
            self._numbers += 1
            return self._numbers

    # The sender's side

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
        if self._line[0].kind in RUN_EVENTS:
            # All before it is answered. A crash must not repeat that behind it: tags without a run
            # are refused once one is on, and those of a run once it has ended.
            self.commit()
        with self._lock:
            entry = self._line.popleft()
            entry.tries += 1
            self._in_flight[entry.sequence_number] = entry
            if entry.tries == 1:
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
        if entry.kind in RUN_EVENTS:
            # A crash must not repeat the end of a run behind the beginning of the next, which
            # would end that one.
            self.commit()

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

    def state(self, kind: type[em.EngineMessage]) -> str | None:
        """Return the latest state message of a type, encoded, None if there is none."""
        with self._lock:
            return self._states.get(kind)

    def _last_states(self) -> dict[str, Any]:
        """Return run log and method state of the run that is on, by the names RunStopped has."""
        run_log, state = (
            loads(self._states.get(kind, "{}")) for kind in (em.RunLogMsg, em.MethodStateMsg)
        )
        if run_log.get("run_id") != self.run_id:
            run_log = {}
        last = {"runlog": run_log.get("runlog"), "method_state": state.get("method_state")}
        return {name: value for name, value in last.items() if value is not None}

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
                archives_left_out=self._counts["archives_left_out"],
                waiting=len(self),
                bytes_waiting=self._bytes,
                degraded=self._why_degraded(),
            )

    def __len__(self) -> int:
        """Return how many events and samples are not yet delivered."""
        return len(self._line) + len(self._in_flight)

    def _why_degraded(self) -> str | None:
        return None

    def _append(self, entry: Entry) -> None:
        self._line.append(entry)
        self._bytes += entry.size
        self._events += entry.is_event
        self._journal.added(entry)
        self._keep_bound()

    def _keep_bound(self) -> None:
        while self._bytes > self.bytes_max and self._thin():
            pass

    def _thin(self) -> bool:
        """Give up every second of the densest in the oldest half; return whether there was one.

        A sample that was sent once may have arrived: giving it up would make the count a guess.
        """
        samples = [entry for entry in self._line if not entry.is_event and not entry.tries]
        given_up = _every_second_of_the_densest(samples)
        if not given_up:
            return False
        gone = set(map(id, given_up))
        self._line = deque(entry for entry in self._line if id(entry) not in gone)
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


def _every_second_of_the_densest(samples: list[Entry]) -> list[Entry]:
    """Return what to give up: of the oldest half every second sample, where they are densest.

    How dense they are shows in how far the neighbours of each are apart, by their numbers: so wide
    a hole it would leave. A quarter of them, or more that leave no wider one, may go, two
    neighbours never at once. So what is old becomes evenly thin, however few have room, and stays
    so behind a restart: no hole is made that is wider than 8 thirds of the mean distance. Halving
    all of it each time would leave of a long outage its end and next to nothing of its beginning.
    """
    old = samples[: max(2, len(samples) // 2)]
    numbers = [entry.sequence_number for entry in samples[: len(old) + 1]]
    numbers.append(numbers[-1] if numbers else 0)  # where there is none behind the last
    widths = [numbers[place + 1] - numbers[place - 1] for place in range(1, len(old))]
    if not widths:
        return []
    widest = sorted(widths)[len(widths) // 4]
    given_up: list[Entry] = []
    stays = old[0]
    for before, entry, width in zip(old, old[1:], widths, strict=False):
        if width <= widest and before is stays:
            given_up.append(entry)
        else:
            stays = entry
    return given_up


def is_too_big(body: str) -> bool:
    """Tell whether the aggregator would refuse an encoded message for its size."""
    return len(body) * 4 > MESSAGE_BYTES_MAX and len(body.encode()) > MESSAGE_BYTES_MAX
