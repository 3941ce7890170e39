"""What can be wrong with an outbox's file; each error's message says what to do."""

import sqlite3
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

from trio_runner._errors import TrioRunnerError


class OutboxError(TrioRunnerError):
    """The base of everything that can be wrong with an outbox on disk."""


class OutboxInUse(OutboxError):
    """Another process, or another outbox in this process, has the file."""


class OutboxNotFound(OutboxError):
    """There is no file to look at."""


class OutboxNotWritable(OutboxError):
    """The file or its folder cannot be written: no rights, no folder, a read-only or full disk."""


class NotAnOutbox(OutboxError):
    """The file is not an outbox."""


class OutboxDamaged(OutboxError):
    """The file is an outbox, but is not whole."""


class OutboxTooNew(OutboxError):
    """The file was written by a newer version of this package."""


class OutboxOfAnotherUnit(OutboxError):
    """Messages of another unit wait in the file."""


class OutboxClosed(OutboxError):
    """A message was put into an outbox that is closed."""


@contextmanager
def explained(path: Path) -> Generator[None, None, None]:
    """Turn errors of SQLite and the system about a file into an `OutboxError`."""
    try:
        yield
    except sqlite3.Error as error:
        raise _explain(path, error) from error
    except FileNotFoundError as error:
        raise OutboxNotWritable(f"There is no folder {path.parent} for the outbox.") from error
    except OSError as error:
        raise OutboxNotWritable(
            f"The outbox {path} cannot be written: {error.strerror or error}."
        ) from error


def _explain(path: Path, error: sqlite3.Error) -> OutboxError:
    match getattr(error, "sqlite_errorcode", sqlite3.SQLITE_ERROR) & 0xFF:
        case sqlite3.SQLITE_BUSY | sqlite3.SQLITE_LOCKED:
            return OutboxInUse(
                f"The outbox {path} is in use by another process: an outbox is for one engine."
                " Stop that process, or use another path."
            )
        case sqlite3.SQLITE_CANTOPEN | sqlite3.SQLITE_READONLY | sqlite3.SQLITE_PERM:
            return OutboxNotWritable(
                f"The outbox {path} cannot be written: {error}. This process needs the right to"
                " write the file and its folder."
            )
        case sqlite3.SQLITE_FULL | sqlite3.SQLITE_IOERR:
            return OutboxNotWritable(
                f"The outbox {path} cannot be written: {error}. Is the disk full or broken?"
            )
        case sqlite3.SQLITE_NOTADB:
            return no_outbox(path, "it is not an SQLite database")
        case _:
            return damaged(path, str(error))


def damaged(path: Path, why: str) -> OutboxDamaged:
    """Return the error for a file that cannot be read; it says what a person can do."""
    return OutboxDamaged(
        f"The outbox {path} cannot be read: {why}. Move the file away, or use another path."
    )


def no_outbox(path: Path, why: str) -> NotAnOutbox:
    """Return the error for a file that is no outbox."""
    return NotAnOutbox(f"{path} is not an outbox: {why}. Use another path.")
