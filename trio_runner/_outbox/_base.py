"""The only place where messages wait, and the three rules by which they do.

A message is encoded and packed when it is put in and from then on is bytes, which go out as they
are. Events and samples stand in one line, in the order in which they were taken. The sender takes
from its head; what it has taken stays here, as in flight, until the aggregator's answer says that
it has it. When a link is lost, what was in flight goes back to the head: its outcome is unknown, so
it is sent again, with its old sequence number, before anything newer. Of a state message only the
latest is kept, outside the line.

Of events, those of a run are a barrier: all before it is answered when one goes out, and nothing
follows until it is taken. A notice, that is a notification or what was logged, holds up no sample:
if it has to wait it stands aside. What is logged meanwhile waits by itself, and goes out as a part
of the first of it.

Until an event counts as queued the sender does not see it, nor what stands behind it. In memory it
does at once. An outbox with a journal on disk (`DurableOutbox`) is told of every change of the
line, and has written the event by then.

What a sample costs here is its encoding and packing, once: it is sent, and sent again, as it lies
here. Only thinning looks at the whole line.

The outbox may be filled from any thread.
"""

import logging
import time
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any, ClassVar

from attrs import define, field, frozen

from trio_runner._outbox._entry import DELIVERY, Delivery, Entry, is_too_big
from trio_runner._outbox._line import Line
from trio_runner._outbox._logs import WaitingLogs, is_log
from trio_runner._outbox._shrinking import LOG_CHARACTERS_MAX, merged_logs, smaller_end
from trio_runner._outbox._statistics import OutboxStatistics
from trio_runner.protocol import encode, encode_body, foreign, kind_of, loads, pack
from trio_runner.protocol import engine_messages as em
from trio_runner.protocol import models as mdl

logger = logging.getLogger(__name__)


@frozen
class Prepared:
    """A message as an outbox takes it in: all that takes long has been done."""

    message: em.EngineMessage
    text: str
    packed: bytes | None
    """None of a state, of which only the last one before it goes out is packed."""


@define(eq=False)
class Outbox(Line, ABC):
    """What a runner needs of an outbox, whatever keeps the messages.

    `put` raises TypeError on a message type that a runner does not send.
    """

    is_durable: ClassVar[bool]
    """Whether `commit` must be called again and again."""

    commit_wanted: Callable[[], None] | None = field(default=None, init=False)
    """Called in any thread when a commit is wanted before `COMMIT_S` is over; it does not wait.

    Who sets it calls `commit` then, in a thread that may wait for a disk, and looks at `head`
    behind that. While it is None, the thread that needs a commit writes it itself.
    """

    run_id: str | None = field(default=None, init=False)
    """The run that is on behind all that waits."""

    _states: dict[type[em.EngineMessage], str] = field(factory=dict, init=False)
    _logs: WaitingLogs = field(factory=WaitingLogs, init=False)

    @abstractmethod
    def claim(self, unit: str, registration: em.RegisterEngineMsg | None = None) -> None:
        """Note whose messages these are, and how it registers, where that outlives the process."""

    @abstractmethod
    def commit(self) -> None:
        """Write what has changed, where there is a disk to write to; any thread may call it."""

    @abstractmethod
    def close(self) -> None:
        """Let go of what the outbox holds besides memory."""

    @abstractmethod
    def fate(self) -> str:
        """Tell what becomes of what waits when the process ends; it begins "kept" or "lost"."""

    def _why_degraded(self) -> str | None:
        return None

    def put(self, message: em.EngineMessage) -> None:
        """Take a message in. Any thread may call it; it returns when the message is queued."""
        self.secure(self.enter(message))

    def secure(self, event: Entry | None) -> None:
        """Let an event count as queued once it is as safe as this outbox makes it."""
        if event is not None:
            event.is_queued = True

    def prepare(self, message: em.EngineMessage) -> Prepared:
        """Return a message for `enter`: encoded, small enough, and packed.

        The end of a run may take seconds, so no lock may be held, by the caller either.
        """
        delivery = DELIVERY.get(kind_of(message))
        if delivery is None:
            raise TypeError(f"{kind_of(message).__name__} is not a message that a runner sends")
        text = encode_body(message)
        if isinstance(message, em.RunStoppedMsg):
            text = self._within_the_limit(text, message)
        return Prepared(message, text, None if delivery is Delivery.STATE else pack(text))

    def enter(self, message: em.EngineMessage | Prepared) -> Entry | None:
        """Give a message its place; wait for no disk. Return an event, which is to be secured.

        The sender sees neither it nor what stands behind it until then. Who holds a lock when he
        enters a message lets go of it before `secure`, which may wait.
        """
        ready = message if isinstance(message, Prepared) else self.prepare(message)
        with self._lock:
            if ready.packed is None:
                self._states[kind_of(ready.message)] = ready.text
                return None
            entry = self._put_in_line(ready.message, ready.packed)
            self._note_log(entry, ready.text)
        return entry if entry.is_event else None

    def _within_the_limit(self, body: str, message: em.RunStoppedMsg) -> str:
        """Return the end of a run with as much as the aggregator takes."""
        while is_too_big(body) and (smaller := smaller_end(body)):
            body, left_out = smaller
            self._warn(
                logging.ERROR,
                "The end of run %s is too big to be sent, it goes without its %s",
                message.run_id,
                left_out,
            )
            with self._lock:
                self._counts["archives_left_out"] += left_out == "archive"
        return body

    def make_ready(self, entry: Entry) -> bool:
        """Make what was logged since a part of an error log that is about to go out first.

        Return whether a message may go out: as it is sent it is as safe as this outbox makes it.
        """
        with self._lock:
            if entry.kind is em.ErrorLogMsg and not entry.tries:
                self._merge(self._logs.take(entry))
            return entry.is_queued

    def _note_log(self, entry: Entry, text: str) -> None:
        """Note an error log that was put in; a run event, or a log of another shape, ends them."""
        if entry.kind is em.ErrorLogMsg and is_log(text):
            self._logs.add(entry, len(text))
            if self._logs.are_many:
                self._leave_out_of_logs()
        elif entry.is_run_event or entry.kind is em.ErrorLogMsg:
            self._merge(self._logs.take())
            self._logs.clear()

    def _leave_out_of_logs(self) -> None:
        """Make what waits of the error log one message, which is bounded."""
        logs = self._logs.take()
        self._merge(logs)
        if logs:
            self._logs.put_back(logs[0], len(logs[0].text))

    def _merge(self, logs: list[Entry]) -> None:
        """Make error logs a part of the first of them."""
        texts = [log.text for log in logs]
        if len(logs) < 2 and sum(map(len, texts)) <= LOG_CHARACTERS_MAX:
            return
        self._replace(logs[0], merged_logs(texts))
        self._leave_line(logs[1:])
        self._drop(logs[1:], "merged")
        for log in logs[1:]:
            self._journal.gone(log)
        self._withhold(logs[0])

    def _withhold(self, log: Entry) -> None:
        """Let a log that is another one now count as queued when it is as safe again."""

    def _leave_line(self, logs: list[Entry]) -> None:
        """Take logs out of the line, which is looked at no further than they stand in it."""
        gone, kept = set(map(id, logs)), list[Entry]()
        while self._line and logs and self._line[-1].sequence_number >= logs[0].sequence_number:
            kept.append(self._line.pop())
        self._line.extend(entry for entry in reversed(kept) if id(entry) not in gone)
        self._aside = [entry for entry in self._aside if id(entry) not in gone]

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

    def statistics(self) -> OutboxStatistics:
        """Return the counts and sizes of this moment."""
        with self._lock:
            return OutboxStatistics(
                events_taken=self._counts["event"],
                samples_taken=self._counts["sample"],
                delivered=self._counts["delivered"],
                thinned=self._counts["thinned"],
                set_aside=self._counts["set_aside"],
                merged=self._counts["merged"],
                archives_left_out=self._counts["archives_left_out"],
                waiting=len(self),
                bytes_waiting=self._bytes,
                bytes_max=self.bytes_max,
                oldest_s=self._oldest_s(),
                degraded=self._why_degraded(),
            )
