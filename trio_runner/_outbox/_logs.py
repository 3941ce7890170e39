"""Error logs that wait: each by itself until the first of them goes out, then one, bounded."""

from itertools import takewhile

from attrs import define, field

from trio_runner._outbox._entry import Entry
from trio_runner._outbox._shrinking import LOG_CHARACTERS_MAX, LOG_ENTRIES_MAX
from trio_runner.protocol import DecodeError, loads

SLACK = 1.5
"""How many times more may wait than one message holds, so that cutting them is seldom."""


@define(eq=False)
class WaitingLogs:
    """What was logged since the last run event, and has never been sent, in order.

    None of them grows: that would cost the whole of it each time, of the thread that logs and of
    the disk, and what grows while it is written is never done. Those that a process finds are not
    among them: the one that died may have sent them as they lie there.
    """

    _logs: list[tuple[Entry, int]] = field(factory=list, init=False)
    """Each with the length of its text (characters)."""
    _characters: int = field(default=0, init=False)

    def add(self, log: Entry, characters: int) -> None:
        """Note one that waits."""
        self._logs.append((log, characters))
        self._characters += characters

    def clear(self) -> None:
        """Forget them all: they wait no longer, or become part of no other."""
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
        """Forget those from one on, or all, that can be one message, and return them.

        One that does not count as queued is not on disk yet; it stays, with those behind it.
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
        """Note one that others have become part of: it is the oldest."""
        self._logs.insert(0, (log, characters))
        self._characters += characters


def is_log(text: str) -> bool:
    """Tell whether a text is an error log as the engines of this version make them."""
    try:
        return all(isinstance(entry["message"], str) for entry in loads(text)["log"]["entries"])
    except (DecodeError, LookupError, TypeError):
        return False
