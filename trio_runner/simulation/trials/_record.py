"""A life as data: what happened when, and how things stood each second. A picture is made of it."""

from typing import NamedTuple

from attrs import define, field

from trio_runner.simulation.trials._watched_link import Key


class Entry(NamedTuple):
    """A line of a trace: its time (s), its words, and the events and samples that it is about."""

    at_s: float
    words: tuple[object, ...]
    about: tuple[Key, ...]

    @property
    def text(self) -> str:
        """The line without its time."""
        return " ".join(map(str, self.words))


class Second(NamedTuple):
    """How things stood at a moment (s); None is what there is not, as while no process lives."""

    at_s: float
    waiting: int | None
    """Messages that wait or are under way."""
    bytes_waiting: int | None
    disk: str | None
    """What is the matter with it: `full`, `hangs`, `slow`, or nothing."""
    bytes_written: int | None
    """To the disk, since the beginning."""


@define(eq=False)
class Record:
    """Takes entries and seconds as they come; `fates` tells at the end what never arrived, why."""

    entries: list[Entry] = field(factory=list)
    seconds: list[Second] = field(factory=list)
    fates: dict[Key, str] = field(factory=dict)
