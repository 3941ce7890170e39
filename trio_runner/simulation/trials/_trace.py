"""What happened in a simulation, line by line, and a hash of all of it."""

import hashlib
from collections import deque
from typing import TextIO

import trio
from attrs import define, field

LAST_LINES = 40
"""How many lines are kept to be shown with a violation."""


@define(eq=False)
class Trace:
    """Takes lines as things happen; two runs with the same hash were the same, to the byte."""

    file: TextIO | None = None
    last: deque[str] = field(factory=lambda: deque(maxlen=LAST_LINES), init=False)
    _hash: "hashlib._Hash" = field(factory=hashlib.sha256, init=False)

    def note(self, what: str) -> None:
        """Add a line, with the time (s on Trio's clock)."""
        line = f"{trio.current_time():12.6f}  {what}"
        self.last.append(line)
        self._hash.update(line.encode() + b"\n")
        if self.file is not None:
            self.file.write(line + "\n")

    @property
    def hash(self) -> str:
        """The hash of all lines so far."""
        return self._hash.hexdigest()
