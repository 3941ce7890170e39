"""The trace of a simulation: what happened, line by line, and a hash of it."""

import hashlib
from collections import deque
from typing import TextIO

import trio
from attrs import define, field

from trio_runner.simulation.trials._record import Entry, Record
from trio_runner.simulation.trials._watched_link import Key

LAST_LINES = 40
"""How many lines are kept to show with a violation."""


@define(eq=False)
class Trace:
    """A trace that takes lines as things happen.

    Two traces with the same hash are the same to the byte. Lines also go into `file` as text and
    into `record` as data, if these are given.
    """

    file: TextIO | None = None
    record: Record | None = None
    last: deque[str] = field(factory=lambda: deque(maxlen=LAST_LINES), init=False)
    _hash: "hashlib._Hash" = field(factory=hashlib.sha256, init=False)

    def note(self, *words: object, about: tuple[Key, ...] = ()) -> None:
        """Add a line of these words, with the time (s on Trio's clock).

        `about` are the events and samples that the line is about. Only the record has them.
        """
        now = trio.current_time()
        line = f"{now:12.6f}  {' '.join(map(str, words))}"
        self.last.append(line)
        self._hash.update(line.encode() + b"\n")
        if self.file is not None:
            self.file.write(line + "\n")
        if self.record is not None:
            self.record.entries.append(Entry(now, words, about))

    @property
    def hash(self) -> str:
        """The hash of all lines so far."""
        return self._hash.hexdigest()
