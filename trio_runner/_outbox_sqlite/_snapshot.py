"""A look at an outbox's file that changes nothing and holds up nobody.

A running engine has its file locked, and an engine that starts must not find it locked by a person
who looks. So the file and its write-ahead log are read as they are, without a lock, and put
together in memory:

1. While the log has the same header, nothing in it is overwritten, only added.
2. What changes in the file meanwhile is in the log, too. SQLite copies pages from the log into the
   file, and begins the log anew only when all of them are copied.
3. So read the file first, then the log, and put the log's pages over the file's, up to the log's
   last commit. The result is the database at that commit, if the log's header is the same
   afterwards as before.

Whether an engine has the file shows in whether its lock can be taken. If so, the lock is given up
at once; an engine that starts just then waits for it (`LOCK_WAIT_S`).

By the rules of POSIX, a process that closes a file gives up its locks on it. So a process does not
look in this way at an outbox that it has open itself.
"""

import io
import os
import sqlite3
import sys
import time
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

from attrs import field, frozen

from trio_runner._outbox_sqlite._errors import (
    OutboxError,
    OutboxInUse,
    OutboxNotFound,
    damaged,
    explained,
    no_outbox,
)
from trio_runner._outbox_sqlite._file import is_open_here
from trio_runner._outbox_sqlite._log import HEADER, Log, read_log
from trio_runner._outbox_sqlite._opening import (
    MAGIC,
    identity,
    is_new,
    refuse_a_log_alone,
    refuse_what_is_no_file,
)
from trio_runner._outbox_sqlite._schema import APPLICATION_ID

TRIES = 20
"""How often to read: the log begins anew once in minutes, and a read takes a fraction of a
second."""

TRY_AGAIN_S = 0.05

LOCK_AT, LOCK_BYTES = 0x40000002, 510
"""Where SQLite locks a file against all others (its `src/os.h`)."""

NEW_BYTES_MAX = 64 * 1024
"""How large a file can be before it says that it is an outbox, while everything is in the log."""

_Stamp = tuple[bytes, tuple[int, int], int]


@frozen
class Snapshot:
    """What an outbox's file held at `taken_at` (seconds since the epoch)."""

    path: Path
    db: sqlite3.Connection
    """The database, in memory."""
    is_in_use: bool
    """Whether an engine had it open."""
    fault: str | None
    """What is wrong with the write-ahead log, or None. Only the part before that counts."""
    file_bytes: int
    """The size of the file and its log."""
    taken_at: float = field(factory=time.time)


@contextmanager
def snapshot_of(path: Path) -> Generator[Snapshot, None, None]:
    """Give an outbox's file as it is now, whether or not an engine has it.

    Raises an `OutboxError`, also for what SQLite finds wrong with the file within the block.
    """
    path = type(path)(os.path.realpath(path))  # resolve links: the log is beside the file itself
    with _readable(path):
        _refuse(path)
        data, log = _read(path)
        is_in_use = is_locked(path)
    db = sqlite3.connect(":memory:", isolation_level=None)
    try:
        with explained(path):
            contents = read_log(io.BytesIO(log))
            try:
                db.deserialize(_merged(path, data, log, contents))
            except (MemoryError, OverflowError):
                raise OutboxError(
                    f"The outbox {path} is too big to be read here: it has {len(data)} bytes."
                ) from None
            if is_new(db, path):
                raise no_outbox(path, "it is empty")
            size = len(data) + len(log)
            yield Snapshot(path, db, is_in_use, contents.fault, size)
    finally:
        db.close()


@contextmanager
def _readable(path: Path) -> Generator[None, None, None]:
    try:
        yield
    except FileNotFoundError as error:
        raise OutboxNotFound(f"There is no outbox {path}.") from error
    except OSError as error:
        raise OutboxError(
            f"The outbox {path} cannot be read: {error.strerror or error}. This process needs the"
            " right to read the file."
        ) from error


def _refuse(path: Path) -> None:
    """Refuse a file that is no outbox before all of it is read."""
    refuse_what_is_no_file(path)
    refuse_a_log_alone(path)
    if is_open_here(path):
        raise OutboxInUse(f"The outbox {path} is in use by this process.")
    with path.open("rb") as file:
        header = file.read(72)
    if not header:
        raise no_outbox(path, "it is empty")
    if not header.startswith(MAGIC):
        raise no_outbox(path, "it is not an SQLite database")
    application = int.from_bytes(header[68:], "big")
    is_young = application == 0 and path.stat().st_size <= NEW_BYTES_MAX
    if application != APPLICATION_ID and not is_young:
        raise no_outbox(path, "it is the database of another program")


def _read(path: Path) -> tuple[bytes, bytes]:
    """Return the file and its log as they were at one moment."""
    for _ in range(TRIES):
        before = _stamp(path)
        data, log = path.read_bytes(), _log_bytes(path)
        if _stamp(path) == before and not _is_being_written(path, log):
            return data, log
        time.sleep(TRY_AGAIN_S)
    if _stamp(path) == before:
        return data, log  # nobody is writing it: the log is damaged
    raise OutboxInUse(f"The outbox {path} changes faster than it can be read. Try again.")


def _stamp(path: Path) -> _Stamp:
    """Return a value that changes when the log begins anew.

    An empty log has no header to compare. Then the time of the last change to the file counts: the
    file is written only if the log had something in it meanwhile.
    """
    header, status = _log_bytes(path, HEADER.size), path.stat()
    return header, identity(path), 0 if header else status.st_mtime_ns


def _log_bytes(path: Path, size: int = -1) -> bytes:
    try:
        with Path(f"{path}-wal").open("rb") as file:
            return file.read(size)
    except FileNotFoundError:
        return b""


def _is_being_written(path: Path, log: bytes) -> bool:
    """Return whether a log's fault may come from reading while an engine writes."""
    return read_log(io.BytesIO(log)).fault is not None and is_locked(path)


def _merged(path: Path, data: bytes, log: bytes, contents: Log) -> bytearray:
    """Return the database with the log's pages in it, to be used without a log."""
    database, size = bytearray(data), contents.page_bytes
    if contents.file_pages is not None:
        if (
            int.from_bytes(data[16:18], "big") != size % 0xFFFF
        ):  # 65536 does not fit, 1 stands for it
            raise damaged(path, "the pages of its write-ahead log have another size")
        end = contents.file_pages * size
        del database[end:]
        database.extend(bytes(end - len(database)))
        for number, at in contents.pages.items():
            if number * size <= end:
                database[(number - 1) * size : number * size] = log[at : at + size]
    database[18:20] = b"\1\1"  # a database with a log could not be in memory
    return database


if sys.platform == "win32":
    import msvcrt

    def is_locked(path: Path) -> bool:
        """Return whether an engine has an outbox open; never ask for one of this process."""
        with path.open("rb", buffering=0) as file:
            os.lseek(file.fileno(), LOCK_AT, os.SEEK_SET)
            try:
                msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)
            except OSError:
                return True
            msvcrt.locking(file.fileno(), msvcrt.LK_UNLCK, 1)
            return False

else:
    import errno
    import fcntl

    def is_locked(path: Path) -> bool:
        """Return whether an engine has an outbox open; never ask for one of this process."""
        with path.open("rb") as file:
            try:
                fcntl.lockf(file, fcntl.LOCK_SH | fcntl.LOCK_NB, LOCK_BYTES, LOCK_AT)
            except OSError as error:
                return error.errno in (errno.EACCES, errno.EAGAIN)
            return False
