"""The file beneath a durable outbox: its tables, its lock, and the errors it may have.

Written with a write-ahead log and `synchronous=FULL`: a transaction that has returned outlives a
loss of power. The lock is SQLite's own, exclusive and held for as long as the file is open; it goes
with the process that holds it. `write` may be called from any thread, by one at a time.
"""

import os
import sqlite3
import zlib
from collections.abc import Callable, Generator, Iterable, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from urllib.parse import quote

from attrs import define, field, frozen

from trio_runner._outbox import DELIVERY, Entry, Journal
from trio_runner._outbox_sqlite._errors import (
    OutboxError,
    OutboxNotFound,
    OutboxTooNew,
    damaged,
    explained,
    no_outbox,
)
from trio_runner.protocol import engine_messages as em

APPLICATION_ID = 0x74724F42
"""`PRAGMA application_id` of an outbox."""

SCHEMA_VERSION = 1
"""`PRAGMA user_version`; raised when an older version of this package could not read the file."""

LOCK_WAIT_S = 0.5
"""How long to wait for a process that is just ending, or for a person who is looking (s)."""

SET_ASIDE_MAX = 1000
"""How many messages that were set aside are kept, the newest."""

SET_ASIDE_BYTES_MAX = 16 * 1024 * 1024
"""How many bytes of them are kept; the newest is, whatever its size."""

LOG_BYTES_MAX = 8 * 1024 * 1024
"""To what size the write-ahead log is cut when it has grown beyond (bytes)."""

SCHEMA = f"""
CREATE TABLE messages (
    sequence_number INTEGER PRIMARY KEY,
    kind TEXT NOT NULL,
    body BLOB NOT NULL,       -- the JSON text, as `protocol.pack` gives it: a zlib stream
    crc INTEGER NOT NULL,     -- of the body as it stands here
    tried INTEGER NOT NULL,   -- 1 if it was sent and may have arrived
    taken_at REAL NOT NULL    -- seconds since the epoch
);
CREATE TABLE set_aside (
    sequence_number INTEGER PRIMARY KEY,
    kind TEXT NOT NULL,
    body BLOB NOT NULL,
    taken_at REAL NOT NULL,
    reason TEXT NOT NULL
);
CREATE TABLE facts (name TEXT PRIMARY KEY, value) WITHOUT ROWID;
PRAGMA application_id = {APPLICATION_ID};
PRAGMA user_version = {SCHEMA_VERSION};
"""

KINDS: dict[str, type[em.EngineMessage]] = {kind.__name__: kind for kind in DELIVERY}

Fact = str | int | float | bytes | None


@define(eq=False)
class Changes(Journal):
    """What has changed in the line since it was written last.

    A message that comes and goes between two writes leaves nothing.
    """

    new: dict[int, Entry] = field(factory=dict)
    tried: set[int] = field(factory=set)
    removed: set[int] = field(factory=set)
    put_aside: list[tuple[Entry, str]] = field(factory=list)

    def added(self, entry: Entry) -> None:
        self.new[entry.sequence_number] = entry

    def sent(self, entry: Entry) -> None:
        if entry.sequence_number not in self.new:  # those are written as they are by then
            self.tried.add(entry.sequence_number)

    def gone(self, entry: Entry) -> None:
        self.tried.discard(entry.sequence_number)
        if self.new.pop(entry.sequence_number, None) is None:
            self.removed.add(entry.sequence_number)

    def set_aside(self, entry: Entry, why: str) -> None:
        self.gone(entry)
        self.put_aside.append((entry, why))

    def __bool__(self) -> bool:
        return bool(self.new or self.tried or self.removed or self.put_aside)


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

    @classmethod
    def open(
        cls,
        path: Path,
        *,
        create: bool,
        check: bool = True,
        connect: Callable[..., sqlite3.Connection] = sqlite3.connect,
    ) -> "OutboxFile":
        """Open and lock a file, and look whether it is whole if `check` is true.

        Raises an `OutboxError`. A file that is not an outbox is left as it is.
        """
        if not create and not path.exists():
            raise OutboxNotFound(f"There is no outbox {path}.")
        with explained(path):
            _create(path)
            db = connect(
                f"file:{quote(str(path.absolute()))}?mode=rw",
                uri=True,
                isolation_level=None,
                check_same_thread=False,
                timeout=LOCK_WAIT_S,
            )
        try:
            with explained(path):
                is_new = _lock(db, path)
                if is_new and not create:
                    raise no_outbox(path, "it is empty")
                _protect(path)
                _prepare(db, is_new=is_new)
                if check:
                    _check(db, path)
                return cls(path, is_new, db, _identity(path))
        except BaseException:
            db.close()
            raise

    def close(self) -> None:
        """Close the file and let go of its lock; may be called again."""
        with suppress(sqlite3.Error):  # all that was committed is in the log
            self.db.close()

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
            if kind not in KINDS:
                raise damaged(self.path, f"message {number} is of the unknown type {kind!r}")
            yield Entry(number, KINDS[kind], body, taken_at, tried), crc

    def write(self, changes: Changes, facts: Mapping[str, Fact]) -> None:
        """Bring the file up to date, wholly or not at all.

        Raises sqlite3.Error, OSError, or OutboxError if it is no longer where it was.
        """
        if _identity(self.path) != self.identity:
            raise OutboxError(f"The outbox {self.path} was replaced by another file.")
        with self.transaction():
            self._insert(changes.new.values())
            self.db.executemany(
                "UPDATE messages SET tried = 1 WHERE sequence_number = ?",
                [(number,) for number in changes.tried],
            )
            self._delete(changes.removed)
            self._put_aside(changes.put_aside)
            self.db.executemany("INSERT OR REPLACE INTO facts VALUES (?, ?)", facts.items())

    def write_all(
        self, entries: Iterable[Entry], changes: Changes, facts: Mapping[str, Fact]
    ) -> None:
        """Bring a file up to date of which nothing is known, given all that waits."""
        wanted = {entry.sequence_number: entry for entry in entries}
        stored = {number for (number,) in self.db.execute("SELECT sequence_number FROM messages")}
        everything = Changes(
            new={number: wanted[number] for number in wanted.keys() - stored},
            tried={number for number in wanted.keys() & stored if wanted[number].tries},
            removed=stored - wanted.keys(),
            put_aside=changes.put_aside,
        )
        self.write(everything, facts)

    @contextmanager
    def transaction(self) -> Generator[None, None, None]:
        """Commit what the block does, or nothing of it."""
        self.db.execute("BEGIN IMMEDIATE")
        try:
            yield
            self.db.execute("COMMIT")
        except BaseException:
            with suppress(sqlite3.Error):  # SQLite may have done it itself
                self.db.execute("ROLLBACK")
            raise

    def _insert(self, entries: Iterable[Entry]) -> None:
        self.db.executemany(
            "INSERT OR REPLACE INTO messages VALUES (?, ?, ?, ?, ?, ?)",
            (
                (
                    entry.sequence_number,
                    entry.kind.__name__,
                    entry.body,
                    zlib.crc32(entry.body),
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

    def _put_aside(self, messages: list[tuple[Entry, str]]) -> None:
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


def _identity(path: Path) -> tuple[int, int]:
    status = path.stat()
    return status.st_dev, status.st_ino


def _create(path: Path) -> None:
    """Make a file that only its owner can read; SQLite makes those beside it the same.

    One that is there is not opened here: closing it would give up the lock of an outbox of this
    process that has it, by the rules of POSIX.
    """
    with suppress(FileExistsError):
        os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o600))


def _protect(path: Path) -> None:
    """Close an outbox that is there to all but its owner; never called on a stranger's file."""
    for file in (path, Path(f"{path}-wal")):
        if file.exists() and file.stat().st_mode & 0o077:
            file.chmod(0o600)


def _lock(db: sqlite3.Connection, path: Path) -> bool:
    """Lock the file for as long as it is open; return whether there is nothing in it yet.

    An exclusive lock that is asked for before the first look also does without the shared memory
    file that a write-ahead log otherwise has.
    """
    db.execute("PRAGMA locking_mode = EXCLUSIVE")
    (application,) = db.execute("PRAGMA application_id").fetchone()
    (version,) = db.execute("PRAGMA user_version").fetchone()
    if application not in (0, APPLICATION_ID):
        raise no_outbox(path, "it is the database of another program")
    if db.execute("SELECT 1 FROM sqlite_master LIMIT 1").fetchone() is None:
        return True
    if application == 0:
        raise no_outbox(path, "it is the database of another program")
    if version > SCHEMA_VERSION:
        raise OutboxTooNew(
            f"The outbox {path} was written by a newer trio-runner (schema {version}, this one"
            f" knows {SCHEMA_VERSION}). Update trio-runner, or take another path."
        )
    return False


def _prepare(db: sqlite3.Connection, *, is_new: bool) -> None:
    (mode,) = db.execute("PRAGMA journal_mode = WAL").fetchone()
    if mode != "wal":
        raise OSError(f"no write-ahead log is possible here (journal mode {mode})")
    db.execute("PRAGMA synchronous = FULL")
    db.execute("PRAGMA fullfsync = ON")  # macOS has two kinds of fsync
    db.execute("PRAGMA temp_store = MEMORY")
    db.execute(f"PRAGMA journal_size_limit = {LOG_BYTES_MAX}")
    # Reading took a shared lock only, on a file that had no log yet.
    db.execute("BEGIN EXCLUSIVE")
    db.execute("ROLLBACK")
    if is_new:
        db.executescript(f"BEGIN EXCLUSIVE; {SCHEMA} COMMIT;")


def _check(db: sqlite3.Connection, path: Path) -> None:
    # Bounded by the outbox's own bound: 60 MB take a tenth of a second.
    (result,) = db.execute("PRAGMA quick_check(1)").fetchone()
    if result != "ok":
        raise damaged(path, " ".join(result.split()))
