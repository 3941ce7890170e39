"""A check that people are told when messages are given up: with the next sample, once a process."""

from collections.abc import Callable

import trio
from attrs import define, field

TELL_S = 8.0
"""How soon people must be told (s); samples are at most 5 s apart."""

WORDS = {"thinned": "second sample is given up", "set aside": "it is set aside"}
"""The words in the error log for each way of giving up a message."""


@define(eq=False)
class Told:
    """Follows what one process tells people; `expect` is the oracle's."""

    expect: Callable[[object, str], None]
    _due_at: dict[str, float] = field(factory=dict, init=False)

    def give_up(self, how: str) -> None:
        """Note that a message is given up, and how: `thinned` or `set aside`."""
        self._due_at.setdefault(how, trio.current_time() + TELL_S)

    def log(self, text: str) -> None:
        """Note a text that people find in the unit's error log."""
        for how, words in WORDS.items():
            if words in text:
                self._due_at[how] = float("inf")

    def check_second(self) -> None:
        """Check that people have been told of each first message that was given up."""
        for how, due_at in self._due_at.items():
            told = trio.current_time() <= due_at
            self.expect(told, f"nobody was told that messages are {how}")
