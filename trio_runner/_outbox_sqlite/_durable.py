"""The durable outbox: the line in memory is the truth, the file tells it after a crash."""

import logging
import sqlite3
import threading
import time
import warnings
import zlib
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import ClassVar

from attrs import define, field

from trio_runner._outbox import OUTBOX_BYTES_MAX, Entry, Outbox
from trio_runner._outbox_sqlite._errors import (
    OutboxClosed,
    OutboxError,
    OutboxOfAnotherUnit,
    damaged,
)
from trio_runner._outbox_sqlite._file import SET_ASIDE_MAX, Changes, Contents, Fact, OutboxFile
from trio_runner.protocol import DecodeError, decode_json, pack, unpack
from trio_runner.protocol import engine_messages as em

logger = logging.getLogger(__name__)

DISK_RETRY_S = 30
"""How long to wait before a disk that could not be written is tried again (s)."""

NUMBERS_AHEAD = 1000
"""How many sequence numbers are reserved on disk: none is used twice after a crash."""

KEPT_STATES = {"run_log": em.RunLogMsg, "method_state": em.MethodStateMsg}
"""The states that the end of a run needs, by their names in the file."""


@define(eq=False)
class DurableOutbox(Outbox):
    """An outbox that outlives the process, in the file `path`; close it, or use it with `with`.

    An event is on disk when `put` returns, which waits for the disk in the thread that calls it.
    Samples, deliveries, and the run log and method state of the run that is on, are on disk after
    the next `commit`, which the runner calls every `COMMIT_S`. What was delivered before that never
    touches the disk. After a crash, messages delivered since the last commit are sent once more.

    When the disk fails the outbox goes on in memory: it logs that once, `statistics().degraded`
    says why, and the disk is tried again every `DISK_RETRY_S`, by `clock`, until all that waits is
    on it. Until then an event is in memory only when `put` returns, and of a crash what was
    delivered meanwhile is sent again.

    Raises, when it is made, one of the classes of `OutboxError`; `put` raises OutboxClosed behind
    `close`.
    """

    is_durable: ClassVar[bool] = True

    path: Path = field(converter=Path)
    bytes_max: int = field(default=OUTBOX_BYTES_MAX, kw_only=True)
    clock: Callable[[], float] = field(default=time.monotonic, kw_only=True)
    connect: Callable[..., sqlite3.Connection] = field(default=sqlite3.connect, kw_only=True)
    """Opens the database, as `sqlite3.connect` does; a simulated disk gives its own."""

    unit: str | None = field(default=None, init=False)
    """Whose messages these are, None while nobody has claimed them."""

    _journal: Changes = field(factory=Changes, init=False)
    _writing: threading.RLock = field(factory=threading.RLock, init=False)
    """Held while the file is written, and never while `_lock` is waited for by Trio's thread."""
    _file: OutboxFile = field(init=False)
    _is_open: bool = field(default=False, init=False)
    _facts_on_disk: dict[str, Fact] = field(factory=dict, init=False)
    _ahead: int = field(default=NUMBERS_AHEAD, init=False)
    _reserved: int = field(default=0, init=False)
    _degraded: str | None = field(default=None, init=False)
    _retry_at: float = field(default=0.0, init=False)

    def __attrs_post_init__(self) -> None:
        self._file = OutboxFile.open(self.path, create=True, connect=self.connect)
        try:
            self._restore(self._file.load())
        except BaseException:
            self._file.close()
            raise
        self._is_open = True
        self.commit()  # reserves numbers; a disk that is full already is found now

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

    def claim(self, unit: str) -> None:
        """Note whose messages these are.

        Raises OutboxOfAnotherUnit while messages of another unit wait: they would be taken for this
        one's. Of another unit that has none, what is known is forgotten.
        """
        with self._lock:
            if self.unit not in (None, unit):
                if len(self):
                    raise OutboxOfAnotherUnit(
                        f"In the outbox {self.path} wait {len(self)} messages of {self.unit}, and"
                        f" this is {unit}. Take another path, or discard them."
                    )
                self.open_run, self.run_id = None, None
            self.unit = unit

    def state(self, kind: type[em.EngineMessage]) -> str | None:
        """Return the latest state; of the run log and method state of a run, that on the disk.

        So the aggregator never knows more of a run than what would be its end after a crash.
        """
        latest = super().state(kind)
        if latest is None or self.run_id is None or self._degraded is not None:
            return latest
        for name, kept in KEPT_STATES.items():
            if kept is kind:
                on_disk = self._facts_on_disk.get(name)
                return on_disk if isinstance(on_disk, str) else None
        return latest

    # To the disk

    def put(self, message: em.EngineMessage) -> None:
        if not self._is_open:
            raise OutboxClosed(f"{type(message).__name__}: the outbox {self.path} is closed")
        super().put(message)

    def commit(self) -> None:
        """Write what has changed; return when it is on disk, or when the disk has failed.

        Any thread may call it; it waits for the disk. Raises nothing for a disk that fails.
        """
        with self._writing:
            if not self._is_open or (self._degraded and self.clock() < self._retry_at):
                return
            try:
                self._write()
            except (sqlite3.Error, OSError, OutboxError) as error:
                self._note_fault(error)
            except BaseException as error:  # a KeyboardInterrupt, say: what was written is unknown
                self._degraded, self._retry_at = f"interrupted by {error!r}", self.clock()
                raise
            else:
                self._note_recovery()

    def close(self) -> None:
        """Write what waits and let go of the file; may be called again."""
        with self._writing:
            if not self._is_open:
                return
            self._retry_at, self._ahead = self.clock(), 0
            self.commit()
            self._is_open = False
            self._file.close()
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
            changes, self._journal = self._journal, Changes()
            facts = self._facts()
            entries = [*self._in_flight.values(), *self._line] if recovers else []
        changed = {name: fact for name, fact in facts.items() if self._is_news(name, fact)}
        try:
            if recovers:
                self._file.write_all(entries, changes, _stored(facts))
            elif changes or changed:
                self._file.write(changes, _stored(changed))
        except BaseException:
            # The line itself is in memory; this is all that is nowhere else.
            with self._lock:
                put_aside = changes.put_aside + self._journal.put_aside
                self._journal.put_aside = put_aside[-SET_ASIDE_MAX:]
            raise
        self._facts_on_disk = facts

    def _reopen(self) -> None:
        """Open the file anew, whatever was wrong with it; a stranger's file is not touched."""
        known = self._file.identity
        self._file.close()
        file = OutboxFile.open(self.path, create=True, connect=self.connect)
        if file.identity != known and not file.is_new and file.load().entries:
            file.close()
            raise OutboxError(f"Another outbox is at {self.path} now, with messages in it.")
        self._file = file

    def _note_fault(self, error: Exception) -> None:
        if self._degraded is None:
            logger.error(
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
            logger.warning("The outbox %s is written again; all that waits is on disk", self.path)

    def _why_degraded(self) -> str | None:
        return self._degraded

    # What is known besides the line

    def _is_news(self, name: str, fact: Fact) -> bool:
        return name not in self._facts_on_disk or self._facts_on_disk[name] != fact

    def _facts(self) -> dict[str, Fact]:
        if self._numbers + self._ahead // 2 > self._reserved or not self._ahead:
            self._reserved = self._numbers + self._ahead
        run = self.open_run
        facts: dict[str, Fact] = {
            "unit": self.unit,
            "numbers": self._reserved,
            "open_run_number": run.sequence_number if run else None,
            "open_run_body": run.body if run else None,
            "open_run_taken_at": run.taken_at if run else None,
        }
        for name, kind in KEPT_STATES.items():
            facts[name] = self._states.get(kind) if self.run_id is not None else None
        return facts

    def _restore(self, contents: Contents) -> None:
        for entry in contents.spoilt:
            logger.error("The disk has spoilt %s, it is set aside", entry)
            self._journal.set_aside(entry, "spoilt on the disk")
            self._counts["set_aside"] += 1
        last = max((e.sequence_number for e in contents.entries + contents.spoilt), default=0)
        facts = contents.facts
        try:
            self._restore_facts(facts)
            self.run_id = _run_behind(contents.entries, self.open_run)
        except (zlib.error, DecodeError, TypeError, ValueError) as error:
            raise damaged(self.path, str(error)) from error
        self._reserved = self._numbers = max(self._numbers, last)
        self._line.extend(contents.entries)
        self._bytes = sum(entry.size for entry in contents.entries)
        self._events = sum(entry.is_event for entry in contents.entries)
        self._keep_bound()

    def _restore_facts(self, facts: dict[str, Fact]) -> None:
        unit, numbers = facts.get("unit"), facts.get("numbers", 0)
        number, body, taken_at = (
            facts.get(f"open_run_{what}") for what in ("number", "body", "taken_at")
        )
        self.unit = unit if isinstance(unit, str) else None
        self._numbers = numbers if isinstance(numbers, int) else 0
        if isinstance(number, int) and isinstance(body, bytes) and isinstance(taken_at, float):
            self.open_run = Entry(number, em.RunStartedMsg, body, taken_at, tries=1)
            decode_json(self.open_run.text)  # it is sent as it lies here: is it whole?
        for name, kind in KEPT_STATES.items():
            state = facts.get(name)
            if isinstance(state, bytes):
                self._states[kind] = unpack(state)


def _stored(facts: dict[str, Fact]) -> dict[str, Fact]:
    """Return facts as the file has them, the long ones packed."""
    return {
        name: pack(fact) if name in KEPT_STATES and isinstance(fact, str) else fact
        for name, fact in facts.items()
    }


def _run_behind(entries: list[Entry], open_run: Entry | None) -> str | None:
    """Return the run that is on behind all that waits."""
    runs = (e for e in reversed(entries) if e.kind in (em.RunStartedMsg, em.RunStoppedMsg))
    last = next(runs, open_run)
    message = decode_json(last.text) if last is not None else None
    return message.run_id if isinstance(message, em.RunStartedMsg) else None
