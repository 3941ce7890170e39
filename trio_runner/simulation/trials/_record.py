"""A life as data, for a picture: what happened when, and how things stood each second."""

from typing import NamedTuple

from attrs import define, field

from trio_runner.simulation.trials._watched_link import Key


class Entry(NamedTuple):
    """A line of a trace: its time (s), its words, and the events and samples it is about."""

    at_s: float
    words: tuple[object, ...]
    about: tuple[Key, ...]

    @property
    def text(self) -> str:
        """The line without its time."""
        return " ".join(map(str, self.words))


class Second(NamedTuple):
    """How things stood at a moment (s); None for what does not exist, as while no process lives."""

    at_s: float
    waiting: int | None
    """How many messages wait or are unanswered."""
    bytes_waiting: int | None
    disk: str | None
    """The disk's trouble: `full`, `hangs`, `slow`, or an empty text for none."""
    bytes_written: int | None
    """How much was written to the disk since the beginning (bytes)."""


@define(eq=False)
class Record:
    """A record that takes entries and seconds as they come.

    At the end, `fates` says of each message that never arrived why it did not.
    """

    entries: list[Entry] = field(factory=list)
    seconds: list[Second] = field(factory=list)
    fates: dict[Key, str] = field(factory=dict)
