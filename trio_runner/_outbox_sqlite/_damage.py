"""What to do with an outbox's files that the disk has spoilt: keep a copy, and say so."""

import logging
import os
import shutil
from pathlib import Path

from attrs import frozen

logger = logging.getLogger(__name__)

COPIES_MAX = 3
"""How many copies of damaged files are kept of one outbox: the newest."""


@frozen
class Damage:
    """What the disk has spoilt of an outbox."""

    what: str
    held: list[int]
    """Descriptors of the files that were copied. They stay open, since by the rules of POSIX
    closing one would give up SQLite's lock on the file."""

    def close(self) -> None:
        """Close the files that were copied, once the lock is given up."""
        while self.held:
            os.close(self.held.pop())


def keep_copy(path: Path, what: str) -> Damage:
    """Copy the files of an outbox that is locked; log what is wrong and where the copy is.

    Raises nothing: if no copy can be made, for example because the disk is full, the log says so.
    """
    copy, held = _place(path), list[int]()
    try:
        for end in ("", "-wal"):
            _copy(Path(f"{path}{end}"), Path(f"{copy}{end}"), held)
        kept = f"the files as they were are kept as {copy}"
    except OSError as error:
        kept = f"no copy of the files could be kept ({error})"
    logger.error(
        "The outbox %s is damaged: %s. The last messages put in may be lost, and the last ones"
        " delivered may arrive again; %s",
        path,
        what,
        kept,
    )
    return Damage(what, held)


def _place(path: Path) -> Path:
    """Return a free path, or that of the oldest copy."""
    places = [path.with_name(f"{path.name}.damaged-{n + 1}") for n in range(COPIES_MAX)]
    free = (place for place in places if not place.exists())
    return next(free, None) or min(places, key=lambda place: place.stat().st_mtime)


def _copy(file: Path, to: Path, held: list[int]) -> None:
    to.unlink(missing_ok=True)
    if not file.exists():
        return
    source = os.open(file, os.O_RDONLY)
    held.append(source)
    target = os.open(to, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600)
    with open(source, "rb", closefd=False) as reader, open(target, "wb") as writer:
        shutil.copyfileobj(reader, writer)
