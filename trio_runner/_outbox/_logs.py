"""Error logs that wait: each by itself until the first goes out, then as one bounded message."""

from itertools import takewhile

from attrs import define, field

from trio_runner._outbox._entry import Entry
from trio_runner._outbox._shrinking import LOG_CHARACTERS_MAX, LOG_ENTRIES_MAX
from trio_runner.protocol import DecodeError, loads

SLACK = 1.5
"""How many times as much may wait as one message holds, so that cutting is seldom needed."""


@define(eq=False)
class WaitingLogs:
    """Error logs put in since the last run event and never sent, in order.

    None of them grows while it waits. That would cost the logging thread and the disk the whole
    message each time, and one that grows while it is written would never be finished. Logs that a
    new process finds in the file are not among them: the process that died may have sent them in
    that form.
    """

    _logs: list[tuple[Entry, int]] = field(factory=list, init=False)
    """Each with the length of its text (characters)."""
    _characters: int = field(default=0, init=False)

    def add(self, log: Entry, characters: int) -> None:
        """Note an error log that waits."""
        self._logs.append((log, characters))
        self._characters += characters

    def clear(self) -> None:
        """Forget all logs: they no longer wait, or are not to be merged with others."""
        self._logs.clear()
        self._characters = 0

    @property
    def are_many(self) -> bool:
        """Whether so much waits that some of it should be left out."""
        return (
            len(self._logs) > SLACK * LOG_ENTRIES_MAX
            or self._characters > SLACK * LOG_CHARACTERS_MAX
        )

    def take(self, first: Entry | None = None) -> list[Entry]:
        """Forget and return the logs that can be merged into one message, from `first` on or all.

        A log that does not count as queued is not on disk yet. It stays, with those after it.
        """
        at = 0
        if first is not None:
            places = (place for place, (log, _) in enumerate(self._logs) if log is first)
            at = next(places, len(self._logs))
        taken = list(takewhile(lambda log: log[0].is_queued, self._logs[at:]))
        del self._logs[at : at + len(taken)]
        self._characters -= sum(characters for _, characters in taken)
        return [log for log, _ in taken]

    def put_back(self, log: Entry, characters: int) -> None:
        """Note a log into which others have been merged: it is the oldest."""
        self._logs.insert(0, (log, characters))
        self._characters += characters


def is_log(text: str) -> bool:
    """Return whether a text is an error log as engines of this version make it."""
    try:
        return all(isinstance(entry["message"], str) for entry in loads(text)["log"]["entries"])
    except (DecodeError, LookupError, TypeError):
        return False
