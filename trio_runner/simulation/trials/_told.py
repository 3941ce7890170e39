"""A check that people are told what goes wrong: with the next sample, once a process."""

import math
from collections.abc import Callable

import trio
from attrs import define, field

TELL_S = 8.0
"""How soon people must be told (s); samples are at most 5 s apart."""

WORDS = {
    "messages are thinned": "second sample is given up",
    "messages are set aside": "it is set aside",
    "the aggregator was away": "The aggregator is back after",
    "a message could not be made": "the runner goes on without it",
    "the engine blocks": "has blocked Trio's thread",
}
"""What can go wrong, each with the words for it in the error log."""


@define(eq=False)
class Told:
    """Follows what one process tells people; `expect` is the oracle's."""

    expect: Callable[[object, str], None]
    _due_at: dict[str, float] = field(factory=dict, init=False)

    def await_word(self, of: str) -> None:
        """Note that something goes wrong; `of` is one of `WORDS`."""
        assert of in WORDS
        self._due_at.setdefault(of, trio.current_time() + TELL_S)

    def log(self, text: str) -> None:
        """Note a text that people find in the unit's error log."""
        for what, words in WORDS.items():
            if words in text:
                self._due_at[what] = math.inf

    def check_second(self) -> None:
        """Check that people have been told of the first time that each thing went wrong."""
        for what, due_at in self._due_at.items():
            self.expect(trio.current_time() <= due_at, f"nobody was told that {what}")
