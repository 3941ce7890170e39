"""The disk's side of a durable outbox: write commits one at a time, and know how the disk is.

The outbox's lock guards the line, and nobody waits for a disk while holding it. The lock here
guards the file, and its holder may wait for the disk for long. A commit takes what it writes from
the outbox, with the outbox's lock, in one moment. Then it writes without that lock.
"""

import logging
import os
import sqlite3
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path

from attrs import define, field, frozen
from trio.lowlevel import in_trio_run

from trio_runner._outbox import Entry, Lock, Threads
from trio_runner._outbox_sqlite._commits import DISK_WAIT_S, Commits
from trio_runner._outbox_sqlite._errors import OutboxError
from trio_runner._outbox_sqlite._facts import KnownFacts, stored
from trio_runner._outbox_sqlite._file import Changes, Fact, OutboxFile

DISK_RETRY_S = 30
"""How long to wait before a disk that could not be written is tried again (s)."""

CLOSE_S = 3
"""How long to wait for a disk that hangs when the outbox is closed (s)."""


@frozen
class Batch:
    """What one commit writes."""

    changes: Changes
    facts: Mapping[str, Fact]
    waiting: list[Entry]
    """All that waits if the contents of the file are unknown, else nothing."""


@frozen
class Source:
    """What a commit calls in its outbox. Each call takes the outbox's lock for a moment.

    The disk's side does not keep it: in a circle of references an outbox that nobody closes would
    keep its file locked until the garbage collector comes.
    """

    take: Callable[[bool], Batch]
    """Returns what has changed since the last call, and, if asked to, all that waits."""
    note_written: Callable[[Changes], None]
    take_back: Callable[[Changes], None]
    """Notes that changes could not be written."""
    end: Callable[[bool], None]
    """Notes that the commit is over, and whether nothing is to wait for the disk any more."""
    warn: Callable[..., None]
    """Logs a level and a text with its values, and shows it to the unit's people."""


@define(eq=False, kw_only=True)
class Disk:
    """The file of an outbox, open, and what has become of writing to it."""

    path: Path
    clock: Callable[[], float]
    connect: Callable[..., sqlite3.Connection]
    _threads: Threads
    commits: Commits = field(init=False)
    file: OutboxFile = field(init=False)
    known: KnownFacts = field(factory=KnownFacts, init=False)
    is_open: bool = field(default=True, init=False)
    failure: str | None = field(default=None, init=False)
    """Why the last commit failed, or None if it did not."""
    writing: Lock = field(init=False)
    """Held while the file is written. Trio's thread waits neither for it nor for its holder."""
    _retry_at: float = field(default=0.0, init=False)

    @writing.default
    def _new_writing(self) -> Lock:
        return self._threads.RLock()

    def __attrs_post_init__(self) -> None:
        self.commits = Commits(self.clock, self._threads.Condition())
        self.file = OutboxFile.open(self.path, create=True, connect=self.connect)

    # How the disk is

    @property
    def is_slow(self) -> bool:
        """Whether something has waited for the disk for longer than any thread waits for it."""
        return self.commits.is_slow

    @property
    def trouble(self) -> str | None:
        """Why no thread waits for the disk now, or None if it is well."""
        if self.failure is None and self.is_slow:
            return f"the disk has not written for {DISK_WAIT_S:.0f} s"
        return self.failure

    def became_slow(self) -> bool:
        """Note that the disk is slow; return whether that is news."""
        return self.failure is None and self.is_open and self.commits.became_slow()

    # Commits

    def commit(self, source: Source) -> None:
        """Write what has changed; return when it is on disk, or when the disk has failed.

        Any thread may call it. It waits for the disk, but for a commit that hangs in another thread
        only `DISK_WAIT_S`. Raises nothing for a disk that fails.
        """
        if not self.writing.acquire(timeout=DISK_WAIT_S):
            return
        try:
            if self.is_open and not (self.failure and self.clock() < self._retry_at):
                self._try_to_write(source)
        finally:
            source.end(self.failure is not None or not self.is_open)
            self.commits.end()
            if not self.is_open:  # it was closed while the disk hung
                self.file.close()
            self.writing.release()

    def commit_in_a_thread(self, source: Source) -> None:
        """Commit in a thread of its own, and wait for it `DISK_WAIT_S` at most."""
        if self.is_slow:
            return
        if in_trio_run() and self.clock is not time.monotonic:
            self.commit(source)  # a disk in virtual time, which no other thread knows
            return
        thread = threading.Thread(target=self.commit, args=(source,), name="outbox", daemon=True)
        thread.start()
        thread.join(DISK_WAIT_S)

    def _try_to_write(self, source: Source) -> None:
        try:
            self._write(source)
        except (sqlite3.Error, OSError, OutboxError) as error:
            self._note_failure(error, source.warn)
        except BaseException as error:  # such as KeyboardInterrupt: what was written is unknown
            self.failure, self._retry_at = f"interrupted by {error!r}", self.clock()
            raise
        else:
            self._note_recovery(source.warn)

    def _note_failure(self, error: Exception, warn: Callable[..., None]) -> None:
        if self.failure is None:
            warn(
                logging.ERROR,
                "The outbox %s cannot be written (%s): messages now wait in memory only, and are"
                " lost if the process ends. The disk is tried again every %d s",
                self.path,
                error,
                DISK_RETRY_S,
            )
        self.failure = str(error)
        self._retry_at = self.clock() + DISK_RETRY_S

    def _note_recovery(self, warn: Callable[..., None]) -> None:
        if self.failure is not None:
            self.failure = None
            text = "The outbox %s can be written again: all that waits is on disk"
            warn(logging.WARNING, text, self.path)
        if self.commits.became_quick():
            warn(logging.WARNING, "The disk of the outbox %s is quick again", self.path)

    def _write(self, source: Source) -> None:
        recovers = self.failure is not None
        if recovers:
            self._reopen()
        batch = source.take(recovers)
        changes, changed = batch.changes, self.known.changed(batch.facts)
        try:
            if recovers:
                self.file.write_all(batch.waiting, changes, stored(batch.facts))
            elif changes or changed:
                self.file.write(changes, changed)
        except BaseException:
            source.take_back(changes)
            raise
        source.note_written(changes)
        self.known.written(batch.facts, changed, self.clock())
        if recovers or changes.removed:
            self.file.shrink()

    def _reopen(self) -> None:
        """Open the file anew, whatever was wrong with it; leave a stranger's file alone."""
        known = self.file.identity
        self.file.close()
        if not self.path.exists():  # its log may still be there; all of it is in memory
            Path(f"{os.path.realpath(self.path)}-wal").unlink(missing_ok=True)
        file = OutboxFile.open(self.path, create=True, connect=self.connect)
        if file.identity != known and not file.is_new and file.load().entries:
            file.close()
            raise OutboxError(f"Another outbox is at {self.path} now, with messages in it.")
        self.file = file

    # The end

    def close(self, source: Source) -> bool:
        """Write what waits and release the file; return whether the disk has come to that.

        The calling thread waits for the disk, `CLOSE_S` at most. Then the file is left to the
        thread that hangs.
        """
        now = self.clock()
        self.clock = self.commits.clock = lambda: now  # other threads cannot read Trio's clock
        if in_trio_run() and self.connect is not sqlite3.connect:
            self._close(source)  # a simulated disk, which hangs in virtual time only
        else:
            thread = threading.Thread(
                target=self._close, args=(source,), name="outbox", daemon=True
            )
            thread.start()
            thread.join(CLOSE_S)
        was_closed, self.is_open = not self.is_open, False
        return was_closed

    def abandon(self) -> None:
        """Release the file as it is."""
        self.file.close()
        self.is_open = False

    def _close(self, source: Source) -> None:
        if not self.writing.acquire(timeout=CLOSE_S):
            return
        try:
            self._retry_at, self.known.is_last = self.clock(), True
            self.commit(source)
            self.abandon()
        finally:
            self.writing.release()
