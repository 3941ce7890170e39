"""The durable outbox: the line in memory is the truth, and the file keeps it for after a crash."""

import logging
import sqlite3
import time
import warnings
import zlib
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import ClassVar

from attrs import define, evolve, field
from trio.lowlevel import in_trio_run

from trio_runner._outbox import OUTBOX_BYTES_MAX, RUN_EVENTS, Entry, Outbox, Prepared
from trio_runner._outbox_sqlite._apart import Kept, keep_apart
from trio_runner._outbox_sqlite._commits import DISK_WAIT_S
from trio_runner._outbox_sqlite._disk import Batch, Disk, Source
from trio_runner._outbox_sqlite._errors import (
    OutboxClosed,
    OutboxOfAnotherUnit,
    damaged,
    explained,
)
from trio_runner._outbox_sqlite._facts import (
    KEPT_STATES,
    NUMBERS_LOST,
    UNIT_STATES,
    found,
    is_renamed,
    run_behind,
    stored,
    uod_name,
)
from trio_runner._outbox_sqlite._file import SET_ASIDE_MAX, Changes, Contents, Fact
from trio_runner._outbox_sqlite._under_way import UnderWay
from trio_runner.protocol import DecodeError, encode_json
from trio_runner.protocol import engine_messages as em

logger = logging.getLogger(__name__)


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
    _disk: Disk = field(init=False)
    _barrier: int = field(default=0, init=False)
    """The number of the commit that must have ended before anything goes out."""
    _unsafe: list[Entry] = field(factory=list, init=False)
    """The events in the line that do not count as queued yet."""
    _left_behind: Entry | None = field(default=None, init=False)
    """The last event for which `put` stopped waiting before it was on disk."""
    _under_way: UnderWay = field(factory=UnderWay, init=False)

    def __attrs_post_init__(self) -> None:
        self._disk = Disk(
            path=self.path,
            clock=self.clock,
            connect=self.connect,
            threads=self.threads,
        )
        try:
            self._restore(self._disk.file.load())
        except BaseException:
            self._disk.abandon()
            raise
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
        disk: Disk | None = getattr(self, "_disk", None)  # None if the file could not be opened
        if disk is not None and disk.is_open:
            warnings.warn(f"unclosed outbox {self.path}", ResourceWarning, 2, source=self)
            disk.abandon()

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
                f"The outbox {self.path} holds messages of {old} ({len(entries)} waiting), but"
                f" this is {new}. Use another path, or discard them."
            )
        with explained(self.path):
            set_aside = self._disk.file.set_aside()
        if not (entries or set_aside or (self.run_id and is_renaming)):
            return
        kept = Kept(entries, set_aside, stored(self._facts()))
        aside = keep_apart(self.path, old, kept, self.connect)
        # After a crash before the next commit they are moved once more, into one more file.
        with explained(self.path):
            self._disk.file.forget_set_aside()
        self._empty_line()
        logger.warning(
            "This unit is now called %s, and was called %s. What waits under the old name"
            " (messages: %d) is kept in %s; `trio-runner outbox deliver` sends it under that name",
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
        commits = self._disk.commits
        if head.kind not in RUN_EVENTS:
            return commits.ended >= self._barrier
        return commits.ended == commits.begun >= self._barrier and not (
            self._journal.removed or self._journal.aside
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
            self._under_way.answered(self._disk.clock())
            if entry.kind not in RUN_EVENTS:
                return
            self._last_run_event = entry.sequence_number
            self._barrier = self._disk.commits.begun + 1
        self._want_commit()

    def _want_commit(self) -> None:
        wanted = self.commit_wanted  # read once: a runner that ends takes it away
        if wanted is None:
            self.commit()
            return
        with self._lock:
            self._disk.commits.want()
        wanted()

    def enter(self, message: em.EngineMessage | Prepared) -> Entry | None:
        if not self._disk.is_open:
            kind = type(message.message if isinstance(message, Prepared) else message)
            raise OutboxClosed(f"{kind.__name__}: the outbox {self.path} is closed")
        event = super().enter(message)
        with self._lock:
            if event is not None:
                self._unsafe.append(event)
            if event is not None or self.commit_wanted is not None:
                self._disk.commits.want()
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
            self._disk.commit_in_a_thread(self._source)
        else:
            self._want_commit()
            if in_trio_run():
                return
            self._disk.commits.wait_until(lambda: event.is_queued)
        with self._lock:
            if not event.is_queued:
                self._leave_behind(event)

    def _leave_behind(self, event: Entry) -> None:
        """Stop waiting for an event; it goes out once it is on disk, or if the disk is slow."""
        self._left_behind = event
        self._note_slowness()
        if self._disk.is_slow:
            self._release()

    def _note_slowness(self) -> None:
        if self._disk.became_slow():
            self._warn(
                logging.ERROR,
                "The disk of the outbox %s has kept others waiting for %.0f s: it is slow, or"
                " hangs. Until it is quick again, events may be in memory only, and are lost if"
                " the process ends",
                self.path,
                DISK_WAIT_S,
            )

    def _release_if_degraded(self) -> bool:
        """Let nothing wait for a disk that fails or is slow; return whether it does or is."""
        if self._disk.trouble is None:
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
        self._disk.commit(self._source)

    def close(self) -> None:
        """Write what waits and release the file; may be called again.

        The calling thread waits for the disk, so Trio's thread should leave this to another. A disk
        that hangs is waited for `CLOSE_S` at most. Then the file is left to the thread that hangs.
        """
        if not self._disk.is_open:
            return
        if not self._disk.close(self._source):
            logger.error(
                "The outbox %s is left behind because its disk hangs. What was put in since then"
                " is lost if the disk does not come back before the process ends",
                self.path,
            )
        elif self._disk.failure is not None:
            logger.error(
                "The outbox %s is closed while its disk fails: of the %d messages that wait, those"
                " put in since then are lost",
                self.path,
                len(self),
            )

    @property
    def _source(self) -> Source:
        return Source(
            self._take_batch, self._note_written, self._take_back, self._end_commit, self._warn
        )

    def _take_batch(self, is_all: bool) -> Batch:
        with self._lock:
            self._disk.commits.begin()
            changes, self._journal = self._journal, Changes()
            if not (is_all or self._disk.known.is_last):  # then all that waits is written
                now = self._disk.clock()
                for entry in self._under_way.leave_out(changes, self._in_flight, now):
                    self._journal.added(entry)
            return Batch(changes, self._facts(), self._waiting() if is_all else [])

    def _note_written(self, changes: Changes) -> None:
        with self._lock:
            for number, entry in changes.new.items():
                entry.is_queued = (
                    entry.is_queued or number not in self._journal.new
                )  # not on disk if others were merged into it meanwhile
            self._unsafe = [event for event in self._unsafe if not event.is_queued]

    def _take_back(self, changes: Changes) -> None:
        """Keep what was set aside, which is nowhere else; the line itself is in memory."""
        with self._lock:
            aside = changes.aside + self._journal.aside
            self._journal.aside = aside[-SET_ASIDE_MAX:]

    def _end_commit(self, is_given_up: bool) -> None:
        with self._lock:
            if is_given_up:
                self._release()

    def fate(self) -> str:
        """Return where what waits is kept, and whether the disk has all of it."""
        why = self._why_degraded()
        if why is None:
            return f"kept in {self.path} and go out at the next start"
        return f"kept in {self.path} only as far as its disk has taken them ({why})"

    def _why_degraded(self) -> str | None:
        trouble, left = self._disk.trouble, self._left_behind
        if trouble is None and left is not None and not left.is_queued:
            return f"the disk is slow: {left} is not on it yet"
        return trouble

    # What is known besides the line

    def _facts(self) -> dict[str, Fact]:
        is_on = self.run_id is not None
        states = {n: self._states.get(kind) if is_on else None for n, kind in KEPT_STATES.items()}
        now = self._disk.clock()
        return {
            **self._disk.known.latest(self.unit, self._numbers, self.open_run, states, now),
            **{name: self._states.get(kind) for name, kind in UNIT_STATES.items()},
            "registration": self.registration,
            "last_run_event": self._last_run_event,
        }

    def _restore(self, contents: Contents) -> None:
        for entry in contents.spoilt:
            self._warn(logging.ERROR, "The disk has damaged %s: it is set aside", entry)
            self._journal.set_aside(entry, "spoilt on the disk")
            self._counts["set_aside"] += 1
        last = max((e.sequence_number for e in contents.entries + contents.spoilt), default=0)
        try:
            known = found(contents.facts, self.path)
            self.run_id = run_behind(contents.entries, known.open_run)
        except (zlib.error, DecodeError, TypeError, ValueError) as error:
            raise damaged(self.path, str(error)) from error
        self.unit, self.registration, self.open_run = known.unit, known.registration, known.open_run
        self._last_run_event = known.last_run_event
        self._states.update(known.states)
        self._disk.known.reserved = self._numbers = max(known.numbers, last)
        if self._disk.file.damage is not None:  # the last reservation may be lost
            self._disk.known.reserved = self._numbers = self._numbers + NUMBERS_LOST
        self._line.extend(contents.entries)
        self._bytes = sum(entry.size for entry in contents.entries)
        self._run_events = sum(entry.is_run_event for entry in contents.entries)
        self._thinnable = sum(not (e.is_event or e.tries) for e in contents.entries)
        self._keep_bound()
