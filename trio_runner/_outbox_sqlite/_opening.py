"""The opening of an outbox's file: nothing is touched before it is known to be an outbox."""

import os
import sqlite3
import stat
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from urllib.parse import quote

from trio_runner._outbox_sqlite._damage import Damage, keep_copy
from trio_runner._outbox_sqlite._errors import (
    OutboxNotFound,
    OutboxTooNew,
    damaged,
    explained,
    no_outbox,
)
from trio_runner._outbox_sqlite._log import fault_of, read_log
from trio_runner._outbox_sqlite._schema import APPLICATION_ID, SCHEMA, SCHEMA_VERSION

LOCK_WAIT_S = 0.5
"""How long to wait for a process that is just ending, or a person who is looking (s)."""

MAGIC = b"SQLite format 3\0"

PAGE_START = 105
"""How much of the first page contains the file's header and the page's number of cells (bytes)."""

EMPTY = b"\x0d\0\0\0\0"
"""The beginning of a leaf page without free blocks and cells."""

LOG_BYTES_MAX = 8 * 1024 * 1024
"""The size to which SQLite cuts the write-ahead log when it has grown larger (bytes)."""


def open_database(
    path: Path, *, create: bool, check: bool, connect: Callable[..., sqlite3.Connection]
) -> tuple[sqlite3.Connection, bool, Damage | None]:
    """Open and lock a file; return it, whether it was empty, and what is damaged.

    If the log is damaged, the part before the damage counts, and a copy of all files is kept.
    Raises an `OutboxError`. A file that is not an outbox is left as it is.
    """
    if not create and not path.exists():
        raise OutboxNotFound(f"There is no outbox {path}.")
    with explained(path):
        refuse_what_is_no_file(path)
        refuse_a_log_alone(path)
        _create(path)
        db = connect(
            f"file:{quote(str(path.absolute()))}?mode=rw",
            uri=True,
            isolation_level=None,
            check_same_thread=False,
            timeout=LOCK_WAIT_S,
        )
    damage: Damage | None = None
    try:
        with explained(path):
            _lock(db, path)
            damage = _damage_of_log(path)
            new = is_new(db, path)
            if new and not create:
                raise no_outbox(path, "it is empty")
            _protect(path)
            _prepare(db, is_new=new)
            if check:
                check_pages(db, path)
            return db, new, damage
    except BaseException:
        db.close()
        if damage is not None:
            damage.close()
        raise


def refuse_what_is_no_file(path: Path) -> None:
    """Refuse a device, a folder, a pipe, or an empty file that another user has made.

    Root could open them all, and would then change their rights.
    """
    for file in (path, Path(f"{path}-wal")):
        try:
            status = file.stat()
        except FileNotFoundError:
            continue
        if not stat.S_ISREG(status.st_mode):
            raise no_outbox(file, "it is not a regular file")
        is_ours = not hasattr(os, "geteuid") or status.st_uid == os.geteuid()
        if file == path and status.st_size == 0 and not is_ours:
            raise no_outbox(file, "it is empty and belongs to another user")


def refuse_a_log_alone(path: Path) -> None:
    """Refuse a log whose file is empty or gone: SQLite would delete it, with all that is in it."""
    log = Path(f"{path}-wal")
    if log.exists() and log.stat().st_size and not (path.exists() and path.stat().st_size):
        what = "empty" if path.exists() else "gone"
        raise damaged(path, f"it is {what}, but there is a write-ahead log, {log.name}")


def refuse_a_stranger(path: Path) -> None:
    """Refuse another program's database, from which SQLite would take its log or journal.

    This opens and closes the file. By the rules of POSIX that gives up the locks that this process
    has on it.
    """
    refuse_what_is_no_file(path)
    with path.open("rb") as file:
        page = file.read(PAGE_START)
    if not page.startswith(MAGIC) or _application(page) == APPLICATION_ID:
        return
    if not _application(page):
        page = _first_page_in_log(path) or page
    # An outbox that is just being made has nothing in its first page yet.
    if _application(page) != APPLICATION_ID and (_application(page) or page[100:105] != EMPTY):
        raise no_outbox(path, "it is the database of another program")


def _application(page: bytes) -> int:
    return int.from_bytes(page[68:72], "big")


def _first_page_in_log(path: Path) -> bytes:
    """Return the beginning of the first page as the log has it, or nothing if it has none."""
    try:
        with Path(f"{path}-wal").open("rb") as file:
            at = read_log(file).pages.get(1)
            if at is None:
                return b""
            file.seek(at)
            return file.read(PAGE_START)
    except FileNotFoundError:
        return b""


def identity(path: Path) -> tuple[int, int]:
    status = path.stat()
    return status.st_dev, status.st_ino


def _create(path: Path) -> None:
    """Make a file that only its owner can read; SQLite makes the files beside it the same way.

    A file that exists is not opened here. By the rules of POSIX, closing it would give up the lock
    of another outbox in this process that has it.
    """
    with suppress(FileExistsError):
        os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o600))


def _protect(path: Path) -> None:
    """Make an existing outbox its owner's alone; never called for a stranger's file."""
    for file in (path, Path(f"{path}-wal")):
        if file.exists() and file.stat().st_mode & 0o077:
            file.chmod(0o600)


def _lock(db: sqlite3.Connection, path: Path) -> None:
    """Lock the file for as long as it is open.

    The exclusive lock is asked for before the first look. So SQLite also does without the shared
    memory file that a write-ahead log otherwise has.
    """
    db.execute("PRAGMA locking_mode = EXCLUSIVE")
    (application,) = db.execute("PRAGMA application_id").fetchone()
    if application not in (0, APPLICATION_ID):
        raise no_outbox(path, "it is the database of another program")


def _damage_of_log(path: Path) -> Damage | None:
    fault = fault_of(Path(f"{path}-wal"))
    return keep_copy(path, f"in its write-ahead log, {fault}") if fault is not None else None


def is_new(db: sqlite3.Connection, path: Path) -> bool:
    """Return whether there is nothing in the file yet."""
    (application,) = db.execute("PRAGMA application_id").fetchone()
    (version,) = db.execute("PRAGMA user_version").fetchone()
    if db.execute("SELECT 1 FROM sqlite_master LIMIT 1").fetchone() is None:
        if application:
            raise damaged(path, "its tables are missing")
        return True
    if application == 0:
        raise no_outbox(path, "it is the database of another program")
    if version > SCHEMA_VERSION:
        raise OutboxTooNew(
            f"The outbox {path} was written by a newer trio-runner (schema {version}, this one"
            f" knows {SCHEMA_VERSION}). Update trio-runner, or use another path."
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
    # On a file that had no log yet, reading took only a shared lock.
    db.execute("BEGIN EXCLUSIVE")
    db.execute("ROLLBACK")
    # An unfinished transaction may have left frames in the log. They would be taken for damage once
    # others stand before them.
    with suppress(sqlite3.Error):  # the disk is full, for example
        db.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
    if is_new:
        db.executescript(f"BEGIN EXCLUSIVE; {SCHEMA} COMMIT;")


def check_pages(db: sqlite3.Connection, path: Path) -> None:
    """Raise OutboxDamaged if the file is not whole."""
    # The outbox's own bound limits how long this takes: 0.1 s for 60 MB.
    (result,) = db.execute("PRAGMA quick_check(1)").fetchone()
    if result != "ok":
        raise damaged(path, " ".join(result.split()))
