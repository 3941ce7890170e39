"""The file of a durable outbox: its tables, its lock, and the errors it may have.

It is written with a write-ahead log and `synchronous=FULL`, so a transaction that has returned
outlives a loss of power. The lock is SQLite's own, exclusive and held for as long as the file is
open. It goes with the process that holds it. Any thread may call `write`, one at a time.
"""

import os
import sqlite3
import zlib
from collections.abc import Callable, Generator, Iterable, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from weakref import WeakSet

from attrs import define, field, frozen

from trio_runner._outbox import DELIVERY, Entry, Journal
from trio_runner._outbox_sqlite._damage import Damage
from trio_runner._outbox_sqlite._errors import OutboxError, damaged, explained
from trio_runner._outbox_sqlite._opening import identity, open_database, refuse_a_stranger
from trio_runner.protocol import engine_messages as em

SET_ASIDE_MAX = 1000
"""How many messages that were set aside are kept: the newest."""

SET_ASIDE_BYTES_MAX = 16 * 1024 * 1024
"""How many bytes of them are kept; the newest is kept whatever its size."""

SHRINK_PAGES = 256
"""How many pages (of 4 kB) must be free before the share of free pages matters."""

SHRINK_FREE = 3 / 4
"""The share of the file that must be free before it is made smaller."""

KINDS: dict[str, type[em.EngineMessage]] = {kind.__name__: kind for kind in DELIVERY}

Fact = str | int | float | bytes | None


@define(eq=False)
class Changes(Journal):
    """What has changed in the line since it was last written.

    A message that comes and goes between two writes leaves nothing.
    """

    new: dict[int, Entry] = field(factory=dict)
    """Messages to be written, whether the file has them in another form or not at all."""
    rewritten: set[int] = field(factory=set)
    """The numbers of those that the file has in another form."""
    tried: set[int] = field(factory=set)
    removed: set[int] = field(factory=set)
    aside: list[tuple[Entry, str]] = field(factory=list)

    def added(self, entry: Entry) -> None:
        self.new[entry.sequence_number] = entry

    def changed(self, entry: Entry) -> None:
        if entry.sequence_number not in self.new:
            self.new[entry.sequence_number] = entry
            self.rewritten.add(entry.sequence_number)

    def sent(self, entry: Entry) -> None:
        if entry.sequence_number not in self.new:  # new ones are written as they are by then
            self.tried.add(entry.sequence_number)

    def gone(self, entry: Entry) -> None:
        number = entry.sequence_number
        self.tried.discard(number)
        if self.new.pop(number, None) is None or number in self.rewritten:
            self.removed.add(number)

    def set_aside(self, entry: Entry, why: str) -> None:
        self.gone(entry)
        self.aside.append((entry, why))

    def __bool__(self) -> bool:
        return bool(self.new or self.tried or self.removed or self.aside)


@frozen
class Contents:
    """What a file holds; `spoilt` are messages whose bytes the disk has changed."""

    entries: list[Entry]
    spoilt: list[Entry]
    facts: dict[str, Fact]


@define(eq=False)
class OutboxFile:
    """An outbox's file, open and locked."""

    path: Path
    is_new: bool
    db: sqlite3.Connection
    identity: tuple[int, int]
    damage: Damage | None
    """What the disk has spoilt of the file, of which a copy is kept; None if it is sound."""

    @classmethod
    def open(
        cls,
        path: Path,
        *,
        create: bool,
        check: bool = True,
        connect: Callable[..., sqlite3.Connection] = sqlite3.connect,
    ) -> "OutboxFile":
        """Open and lock a file, and check whether it is whole if `check` is true.

        Raises an `OutboxError`. A file that is not an outbox is left as it is.
        """
        path = Path(os.path.realpath(path))  # resolve links: the log is beside the file itself
        if path.exists() and not is_open_here(path):
            with explained(path):
                refuse_a_stranger(path)
        db, is_new, damage = open_database(path, create=create, check=check, connect=connect)
        file = cls(path, is_new, db, identity(path), damage)
        _OPEN.add(file)
        return file

    def close(self) -> None:
        """Close the file and release its lock; may be called again."""
        with suppress(sqlite3.Error):  # everything that was committed is in the log
            self.db.close()
        _OPEN.discard(self)
        if self.damage is not None:
            self.damage.close()

    def load(self) -> Contents:
        """Return all that the file holds, in the order of the line. Raises an `OutboxError`."""
        entries: list[Entry] = []
        spoilt: list[Entry] = []
        with explained(self.path):
            for entry, crc in self._entries():
                (entries if zlib.crc32(entry.body) == crc else spoilt).append(entry)
            facts = dict(self.db.execute("SELECT name, value FROM facts"))
        return Contents(entries, spoilt, facts)

    def _entries(self) -> Generator[tuple[Entry, int], None, None]:
        rows = self.db.execute(
            "SELECT sequence_number, kind, body, taken_at, tried, crc FROM messages"
            " ORDER BY sequence_number"
        )
        for number, kind, body, taken_at, tried, crc in rows:
            cls = self._kind(number, kind)
            if not (isinstance(body, bytes) and isinstance(taken_at, float) and tried in (0, 1)):
                raise damaged(self.path, f"message {number} is damaged")
            yield Entry(number, cls, body, taken_at, tried), crc

    def write(self, changes: Changes, facts: Mapping[str, Fact]) -> None:
        """Bring the file up to date, wholly or not at all.

        Raises sqlite3.Error, OSError, or OutboxError if another file is at its path.
        """
        if identity(self.path) != self.identity:
            raise OutboxError(f"The outbox {self.path} was replaced by another file.")
        with self.transaction():
            self.insert(changes.new.values())
            self.db.executemany(
                "UPDATE messages SET tried = 1 WHERE sequence_number = ?",
                [(number,) for number in changes.tried],
            )
            self._delete(changes.removed)
            self._keep_set_aside(changes.aside)
            self.db.executemany("INSERT OR REPLACE INTO facts VALUES (?, ?)", facts.items())

    def write_all(
        self, entries: Iterable[Entry], changes: Changes, facts: Mapping[str, Fact]
    ) -> None:
        """Bring a file up to date whose contents are unknown, given everything that waits.

        Raises what `write` raises.
        """
        wanted = {entry.sequence_number: entry for entry in entries}
        stored = dict(self.db.execute("SELECT sequence_number, crc FROM messages"))
        same = {n for n in wanted.keys() & stored if zlib.crc32(wanted[n].body) == stored[n]}
        everything = Changes(
            new={number: wanted[number] for number in wanted.keys() - same},
            tried={number for number in same if wanted[number].tries},
            removed=stored.keys() - wanted.keys(),
            aside=changes.aside,
        )
        self.write(everything, facts)

    def set_aside(self) -> list[tuple[Entry, str]]:
        """Return what was set aside and why, in order. Raises sqlite3.Error or OutboxDamaged."""
        rows = self.db.execute(
            "SELECT sequence_number, kind, body, taken_at, reason FROM set_aside"
            " ORDER BY sequence_number"
        )
        return [
            (Entry(number, self._kind(number, kind), body, taken_at, tries=1), reason)
            for number, kind, body, taken_at, reason in rows
        ]

    def _kind(self, number: int, name: str) -> type[em.EngineMessage]:
        if name not in KINDS:
            raise damaged(self.path, f"message {number} is of the unknown type {name!r}")
        return KINDS[name]

    def forget_set_aside(self) -> None:
        """Delete what was set aside. Raises sqlite3.Error."""
        self.db.execute("DELETE FROM set_aside")

    def shrink(self) -> None:
        """Give room back to the disk if most of the file is free.

        This copies what the file still holds, which is less than what was deleted since the last
        time. It does not matter if it fails.
        """
        with suppress(sqlite3.Error):
            (free,) = self.db.execute("PRAGMA freelist_count").fetchone()
            (pages,) = self.db.execute("PRAGMA page_count").fetchone()
            if free >= SHRINK_PAGES and free > pages * SHRINK_FREE:
                self.db.execute("VACUUM")
                self.db.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()

    @contextmanager
    def transaction(self) -> Generator[None, None, None]:
        """Commit everything that the block does, or nothing."""
        self.db.execute("BEGIN IMMEDIATE")
        try:
            yield
            self.db.execute("COMMIT")
        except BaseException:
            with suppress(sqlite3.Error):  # SQLite may have rolled back itself
                self.db.execute("ROLLBACK")
            raise

    def insert(self, entries: Iterable[Entry]) -> None:
        """Insert messages that wait, within a transaction. Raises sqlite3.Error."""
        self.db.executemany(
            "INSERT OR REPLACE INTO messages VALUES (?, ?, ?, ?, ?, ?)",
            (
                (
                    entry.sequence_number,
                    entry.kind.__name__,
                    body := entry.body,  # once: another thread may replace it meanwhile
                    zlib.crc32(body),
                    min(entry.tries, 1),
                    entry.taken_at,
                )
                for entry in entries
            ),
        )

    def _delete(self, numbers: Iterable[int]) -> None:
        self.db.executemany(
            "DELETE FROM messages WHERE sequence_number = ?", [(number,) for number in numbers]
        )

    def _keep_set_aside(self, messages: list[tuple[Entry, str]]) -> None:
        if not messages:
            return
        self.db.executemany(
            "INSERT OR REPLACE INTO set_aside VALUES (?, ?, ?, ?, ?)",
            [
                (entry.sequence_number, entry.kind.__name__, entry.body, entry.taken_at, why)
                for entry, why in messages
            ],
        )
        self._delete(entry.sequence_number for entry, _ in messages)
        dropped = self.db.execute(
            "DELETE FROM set_aside WHERE sequence_number IN ("
            " SELECT sequence_number FROM ("
            "  SELECT sequence_number, row_number() OVER newest AS count,"
            "   sum(length(body)) OVER newest AS size FROM set_aside"
            "   WINDOW newest AS (ORDER BY sequence_number DESC))"
            " WHERE count > ? OR (size > ? AND count > 1))",
            (SET_ASIDE_MAX, SET_ASIDE_BYTES_MAX),
        ).rowcount
        if dropped:
            self.db.execute(
                "INSERT INTO facts VALUES ('set_aside_dropped', ?)"
                " ON CONFLICT (name) DO UPDATE SET value = value + excluded.value",
                (dropped,),
            )


_OPEN: WeakSet[OutboxFile] = WeakSet()


def is_open_here(path: Path) -> bool:
    """Return whether this process has the outbox at a path open."""
    known = identity(path)
    return any(file.identity == known for file in list(_OPEN))
