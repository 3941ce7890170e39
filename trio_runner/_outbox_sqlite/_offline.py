"""What a person can do with an outbox's file: look at it, and empty it when its engine has ended.

A running engine holds its file. A look at it then shows what was on disk at one moment, and
whatever would change the file raises OutboxInUse.
"""

import logging
import zlib
from pathlib import Path
from typing import TextIO

from attrs import frozen

from trio_runner._outbox_sqlite._errors import OutboxDamaged, explained
from trio_runner._outbox_sqlite._file import Fact, OutboxFile
from trio_runner._outbox_sqlite._opening import check_pages
from trio_runner._outbox_sqlite._schema import APPLICATION_ID, SCHEMA_VERSION
from trio_runner._outbox_sqlite._snapshot import Snapshot, snapshot_of
from trio_runner.protocol import DecodeError, loads, unpack

logger = logging.getLogger(__name__)


@frozen
class SetAside:
    """A message that was set aside; `taken_at` is in seconds since the epoch."""

    sequence_number: int
    kind: str
    taken_at: float
    reason: str
    bytes: int
    """The size of the compressed body."""


@frozen
class OutboxSummary:
    """What an outbox holds; instants are in seconds since the epoch."""

    path: Path
    schema: int
    unit: str | None
    """Whose messages these are, or None if no engine has claimed the outbox."""
    counts: dict[str, int]
    """How many messages of each type wait, the most frequent first."""
    oldest: float | None
    """When the oldest waiting message was put in."""
    newest: float | None
    bytes: int
    """The size of the waiting messages' compressed bodies."""
    file_bytes: int
    """The size of the file and its write-ahead log."""
    maybe_arrived: int
    """How many waiting messages were sent before, with an unknown outcome."""
    open_run: str | None
    """The run whose beginning the aggregator has taken, and whose end is neither taken nor set
    aside."""
    set_aside: list[SetAside]
    """The messages that were set aside, the oldest first."""
    set_aside_dropped: int
    """How many more were set aside and are not kept any more."""
    taken_at: float
    """When the outbox held this."""
    is_in_use: bool
    """Whether a running engine had the file."""
    fault: str | None
    """What is wrong with its write-ahead log, or None. Only the part before that counts."""

    @property
    def waiting(self) -> int:
        """How many messages wait."""
        return sum(self.counts.values())


def summarize(path: Path | str) -> OutboxSummary:
    """Return what an outbox holds; change nothing. Raises an `OutboxError`."""
    with snapshot_of(Path(path)) as snapshot:
        check_pages(snapshot.db, snapshot.path)
        return _summary(snapshot)


def _summary(snapshot: Snapshot) -> OutboxSummary:
    db = snapshot.db
    counts = db.execute("SELECT kind, count(*) FROM messages GROUP BY kind ORDER BY 2 DESC, 1")
    oldest, newest, size, tried = db.execute(
        "SELECT min(taken_at), max(taken_at), coalesce(sum(length(body)), 0),"
        " coalesce(sum(tried), 0) FROM messages"
    ).fetchone()
    facts: dict[str, Fact] = dict(db.execute("SELECT name, value FROM facts"))
    unit, dropped = facts.get("unit"), facts.get("set_aside_dropped", 0)
    aside = db.execute(
        "SELECT sequence_number, kind, taken_at, reason, length(body) FROM set_aside"
        " ORDER BY sequence_number"
    )
    return OutboxSummary(
        path=snapshot.path,
        schema=SCHEMA_VERSION,
        unit=unit if isinstance(unit, str) else None,
        counts=dict(counts.fetchall()),
        oldest=oldest,
        newest=newest,
        bytes=size,
        file_bytes=snapshot.file_bytes,
        maybe_arrived=tried,
        open_run=_run_of(facts.get("open_run_body")),
        set_aside=[SetAside(*row) for row in aside],
        set_aside_dropped=dropped if isinstance(dropped, int) else 0,
        taken_at=snapshot.taken_at,
        is_in_use=snapshot.is_in_use,
        fault=snapshot.fault,
    )


def _run_of(run_started: Fact) -> str | None:
    """Return the run that a RunStarted names, whatever version of the engine made it."""
    try:
        message = loads(_text(run_started) or "null")
    except DecodeError:
        return None
    run_id = message.get("run_id") if isinstance(message, dict) else None
    return run_id if isinstance(run_id, str) else None


def export(path: Path | str, file: TextIO, *, set_aside: bool = False) -> int:
    """Write the messages that wait to `file` in order, one line of JSON each; return how many.

    A line is the message as it would be sent, but for `engine_id`, which the aggregator gives at
    the registration. With `set_aside`, the messages that were set aside are written instead.
    Messages that the disk has spoilt are left out. A damaged file is read as far as possible.

    Raises an `OutboxError`; everything that could be read is written by then.
    """
    table = "set_aside" if set_aside else "messages"
    count = spoilt = 0
    with snapshot_of(Path(path)) as snapshot:
        if snapshot.fault is not None:
            logger.error(
                "In the write-ahead log of %s, %s: what follows is lost", path, snapshot.fault
            )
        try:
            for number, body in snapshot.db.execute(
                f"SELECT sequence_number, body FROM {table} ORDER BY sequence_number"  # noqa: S608
            ):
                text = _text(body)
                if text is not None:
                    file.write(f'{{"sequence_number":{number},{text[1:]}\n')
                    count += 1
                else:
                    spoilt += 1
        finally:
            if spoilt:
                logger.error(
                    "Messages of %s that the disk has damaged are left out: %d", path, spoilt
                )
    return count


def _text(body: Fact) -> str | None:
    if not isinstance(body, bytes):  # NULL, for example
        return None
    try:
        return unpack(body)
    except (zlib.error, ValueError):
        return None


def discard(path: Path | str) -> int:
    """Delete all messages for good, also those set aside; return how many waited.

    The sequence numbers go on. The file still knows which run is on at the aggregator, so that the
    next start ends it there. A damaged outbox is deleted as a whole, and -1 is returned.

    Raises any other `OutboxError`; a file that is something else is left as it is.
    """
    path = Path(path)
    try:
        file = OutboxFile.open(path, create=False)
    except OutboxDamaged:
        if not _is_outbox(path):
            raise
        _delete(path)
        return -1
    try:
        with explained(path):
            return _empty(file)
    finally:
        file.close()


def _empty(file: OutboxFile) -> int:
    with file.transaction():
        waiting, last = file.db.execute(
            "SELECT count(*), coalesce(max(sequence_number), 0) FROM messages"
        ).fetchone()
        file.db.execute("UPDATE facts SET value = max(value, ?) WHERE name = 'numbers'", (last,))
        file.db.execute("DELETE FROM messages")
        file.db.execute("DELETE FROM set_aside")
        file.db.execute("DELETE FROM facts WHERE name = 'set_aside_dropped'")
    file.db.execute("VACUUM")
    return int(waiting)


def _is_outbox(path: Path) -> bool:
    with path.open("rb") as file:  # a database's header has its application id at byte 68
        return file.read(72)[68:] == APPLICATION_ID.to_bytes(4, "big")


def _delete(path: Path) -> None:
    with explained(path):
        for file in (path, Path(f"{path}-wal"), Path(f"{path}-journal")):
            file.unlink(missing_ok=True)
