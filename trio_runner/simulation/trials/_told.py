"""That a unit's people are told of what is given up: with the next sample, once by a process."""

from collections.abc import Callable

import trio
from attrs import define, field

TELL_S = 8.0
"""So soon (s): samples are 5 s apart at the most."""

WORDS = {"thinned": "second sample is given up", "set aside": "it is set aside"}
"""What is said of what."""


@define(eq=False)
class Told:
    """Follows what one process tells; `expect` is the oracle's."""

    expect: Callable[[object, str], None]
    _due_at: dict[str, float] = field(factory=dict, init=False)

    def give_up(self, how: str) -> None:
        """Note that something is given up."""
        self._due_at.setdefault(how, trio.current_time() + TELL_S)

    def log(self, text: str) -> None:
        """Note what the unit's people find in its error log."""
        for how, words in WORDS.items():
            if words in text:
                self._due_at[how] = float("inf")

    def check_second(self) -> None:
        """Check that what was given up for the first time has been told."""
        for how, due_at in self._due_at.items():
            told = trio.current_time() <= due_at
            self.expect(told, f"nobody was told that messages are {how}")
