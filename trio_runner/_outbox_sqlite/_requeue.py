"""The way back into the line for messages that were set aside, to be sent once more.

A message that would do harm there stays aside. An aggregator takes the end of any run for the end
of the run that is on, and takes the beginning of another run for that end, too. It answers samples
of a run that is not on with Success, and throws them away.
"""

import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from attrs import define, field, frozen

from trio_runner._outbox import Entry
from trio_runner._outbox_sqlite._errors import explained
from trio_runner._outbox_sqlite._file import OutboxFile
from trio_runner.protocol import DecodeError, loads
from trio_runner.protocol import engine_messages as em


@frozen
class Requeued:
    """How many messages wait again, and how many stay aside for which reason."""

    waiting: int
    spoilt: int
    """How many the disk has spoilt."""
    too_late: int
    """How many stay since their run has ended for the aggregator, or another run is on by then."""


def requeue(path: Path | str) -> Requeued:
    """Let messages that were set aside wait again.

    Raises an `OutboxError`, also if an engine is running with the file.
    """
    file = OutboxFile.open(Path(path), create=False)
    try:
        with explained(file.path):
            return _requeue(file)
    finally:
        file.close()


def _requeue(file: OutboxFile) -> Requeued:
    contents, set_aside = file.load(), file.set_aside()
    aside = [_Place(entry, message_of(entry), is_back=True) for entry, _ in set_aside]
    whole = [place for place in aside if place.message is not None]
    line = [_Place(entry, message_of(entry)) for entry in contents.entries]
    run = contents.facts.get("open_run_body")
    open_run = message_of(Entry(0, em.RunStartedMsg, run, 0.0)) if isinstance(run, bytes) else None
    last = contents.facts.get("last_run_event")
    order = _Order(line, whole, _run_id(open_run), last if isinstance(last, int) else 0)
    back = list(order.back())
    with file.transaction():
        numbers = [(entry.sequence_number,) for entry in back]
        file.db.executemany("DELETE FROM set_aside WHERE sequence_number = ?", numbers)
        file.insert(back)
    return Requeued(len(back), len(aside) - len(whole), len(whole) - len(back))


def message_of(entry: Entry) -> dict[str, Any] | None:
    """Return a message as a JSON object, or None if it is not whole."""
    try:
        message = loads(entry.text)
    except (zlib.error, DecodeError, TypeError, ValueError):
        return None
    return message if isinstance(message, dict) else None


def _run_id(message: dict[str, Any] | None) -> str | None:
    return None if message is None else message.get("run_id")


@define(eq=False)
class _Place:
    """A message in the line, or one that may come back into it."""

    entry: Entry
    message: dict[str, Any] | None
    is_back: bool = False

    @property
    def kind(self) -> type[em.EngineMessage]:
        return self.entry.kind

    @property
    def run_id(self) -> str | None:
        return _run_id(self.message)


@define(eq=False)
class _Order:
    """The line as it would be: which messages may come back, given the run that is on before it."""

    _line: list[_Place]
    _aside: list[_Place]
    _open_run: str | None
    _last_delivered: int
    """The number of the last run event that the aggregator has taken."""
    _places: list[_Place] = field(init=False)

    def __attrs_post_init__(self) -> None:
        places = self._line + self._aside
        self._places = sorted(places, key=lambda place: place.entry.sequence_number)

    def back(self) -> Iterator[Entry]:
        """Yield the messages that may come back, in order."""
        run_id = self._first_run()
        for at, place in enumerate(self._places):
            if place.is_back and not self._fits(at, run_id):
                continue
            if place.kind is em.RunStartedMsg:
                run_id = place.run_id
            elif place.kind is em.RunStoppedMsg:
                run_id = None
            if place.is_back:
                yield place.entry

    def _first_run(self) -> str | None:
        """Return the run that is on at the aggregator before the line.

        A run whose end was set aside is still on, unless the aggregator has taken a run event
        since.
        """
        first = next((place for place in self._places if place.entry.is_run_event), None)
        if self._open_run is not None or first is None or first.kind is not em.RunStoppedMsg:
            return self._open_run
        return first.run_id if first.entry.sequence_number > self._last_delivered else None

    def _fits(self, at: int, run_id: str | None) -> bool:
        place = self._places[at]
        if place.kind is em.RunStartedMsg:
            return run_id in (None, place.run_id) and self._is_followed(at)
        if place.kind in (em.RunStoppedMsg, em.TagsUpdatedMsg):
            return place.run_id == run_id
        return True

    def _is_followed(self, at: int) -> bool:
        """Return whether what follows the beginning of a run belongs to it, up to its end."""
        run_id = self._places[at].run_id
        for place in self._places[at + 1 :]:
            if place.kind is em.RunStoppedMsg:
                return place.run_id == run_id
            is_other = place.kind is em.TagsUpdatedMsg and place.run_id != run_id
            if not place.is_back and (is_other or place.kind is em.RunStartedMsg):
                return False
        return True
