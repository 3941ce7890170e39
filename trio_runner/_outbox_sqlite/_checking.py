"""The check whether an outbox's file is whole, which reads everything in it."""

import sqlite3
import zlib
from collections.abc import Iterator
from pathlib import Path

from attrs import frozen

from trio_runner._outbox_sqlite._facts import PACKED, check
from trio_runner._outbox_sqlite._file import KINDS, Fact
from trio_runner._outbox_sqlite._snapshot import snapshot_of
from trio_runner.protocol import DecodeError, loads, unpack

SPOILT = "spoilt on the disk"
"""The reason that is noted for a message that was set aside because the disk has spoilt it."""

FAULTS_MAX = 20
"""How many faults are listed one by one."""


@frozen
class Checked:
    """What an examination has found."""

    messages: int
    """How many sound messages were read, including those set aside."""
    is_in_use: bool
    taken_at: float
    """When the file was in the state that was read (seconds since the epoch)."""
    log_fault: str | None
    """What is wrong with the write-ahead log, or None. Everything after that place is lost."""
    faults: list[str]
    """What else is wrong: the first `FAULTS_MAX` faults."""


def examine(path: Path | str) -> Checked:
    """Read all of an outbox's file and return what is wrong with it; change nothing.

    Raises an `OutboxError` for a file that is no outbox or cannot be read at all.
    """
    with snapshot_of(Path(path)) as snapshot:
        messages, faults = 0, list[str]()
        for fault in _all_faults(snapshot.db):
            messages += fault is None
            if fault is not None and len(faults) < FAULTS_MAX:
                faults.append(fault)
        return Checked(messages, snapshot.is_in_use, snapshot.taken_at, snapshot.fault, faults)


def _all_faults(db: sqlite3.Connection) -> Iterator[str | None]:
    """Yield each fault, and None for each message that is sound."""
    try:
        for (line,) in db.execute(f"PRAGMA integrity_check({FAULTS_MAX})"):
            if line != "ok":
                yield " ".join(str(line).split())
        yield from _in_messages(db)
        yield from _in_set_aside(db)
        yield from _in_facts(db)
    except sqlite3.Error as error:
        yield str(error)


def _in_messages(db: sqlite3.Connection) -> Iterator[str | None]:
    for number, kind, body, crc, tried, taken_at in db.execute(
        "SELECT sequence_number, kind, body, crc, tried, taken_at FROM messages"
    ):
        yield _fault_of(number, kind, body) or (
            None
            if zlib.crc32(body) == crc and tried in (0, 1) and isinstance(taken_at, float)
            else f"message {number} is not as it was written"
        )


def _in_set_aside(db: sqlite3.Connection) -> Iterator[str | None]:
    rows = "SELECT sequence_number, kind, body FROM set_aside WHERE reason <> ?"
    for number, kind, body in db.execute(rows, (SPOILT,)):
        fault = _fault_of(number, kind, body)
        yield fault and f"{fault}; it was set aside"


def _fault_of(number: object, kind: object, body: object) -> str | None:
    if not (isinstance(number, int) and number > 0):
        return f"a message has the impossible number {number!r}"
    if kind not in KINDS:
        return f"message {number} is of the unknown type {kind!r}"
    if _type_of(body) != kind:
        return f"message {number} cannot be read"
    return None


def _type_of(body: object) -> str | None:
    """Return the type that a packed message names, or None if it cannot be read."""
    if not isinstance(body, bytes):
        return None
    try:
        message = loads(unpack(body))
    except (zlib.error, DecodeError, ValueError):
        return None
    return message.get("_type") if isinstance(message, dict) else None


def _in_facts(db: sqlite3.Connection) -> Iterator[str]:
    facts: dict[str, Fact] = dict(db.execute("SELECT name, value FROM facts"))
    try:
        check(facts)
    except ValueError as error:
        yield str(error)
        return
    for name in sorted({*PACKED, "open_run_body"} & facts.keys()):
        if facts[name] is not None and _type_of(facts[name]) is None:
            yield f"its {name} cannot be read"
    tables = "SELECT sequence_number FROM messages UNION SELECT sequence_number FROM set_aside"
    (last,) = db.execute(f"SELECT coalesce(max(sequence_number), 0) FROM ({tables})").fetchone()  # noqa: S608
    numbers = facts.get("numbers", 0)
    if isinstance(numbers, int) and isinstance(last, int) and last > numbers:
        yield (
            f"its numbers end at {numbers}, but there is a message {last}: that number may be"
            " given twice"
        )
