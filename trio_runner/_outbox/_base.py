"""The only place where messages wait, and the rules by which they do.

A message is encoded and packed when it is put in. From then on it is bytes, which go out as they
are. Events and samples stand in one line, in the order in which they were taken. The sender takes
from its head. What it has taken stays here, in flight, until the aggregator answers that it has it.
When a link is lost, what was in flight goes back to the head. Its outcome is unknown, so it is sent
again, with its old sequence number, before anything newer. Of a state message only the latest is
kept, outside the line.

A run event is a barrier: it goes out when everything before it is answered, and nothing follows
until it is taken. A notice (a notification or an error log) holds up no sample: if it has to wait,
it stands aside. Whatever is logged meanwhile waits by itself, and goes out as a part of the first
error log that waits.

The sender does not see an event, nor what stands after it, until the event counts as queued. In an
outbox in memory it does so at once. One with a journal on disk (`DurableOutbox`) is told of every
change of the line, and has written the event by then.

A sample costs its encoding and packing here, once: it is sent, and sent again, as it lies here.
Only thinning looks at the whole line.

Any thread may fill the outbox.
"""

import logging
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from typing import Any, ClassVar

from attrs import define, field, frozen

from trio_runner._outbox._entry import DELIVERY, RUN_EVENTS, Delivery, Entry, is_too_big
from trio_runner._outbox._line import Line
from trio_runner._outbox._logs import WaitingLogs, is_log
from trio_runner._outbox._shrinking import is_long_log, merged_logs, smaller_end
from trio_runner._outbox._statistics import OutboxStatistics
from trio_runner.protocol import encode, encode_body, foreign, kind_of, loads, pack
from trio_runner.protocol import engine_messages as em
from trio_runner.protocol import models as mdl

logger = logging.getLogger(__name__)


@frozen
class Prepared:
    """A message as an outbox takes it in: everything that takes long has been done."""

    message: em.EngineMessage
    text: str
    packed: bytes | None
    """None for a state message: only the last one before it goes out is packed."""


@define(eq=False)
class Outbox(Line, ABC):
    """What a runner needs from an outbox, whatever keeps the messages.

    `put` raises TypeError on a message type that a runner does not send.
    """

    is_durable: ClassVar[bool]
    """Whether `commit` must be called again and again."""

    commit_wanted: Callable[[], None] | None = field(default=None, init=False)
    """Called in any thread when a commit is wanted before `COMMIT_S` is over; it does not wait.

    The setter must then call `commit`, in a thread that may wait for a disk, and look at
    `head` afterwards. While it is None, the outbox commits by itself when it needs to.
    """

    run_id: str | None = field(default=None, init=False)
    """The run that is on after everything that waits."""

    _states: dict[type[em.EngineMessage], str] = field(factory=dict, init=False)
    _logs: WaitingLogs = field(factory=WaitingLogs, init=False)

    @abstractmethod
    def claim(self, unit: str, registration: em.RegisterEngineMsg | None = None) -> None:
        """Note the unit and how it registers, if this outbox outlives the process."""

    @abstractmethod
    def commit(self) -> None:
        """Write what has changed, if there is a disk to write to. Any thread may call it."""

    @abstractmethod
    def close(self) -> None:
        """Release what the outbox holds besides memory."""

    @abstractmethod
    def fate(self) -> str:
        """Return what becomes of what waits when the process ends.

        The text begins with "kept" or "lost".
        """

    def _why_degraded(self) -> str | None:
        return None

    def put(self, message: em.EngineMessage) -> None:
        """Take a message in and return when it is queued. Any thread may call it."""
        self.secure(self.enter(message))

    def secure(self, event: Entry | None) -> None:
        """Let an event count as queued once it is as safe as this outbox makes it."""
        if event is not None:
            event.is_queued = True

    def prepare(self, message: em.EngineMessage) -> Prepared:
        """Return a message for `enter`: encoded, small enough, and packed.

        This may take seconds for the end of a run, so nobody may hold a lock meanwhile, not even
        the caller. Raises TypeError on a message type that a runner does not send.
        """
        delivery = DELIVERY.get(kind_of(message))
        if delivery is None:
            raise TypeError(f"{kind_of(message).__name__} is not a message that a runner sends")
        text = encode_body(message)
        if isinstance(message, em.RunStoppedMsg):
            text = self._within_the_limit(text, message)
        return Prepared(message, text, None if delivery is Delivery.STATE else pack(text))

    def enter(self, message: em.EngineMessage | Prepared) -> Entry | None:
        """Give a message its place without waiting for a disk; return it if it is an event.

        The caller must then `secure` the event. The sender sees neither it nor what stands after it
        until then. A caller that holds a lock here must release it before `secure`, which may wait.
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
        """Return the end of a run with as much in it as the aggregator takes."""
        while is_too_big(body) and (smaller := smaller_end(body)):
            body, left_out = smaller
            self._warn(
                logging.ERROR,
                "The end of run %s is too big to be sent: it goes out without its %s",
                message.run_id,
                left_out,
            )
            with self._lock:
                self._counts["archives_left_out"] += left_out == "archive"
        return body

    def make_ready(self, entry: Entry) -> bool:
        """Merge what was logged since into an error log that is about to go out for the first time.

        Return whether the message may go out: whether, in the form in which it is sent, it is as
        safe as this outbox makes it.
        """
        with self._lock:
            if entry.kind is em.ErrorLogMsg and not entry.tries:
                self._merge(self._logs.take(entry))
            return entry.is_queued

    def _note_log(self, entry: Entry, text: str) -> None:
        """Note an error log that was put in.

        A run event, or a log of another shape, ends the group that becomes one message.
        """
        if entry.kind is em.ErrorLogMsg and is_log(text):
            self._logs.add(entry, len(text))
            if self._logs.are_many:
                self._leave_out_of_logs()
        elif entry.is_run_event or entry.kind is em.ErrorLogMsg:
            self._merge(self._logs.take())
            self._logs.clear()

    def _leave_out_of_logs(self) -> None:
        """Merge the error logs that wait into one message, which is bounded."""
        logs = self._logs.take()
        self._merge(logs)
        if logs:
            self._logs.put_back(logs[0], len(logs[0].text))

    def _merge(self, logs: list[Entry]) -> None:
        """Merge error logs into the first of them."""
        texts = [log.text for log in logs]
        if len(logs) < 2 and not any(map(is_long_log, texts)):
            return
        self._replace(logs[0], merged_logs(texts))
        self._leave_line(logs[1:])
        self._drop(logs[1:], "merged")
        for log in logs[1:]:
            self._journal.gone(log)
        self._withhold(logs[0])

    def _withhold(self, log: Entry) -> None:
        """Let a log with a new body count as queued only once it is as safe as before."""

    def _leave_line(self, logs: list[Entry]) -> None:
        """Take logs out of the line, looking no further back than the first of them."""
        gone, kept = set(map(id, logs)), list[Entry]()
        while self._line and logs and self._line[-1].sequence_number >= logs[0].sequence_number:
            kept.append(self._line.pop())
        self._line.extend(entry for entry in reversed(kept) if id(entry) not in gone)
        self._aside = [entry for entry in self._aside if id(entry) not in gone]

    def _put_in_line(self, message: em.EngineMessage, body: bytes) -> Entry:
        with self._lock:
            if isinstance(message, RUN_EVENTS):
                # Those that wait tell of the time before. After this event they would be refused.
                self._states.pop(em.RunLogMsg, None)
                self._states.pop(em.QueuedRunLogMsg, None)
                self.run_id = message.run_id if isinstance(message, em.RunStartedMsg) else None
            entry = Entry(self.next_number(), kind_of(message), body, time.time())
            entry.is_queued = not entry.is_event
            self._counts["event" if entry.is_event else "sample"] += 1
            self._append(entry)
            return entry

    def close_run(self) -> None:
        """Put in the end of the run that is on, if there is one.

        This is for an engine that does not go on with the run.
        """
        if self.run_id is not None:
            logger.warning("Run %s was on when the engine ended; it is ended now", self.run_id)
            self.put(self.end_of_run())

    def end_of_run(self) -> em.RunStoppedMsg:
        """Return the end of the run that is on, with the last run log and method state.

        It has no archive. The run must be on. This may take seconds, so nobody may hold a lock.
        """
        with self._lock:
            run_id, states = self.run_id, dict(self._states)
        assert run_id is not None, "no run is on"
        last = _last_states(run_id, states)
        obj = encode(
            em.RunStoppedMsg(
                run_id=run_id,
                runlog=mdl.RunLog(lines=[]),
                method_state=mdl.MethodState.untouched(),
                archive=None,
                archive_filename=None,
            )
        )
        # Take them as they waited, whatever version of the engine made them.
        return foreign({**obj, **last}, em.RunStoppedMsg)

    def state(self, kind: type[em.EngineMessage]) -> str | None:
        """Return the latest state message of a type, encoded, or None if there is none."""
        with self._lock:
            return self._states.get(kind)

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


def _last_states(run_id: str, states: Mapping[type[em.EngineMessage], str]) -> dict[str, Any]:
    """Return the last run log and method state of a run, by RunStopped's names."""
    run_log, state = (loads(states.get(kind, "{}")) for kind in (em.RunLogMsg, em.MethodStateMsg))
    if run_log.get("run_id") != run_id:
        run_log = {}
    last = {"runlog": run_log.get("runlog"), "method_state": state.get("method_state")}
    return {name: value for name, value in last.items() if value is not None}
