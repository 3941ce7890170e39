"""What happened in a simulation, line by line, and a hash of all of it."""

import hashlib
from collections import deque
from typing import TextIO

import trio
from attrs import define, field

from trio_runner.simulation.trials._record import Entry, Record
from trio_runner.simulation.trials._watched_link import Key

LAST_LINES = 40
"""How many lines are kept to be shown with a violation."""


@define(eq=False)
class Trace:
    """Takes lines as things happen; two runs with the same hash were the same, to the byte.

    With a `record` it puts them there too, as data.
    """

    file: TextIO | None = None
    record: Record | None = None
    last: deque[str] = field(factory=lambda: deque(maxlen=LAST_LINES), init=False)
    _hash: "hashlib._Hash" = field(factory=hashlib.sha256, init=False)

    def note(self, *words: object, about: tuple[Key, ...] = ()) -> None:
        """Add a line of these words, with the time (s on Trio's clock).

        `about` are the events and samples that it is about; the record has them, no line.
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
