"""The durable outbox: the line in memory is the truth, and the file keeps it for after a crash."""

import logging
import math
import os
import sqlite3
import threading
import time
import warnings
import zlib
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import ClassVar

from attrs import define, evolve, field
from trio.lowlevel import in_trio_run

from trio_runner._outbox import OUTBOX_BYTES_MAX, RUN_EVENTS, Entry, Lock, Outbox, Prepared
from trio_runner._outbox_sqlite._apart import Kept, keep_apart
from trio_runner._outbox_sqlite._commits import DISK_WAIT_S, Commits
from trio_runner._outbox_sqlite._errors import (
    OutboxClosed,
    OutboxError,
    OutboxOfAnotherUnit,
    damaged,
    explained,
)
from trio_runner._outbox_sqlite._facts import (
    KEPT_STATES,
    NUMBERS_LOST,
    UNIT_STATES,
    KnownFacts,
    check,
    is_renamed,
    run_behind,
    run_of,
    stored,
    uod_name,
)
from trio_runner._outbox_sqlite._file import SET_ASIDE_MAX, Changes, Contents, Fact, OutboxFile
from trio_runner.protocol import DecodeError, encode_json, unpack
from trio_runner.protocol import engine_messages as em

logger = logging.getLogger(__name__)

DISK_RETRY_S = 30
"""How long to wait before a disk that could not be written is tried again (s)."""

UNDER_WAY_S = 2
"""For how long a sample that is under way is not written (s). Over a long distance every commit
finds some, which are answered before the next."""

ANSWERS_S = 1
"""Up to what age of the last answer (s) the link counts as alive, so that what is under way will
arrive."""

CLOSE_S = 3
"""How long to wait for a disk that hangs when the outbox is closed (s)."""


@define(eq=False)
class DurableOutbox(Outbox):
    """An outbox that outlives the process, in the file `path`; close it, or use it with `with`.

    An event is on disk when `put` returns. `put` waits for the disk for `DISK_WAIT_S` at most.
    While a runner runs, it waits for a tenth of the time on average, and in Trio's thread not at
    all. In any case an event is on disk before it goes out, unless the disk fails or is slow.

    Samples and deliveries are on disk after the next `commit`, which the runner calls every
    `COMMIT_S`. Samples that are under way over a link that answers have `UNDER_WAY_S` before they
    are written. The run log and method state of the run that is on are written less often the
    bigger they are (`STATES_BYTES_S`). Whatever is delivered before its commit never touches the
    disk. After a crash, messages that were delivered since the last commit are sent once more.

    When the disk fails, the outbox goes on in memory. It logs that once, `statistics().degraded`
    says why, and the disk is tried again every `DISK_RETRY_S` (by `clock`) until everything that
    waits is on it. Until then an event is only in memory when `put` returns, and after a crash what
    was delivered meanwhile is sent again. A disk that has not written for `DISK_WAIT_S` counts as
    failing until it has. An event for which `put` stopped waiting is told there, too.

    Raises one of the classes of `OutboxError` when it is made. `put` raises OutboxClosed after
    `close`.
    """

    is_durable: ClassVar[bool] = True

    path: Path = field(converter=Path)
    bytes_max: int = field(default=OUTBOX_BYTES_MAX, kw_only=True)
    clock: Callable[[], float] = field(default=time.monotonic, kw_only=True)
    connect: Callable[..., sqlite3.Connection] = field(default=sqlite3.connect, kw_only=True)
    """Opens the database, as `sqlite3.connect` does; a simulated disk gives its own."""

    unit: str | None = field(default=None, init=False)
    """Whose messages these are, or None while nobody has claimed them."""
    registration: str | None = field(default=None, init=False)
    """How that unit registers, encoded, without the secret; None if nobody has said it."""

    _last_run_event: int = field(default=0, init=False)
    """The number of the last run event that was delivered."""
    _journal: Changes = field(factory=Changes, init=False)
    _commits: Commits = field(init=False)
    _barrier: int = field(default=0, init=False)
    """The number of the commit that must have ended before anything goes out."""
    _unsafe: list[Entry] = field(factory=list, init=False)
    """The events in the line that do not count as queued yet."""
    _left_behind: Entry | None = field(default=None, init=False)
    """The last event for which `put` stopped waiting before it was on disk."""
    _writing: Lock = field(init=False)
    """Held while the file is written. Trio's thread waits neither for it nor for its holder."""
    _file: OutboxFile = field(init=False)
    _under_way: dict[int, float] = field(factory=dict, init=False)
    """Since when each sample has been found under way, by its number."""
    _answered_at: float = field(default=-math.inf, init=False)
    _is_open: bool = field(default=False, init=False)
    _known: KnownFacts = field(factory=KnownFacts, init=False)
    _degraded: str | None = field(default=None, init=False)
    _retry_at: float = field(default=0.0, init=False)

    @_writing.default
    def _new_writing(self) -> Lock:
        return self.threads.RLock()

    def __attrs_post_init__(self) -> None:
        self._commits = Commits(self.clock, self.threads.Condition())
        self._file = OutboxFile.open(self.path, create=True, connect=self.connect)
        try:
            self._restore(self._file.load())
        except BaseException:
            self._file.close()
            raise
        self._is_open = True
        self.commit()  # reserves numbers, and finds a disk that is already full

    def __enter__(self) -> "DurableOutbox":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def __del__(self) -> None:
        if getattr(self, "_is_open", False):
            warnings.warn(f"unclosed outbox {self.path}", ResourceWarning, 2, source=self)
            self._file.close()

    def claim(self, unit: str, registration: em.RegisterEngineMsg | None = None) -> None:
        """Note whose messages these are, and how that unit registers, without the secret.

        If the computer's name has changed, the messages under the old name are moved into a file of
        their own beside this one: those that wait and those that were set aside. What is known of a
        run that is on goes with them. Sent from here, they would be taken for the new unit's.

        Raises OutboxOfAnotherUnit while messages of quite another unit wait. If none wait, only
        what was set aside is moved, and what is known of the other unit is forgotten.
        """
        with self._lock:
            if self.unit not in (None, unit):
                self._part_from(str(self.unit), unit, registration)
                self.open_run, self.run_id, self.registration = None, None, None
                self._states.clear()
            self.unit = unit
            if registration is not None:
                self.registration = encode_json(evolve(registration, secret=""))
        self.commit()

    def _part_from(self, old: str, new: str, registration: em.RegisterEngineMsg | None) -> None:
        entries = self._waiting()
        names = uod_name(self.registration), registration.uod_name if registration else None
        # Without both registrations, where a computer's name ends and the UOD's begins is a guess.
        is_renaming = is_renamed(old, new) if None in names else names[0] == names[1]
        if entries and not is_renaming:
            raise OutboxOfAnotherUnit(
                f"In the outbox {self.path} wait {len(entries)} messages of {old}, and"
                f" this is {new}. Take another path, or discard them."
            )
        with explained(self.path):
            put_aside = self._file.put_aside()
        if not (entries or put_aside or (self.run_id and is_renaming)):
            return
        kept = Kept(entries, put_aside, stored(self._facts()))
        aside = keep_apart(self.path, old, kept, self.connect)
        # After a crash before the next commit they are moved once more, into one more file.
        with explained(self.path):
            self._file.forget_put_aside()
        self._empty_line()
        logger.warning(
            "This unit is called %s now, was %s: the %d messages that wait of it are kept in %s;"
            " `trio-runner outbox deliver` sends them under the old name",
            new,
            old,
            len(entries),
            aside,
        )

    def _empty_line(self) -> None:
        for entry in self._waiting():
            self._journal.gone(entry)
            self._bytes -= entry.size
        self._in_flight.clear()
        self._aside.clear()
        self._line.clear()
        self._logs.clear()
        self._run_events = self._thinnable = 0

    # What may go out when

    def head(self) -> Entry | None:
        """Return what is to be sent next, or None if there is nothing or the disk comes first.

        A run event goes out only when nothing that went before it would come back after a crash.
        After a run event was delivered, nothing goes out until that is on disk. The reason: tags
        without a run are refused once one is on, and those of a run are refused once it has ended.
        """
        if self.commit_wanted is None:
            return super().head()
        with self._lock:
            is_degraded = self._release_if_degraded()
            head = super().head()
            if head is None or is_degraded or self._may_go(head):
                return head
        self._want_commit()
        return None

    def _may_go(self, head: Entry) -> bool:
        if head.kind not in RUN_EVENTS:
            return self._commits.ended >= self._barrier
        return self._commits.ended == self._commits.begun >= self._barrier and not (
            self._journal.removed or self._journal.put_aside
        )

    def make_ready(self, entry: Entry) -> bool:
        if super().make_ready(entry):
            return True
        self._want_commit()
        with self._lock:
            self._release_if_degraded()
        return entry.is_queued

    def _withhold(self, log: Entry) -> None:
        log.is_queued = False
        self._unsafe.append(log)

    def take(self) -> Entry:
        if self.commit_wanted is None and self._line[0].kind in RUN_EVENTS:
            self.commit()
        return super().take()

    def delivered(self, entry: Entry) -> None:
        with self._lock:
            super().delivered(entry)
            self._answered_at = self.clock()
            if entry.kind not in RUN_EVENTS:
                return
            self._last_run_event = entry.sequence_number
            self._barrier = self._commits.begun + 1
        self._want_commit()

    def _want_commit(self) -> None:
        wanted = self.commit_wanted  # read once: a runner that ends takes it away
        if wanted is None:
            self.commit()
            return
        with self._lock:
            self._commits.want()
        wanted()

    def enter(self, message: em.EngineMessage | Prepared) -> Entry | None:
        if not self._is_open:
            kind = type(message.message if isinstance(message, Prepared) else message)
            raise OutboxClosed(f"{kind.__name__}: the outbox {self.path} is closed")
        event = super().enter(message)
        with self._lock:
            if event is not None:
                self._unsafe.append(event)
            if event is not None or self.commit_wanted is not None:
                self._commits.want()
            if self.commit_wanted is not None:
                self._release_if_degraded()
        return event

    def secure(self, event: Entry | None) -> None:
        """Let an event count as queued when it is on disk.

        If a runner commits, an engine's thread waits for that, `DISK_WAIT_S` at most, and Trio's
        thread does not wait. If nobody does, this begins a commit, for which any thread waits
        equally long.
        """
        if event is None or event.is_queued:
            return
        if self.commit_wanted is None:
            self._commit_in_a_thread()
        else:
            self._want_commit()
            if in_trio_run():
                return
            self._commits.wait_until(lambda: event.is_queued)
        with self._lock:
            if not event.is_queued:
                self._leave_behind(event)

    def _commit_in_a_thread(self) -> None:
        """Commit in a thread of its own, and wait for it `DISK_WAIT_S` at most."""
        if self._commits.is_slow:
            return
        if in_trio_run() and self.clock is not time.monotonic:
            self.commit()  # a disk in virtual time, which no other thread knows
            return
        thread = threading.Thread(target=self.commit, name="outbox", daemon=True)
        thread.start()
        thread.join(DISK_WAIT_S)

    def _leave_behind(self, event: Entry) -> None:
        """Stop waiting for an event; it goes out once it is on disk, or if the disk is slow."""
        self._left_behind = event
        self._note_slowness()
        if self._commits.is_slow:
            self._release()

    def _note_slowness(self) -> None:
        if self._degraded is None and self._is_open and self._commits.became_slow():
            self._warn(
                logging.ERROR,
                "The outbox %s has kept others waiting for %.0f s: a disk that is slow, or hangs."
                " Until it is quick again events may be in memory only, and are lost if the process"
                " ends",
                self.path,
                DISK_WAIT_S,
            )

    def _release_if_degraded(self) -> bool:
        """Let nothing wait for a disk that fails or is slow; return whether it does or is."""
        if self._degraded is None and not self._commits.is_slow:
            return False
        self._release()
        return True

    def _release(self) -> None:
        """Let the events that are not on disk count as queued: no commit will secure them soon."""
        self._note_slowness()
        for event in self._unsafe:
            event.is_queued = True
        self._unsafe.clear()

    # To the disk

    def commit(self) -> None:
        """Write what has changed; return when it is on disk, or when the disk has failed.

        Any thread may call it. It waits for the disk, but for a commit that hangs in another thread
        only `DISK_WAIT_S`. Raises nothing for a disk that fails.
        """
        if not self._writing.acquire(timeout=DISK_WAIT_S):
            with self._lock:
                self._release()
            return
        try:
            if self._is_open and not (self._degraded and self.clock() < self._retry_at):
                self._try_to_write()
        finally:
            with self._lock:
                if self._degraded is not None or not self._is_open:
                    self._release()
            self._commits.end()
            if not self._is_open:  # it was closed while the disk hung
                self._file.close()
            self._writing.release()

    def _try_to_write(self) -> None:
        try:
            self._write()
        except (sqlite3.Error, OSError, OutboxError) as error:
            self._note_fault(error)
        except BaseException as error:  # such as KeyboardInterrupt: what was written is unknown
            self._degraded, self._retry_at = f"interrupted by {error!r}", self.clock()
            raise
        else:
            self._note_recovery()

    def close(self) -> None:
        """Write what waits and release the file; may be called again.

        The calling thread waits for the disk, so Trio's thread should leave this to another. A disk
        that hangs is waited for `CLOSE_S` at most. Then the file is left to the thread that hangs.
        """
        if not self._is_open:
            return
        now = self.clock()
        self.clock = self._commits.clock = lambda: now  # other threads cannot read Trio's clock
        if in_trio_run() and self.connect is not sqlite3.connect:
            self._close()  # a simulated disk, which hangs in virtual time only
        else:
            thread = threading.Thread(target=self._close, name="outbox", daemon=True)
            thread.start()
            thread.join(CLOSE_S)
        if self._is_open:
            self._is_open = False
            logger.error(
                "The outbox %s is left behind: its disk hangs, and what was put in since is lost"
                " if it does not come back before the process ends",
                self.path,
            )

    def _close(self) -> None:
        if not self._writing.acquire(timeout=CLOSE_S):
            return
        try:
            self._retry_at, self._known.is_last = self.clock(), True
            self.commit()
            self._file.close()
            self._is_open = False
        finally:
            self._writing.release()
        if self._degraded is not None:
            logger.error(
                "The outbox %s is closed with a disk that fails: of %d messages that wait those"
                " of the time since are lost",
                self.path,
                len(self),
            )

    def _write(self) -> None:
        recovers = self._degraded is not None
        if recovers:
            self._reopen()
        with self._lock:
            self._commits.begin()
            changes, self._journal = self._journal, Changes()
            if not recovers:  # then all that waits is written
                self._put_off_what_is_under_way(changes)
            facts = self._facts()
            entries = self._waiting() if recovers else []
        changed = self._known.changed(facts)
        try:
            if recovers:
                self._file.write_all(entries, changes, stored(facts))
            elif changes or changed:
                self._file.write(changes, changed)
        except BaseException:
            # What was set aside is nowhere else; the line itself is in memory.
            with self._lock:
                put_aside = changes.put_aside + self._journal.put_aside
                self._journal.put_aside = put_aside[-SET_ASIDE_MAX:]
            raise
        with self._lock:
            for number, entry in changes.new.items():
                entry.is_queued = (
                    entry.is_queued or number not in self._journal.new
                )  # not on disk if others were merged into it meanwhile
            self._unsafe = [event for event in self._unsafe if not event.is_queued]
        self._known.written(facts, changed, self.clock())
        if recovers or changes.removed:
            self._file.shrink()

    def _put_off_what_is_under_way(self, changes: Changes) -> None:
        """Leave samples under way to a later commit: most likely they are answered by then."""
        now = self.clock()
        since = {number: self._under_way.get(number, now) for number in changes.new}
        self._under_way = {
            number: at
            for number, at in since.items()
            if number in self._in_flight
            and not changes.new[number].is_event
            and now - at < UNDER_WAY_S
            and now - self._answered_at < ANSWERS_S
            and not self._known.is_last
        }
        for number in self._under_way:
            self._journal.added(changes.new.pop(number))

    def _reopen(self) -> None:
        """Open the file anew, whatever was wrong with it; leave a stranger's file alone."""
        known = self._file.identity
        self._file.close()
        if not self.path.exists():  # its log may still be there; all of it is in memory
            Path(f"{os.path.realpath(self.path)}-wal").unlink(missing_ok=True)
        file = OutboxFile.open(self.path, create=True, connect=self.connect)
        if file.identity != known and not file.is_new and file.load().entries:
            file.close()
            raise OutboxError(f"Another outbox is at {self.path} now, with messages in it.")
        self._file = file

    def _note_fault(self, error: Exception) -> None:
        if self._degraded is None:
            self._warn(
                logging.ERROR,
                "The outbox %s cannot be written (%s): what comes now waits in memory only and is"
                " lost if the process ends; tried again every %d s",
                self.path,
                error,
                DISK_RETRY_S,
            )
        self._degraded = str(error)
        self._retry_at = self.clock() + DISK_RETRY_S

    def _note_recovery(self) -> None:
        if self._degraded is not None:
            self._degraded = None
            text = "The outbox %s is written again; all that waits is on disk"
            self._warn(logging.WARNING, text, self.path)
        if self._commits.became_quick():
            self._warn(logging.WARNING, "The disk of the outbox %s is quick again", self.path)

    def fate(self) -> str:
        """Return where what waits is kept, and whether the disk has all of it."""
        why = self._why_degraded()
        if why is None:
            return f"kept in {self.path} and go out at the next start"
        return f"kept in {self.path} only as far as its disk has taken them ({why})"

    def _why_degraded(self) -> str | None:
        if self._degraded is None and self._commits.is_slow:
            return f"the disk has not written for {DISK_WAIT_S:.0f} s"
        left = self._left_behind
        if self._degraded is None and left is not None and not left.is_queued:
            return f"the disk is slow: {left} is not on it yet"
        return self._degraded

    # What is known besides the line

    def _facts(self) -> dict[str, Fact]:
        is_on = self.run_id is not None
        states = {n: self._states.get(kind) if is_on else None for n, kind in KEPT_STATES.items()}
        now = self.clock()
        return {
            **self._known.latest(self.unit, self._numbers, self.open_run, states, now),
            **{name: self._states.get(kind) for name, kind in UNIT_STATES.items()},
            "registration": self.registration,
            "last_run_event": self._last_run_event,
        }

    def _restore(self, contents: Contents) -> None:
        for entry in contents.spoilt:
            self._warn(logging.ERROR, "The disk has spoilt %s, it is set aside", entry)
            self._journal.set_aside(entry, "spoilt on the disk")
            self._counts["set_aside"] += 1
        last = max((e.sequence_number for e in contents.entries + contents.spoilt), default=0)
        facts = contents.facts
        try:
            check(facts)
            self._restore_facts(facts)
            self.run_id = run_behind(contents.entries, self.open_run)
        except (zlib.error, DecodeError, TypeError, ValueError) as error:
            raise damaged(self.path, str(error)) from error
        self._known.reserved = self._numbers = max(self._numbers, last)
        if self._file.damage is not None:  # the last reservation may be lost
            self._known.reserved = self._numbers = self._numbers + NUMBERS_LOST
        self._line.extend(contents.entries)
        self._bytes = sum(entry.size for entry in contents.entries)
        self._run_events = sum(entry.is_run_event for entry in contents.entries)
        self._thinnable = sum(not (e.is_event or e.tries) for e in contents.entries)
        self._keep_bound()

    def _restore_facts(self, facts: dict[str, Fact]) -> None:
        unit, numbers, last = (facts.get(name) for name in ("unit", "numbers", "last_run_event"))
        number, body, taken_at = (
            facts.get(f"open_run_{what}") for what in ("number", "body", "taken_at")
        )
        self.unit = unit if isinstance(unit, str) else None
        self._numbers = numbers if isinstance(numbers, int) else 0
        self._last_run_event = last if isinstance(last, int) else 0
        if isinstance(number, int) and isinstance(body, bytes) and isinstance(taken_at, float):
            self.open_run = Entry(number, em.RunStartedMsg, body, taken_at, tries=1)
            run_of(self.open_run)  # raises if it is not whole: it is sent as it lies here
        for name, kind in KEPT_STATES.items():
            state = facts.get(name)
            if isinstance(state, bytes):
                self._states[kind] = unpack(state)
        for name, kind in UNIT_STATES.items():
            description = self._description(facts, name)
            if description is not None:
                self._states[kind] = description
        self.registration = self._description(facts, "registration")

    def _description(self, facts: dict[str, Fact], name: str) -> str | None:
        """Return a packed description, or None if there is none or the disk has spoilt it.

        The engine describes itself again, so a spoilt one is no loss.
        """
        text = facts.get(name)
        try:
            return unpack(text) if isinstance(text, bytes) else None
        except (zlib.error, ValueError):
            logger.error("The disk has spoilt the %s in the outbox %s", name, self.path)
            return None
