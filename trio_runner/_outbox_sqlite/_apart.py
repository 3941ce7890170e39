"""Messages of a unit that has another name now, kept in a file of their own."""

import re
import sqlite3
from collections.abc import Callable, Mapping
from contextlib import closing
from itertools import count
from pathlib import Path

from attrs import frozen

from trio_runner._outbox import Entry
from trio_runner._outbox_sqlite._errors import explained
from trio_runner._outbox_sqlite._file import Changes, Fact, OutboxFile

NAME_MAX = 80
"""How much of a unit's name goes into a file's name (characters)."""


@frozen
class Kept:
    """Everything that an outbox holds of a unit."""

    waiting: list[Entry]
    set_aside: list[tuple[Entry, str]]
    facts: Mapping[str, Fact]


def keep_apart(
    path: Path, unit: str, kept: Kept, connect: Callable[..., sqlite3.Connection]
) -> Path:
    """Write what is kept of a unit into a new outbox beside `path`; return its path.

    It is on disk when this returns. Raises an `OutboxError`, and then leaves no file.
    """
    aside = _free(path, unit)
    try:
        opened = OutboxFile.open(aside, create=True, connect=connect)
        with closing(opened) as file, explained(aside):
            file.write_all(kept.waiting, Changes(aside=kept.set_aside), kept.facts)
    except BaseException:
        for end in ("", "-wal", "-shm"):
            aside.with_name(aside.name + end).unlink(missing_ok=True)
        raise
    return aside


def _free(path: Path, unit: str) -> Path:
    """Return a free path whose name contains the unit's."""
    name = re.sub(r"[^\w.-]", "-", unit)[:NAME_MAX]
    paths = (path.with_name(f"{path.name}.{name}{f'-{n}' if n else ''}") for n in count())
    return next(path for path in paths if not path.exists())
