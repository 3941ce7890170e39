"""A disk under a durable outbox: it can be full, slow or hang, and lose what was not synced.

The files are real ones. What SQLite would have lost is worked out from when it commits and whether
it syncs then: with `synchronous=FULL`, a commit that has returned is safe, and one that has not may
be torn at any byte. Every death of the process moves what is left to a new folder, so that nothing
that the dead process still does has an effect.

The time that the disk takes is on Trio's clock: give a runner `offload`. A write that does not go
through `offload` takes no time. It would have held up Trio's thread, unless `elsewhere` says that
it is another thread's.
"""

import shutil
import sqlite3
from bisect import bisect_left
from collections.abc import Callable, Generator
from contextlib import contextmanager
from pathlib import Path
from random import Random
from typing import Any

import trio
from attrs import define, field

from trio_runner.simulation.stand_ins._change import Change
from trio_runner.simulation.stand_ins._sometimes import sometimes

COUNTS = Path("/proc/self/io")
"""Where Linux counts what a process has written."""


def written() -> int:
    """Return how many bytes this process has written, or 0 where the system does not count."""
    try:
        lines = COUNTS.read_text().splitlines()
    except OSError:
        return 0
    return int(dict(line.split(": ") for line in lines)["wchar"])


Image = dict[str, bytes]
"""The contents of the files, by name."""


@define(eq=False)
class SimulatedDisk:
    """A disk in a folder; open the outbox at `path` with `connect`, and commit it by `offload`.

    `on_power_loss` is called when the power fails in mid-commit, for which `tears` asks. `on_wait`
    is called when Trio's thread would have waited for a commit.
    """

    folder: Path
    rng: Random
    on_power_loss: Callable[[], None] = field(default=lambda: None)
    on_wait: Callable[[], None] = field(default=lambda: None)
    is_full: bool = field(default=False, init=False)
    tears: bool = field(default=False, init=False)
    """Whether the power fails in the middle of the next commit that writes something."""
    commit_s: float = field(default=0.0, init=False)
    """How long a commit takes (s)."""
    bytes_written: int = field(default=0, init=False)
    """How much the commits wrote, as far as the system counts (bytes)."""
    _hangs: int = field(default=0, init=False)
    _elsewhere: int = field(default=0, init=False)
    _change: Change = field(factory=Change, init=False)
    _boots: int = field(default=0, init=False)
    _synced: Image | None = field(default=None, init=False)
    """What would be left after a power loss; None if that is everything written."""

    def __attrs_post_init__(self) -> None:
        self.path.parent.mkdir()

    @property
    def path(self) -> Path:
        """The path of the outbox of the present process."""
        return self.folder / str(self._boots) / "unit.outbox"

    @property
    def log_bytes(self) -> int:
        """The size of the database's log (bytes)."""
        log = self.path.with_name(f"{self.path.name}-wal")
        return log.stat().st_size if log.exists() else 0

    def connect(self, *arguments: Any, **options: Any) -> sqlite3.Connection:
        """Open a database on this disk, as `sqlite3.connect` does."""
        database = sqlite3.connect(*arguments, factory=_Database, **options)
        assert isinstance(database, _Database)
        database.commit_on = self._commit
        database.boot = self._boots
        return database

    async def offload(self, work: Callable[[], None]) -> None:
        """Do the work after waiting for the disk; if cancelled before that, do not do it."""
        await trio.sleep(self.commit_s)
        await self._change.wait_until(lambda: not self._hangs)
        with self.elsewhere():
            work()

    @contextmanager
    def elsewhere(self) -> Generator[None, None, None]:
        """Treat writes while this is held as those of another thread than Trio's."""
        self._elsewhere += 1
        try:
            yield
        finally:
            self._elsewhere -= 1

    @property
    def is_well(self) -> bool:
        """Whether it is neither full nor slow, and does not hang."""
        return not self.trouble

    @property
    def trouble(self) -> str:
        """What is wrong: `full`, `hangs` or `slow`, or "" for nothing."""
        if self.is_full:
            return "full"
        return "hangs" if self._hangs else "slow" if self.commit_s else ""

    @contextmanager
    def hanging(self) -> Generator[None, None, None]:
        """Let nothing be written while this is held."""
        self._hangs += 1
        try:
            yield
        finally:
            self._hangs -= 1
            self._change.notify()

    def spoil_log(self) -> bool:
        """Flip a bit of the write-ahead log, between two processes; return whether there is one."""
        log = self.path.with_name(f"{self.path.name}-wal")
        data = bytearray(log.read_bytes() if log.exists() else b"")
        if data:
            data[self.rng.randrange(len(data))] ^= 1 << self.rng.randrange(8)
            log.write_bytes(data)
        return bool(data)

    @contextmanager
    def powered(self) -> Generator[None, None, None]:
        """Let the power not fail while this is held, even if `tears` asks for it."""
        tears, self.tears = self.tears, False
        try:
            yield
        finally:
            self.tears = tears

    def die(self, *, power: bool) -> None:
        """End the life of the process, or of the whole computer; `path` becomes the next one's."""
        sometimes("not synced", power and self._synced is not None)
        left = self._synced if power and self._synced is not None else self._read()
        shutil.rmtree(self.path.parent)
        self._boots += 1
        self._synced, self.tears = None, False
        self.path.parent.mkdir()
        for name, data in left.items():
            (self.path.parent / name).write_bytes(data)

    def _read(self) -> Image:
        return {file.name: file.read_bytes() for file in self.path.parent.iterdir()}

    def _commit(self, database: "_Database", commit: Callable[[], sqlite3.Cursor]) -> Any:
        if database.boot != self._boots:
            return commit()  # a dead process still commits to its old folder
        if self.is_full:
            raise _full()
        if not (self.is_well or self._elsewhere):
            self.on_wait()
        before = self._read() if self.tears or not database.syncs else {}
        written_before = written()
        result = commit()
        self.bytes_written += written() - written_before
        if not database.syncs and self._synced is None:
            self._synced = before
        if self.tears and (after := self._read()) != before:
            self.tears = False
            sometimes("torn")
            self._synced = self._torn(self._synced or before, after)
            self.on_power_loss()
        return result

    def _torn(self, before: Image, after: Image) -> Image:
        """Return the files from before the commit, with only the beginning of its new log."""
        log = f"{self.path.name}-wal"
        old, new = before.get(log, b""), after.get(log, b"")
        shorter = range(min(len(old), len(new)))
        same = bisect_left(shorter, True, key=lambda n: old[: n + 1] != new[: n + 1])
        torn_at = self.rng.randint(same, len(new))
        return {**before, log: new[:torn_at] + old[torn_at:]}


class _Database(sqlite3.Connection):
    """A connection whose commits go through the disk."""

    commit_on: Callable[["_Database", Callable[[], sqlite3.Cursor]], Any]
    boot: int
    syncs = False

    def execute(self, sql: str, parameters: Any = (), /) -> sqlite3.Cursor:
        if sql.startswith("PRAGMA synchronous"):
            self.syncs = sql.endswith(("FULL", "EXTRA"))
        if sql != "COMMIT":
            return super().execute(sql, parameters)
        cursor = self.commit_on(self, lambda: super(_Database, self).execute(sql))
        assert isinstance(cursor, sqlite3.Cursor)
        return cursor


def _full() -> sqlite3.OperationalError:
    error = sqlite3.OperationalError("database or disk is full")
    error.sqlite_errorcode = sqlite3.SQLITE_FULL
    return error
