"""A check that no more than a gigabyte a day is written to the disk while all is well."""

from collections.abc import Callable

from attrs import define, field

from trio_runner.protocol import encode_body
from trio_runner.protocol import engine_messages as em

BYTES_S = 1e9 / (24 * 3600)
"""How much may be written on a healthy link (bytes a second)."""

AHEAD_BYTES = 0.6e6
"""How much may be written in advance of that rate (bytes).

The first steps of a run are written as they happen.
"""

EVENT_BYTES = 60e3
"""How much an event may cost (bytes): it is written before it goes out, and deleted again."""

FADING = 0.98
"""The part of the events' unused allowance that is left a second later: half after 34 s."""

EVENT_TIMES = 4
"""How often the bytes of a large event may be written: once in each of its forms."""


def cost(message: em.EngineMessage) -> float:
    """Return how much may be written for a message that the engine has made (bytes)."""
    if isinstance(message, em.TagsUpdatedMsg):
        return 0
    return EVENT_BYTES + EVENT_TIMES * len(encode_body(message))


@define(eq=False)
class Written:
    """Follows how much is written to the disk; `expect` is the oracle's."""

    expect: Callable[[object, str], None]
    _allowed: float = field(default=AHEAD_BYTES, init=False)
    _most: float = field(default=AHEAD_BYTES, init=False)
    """How much may be written in advance now (bytes)."""
    _for_events: float = field(default=0.0, init=False)
    _bytes: int = field(default=0, init=False)
    _events_cost: float = field(default=0.0, init=False)

    def check_second(
        self, *, is_well: bool, bytes_written: int, events_cost: float, log_bytes: int
    ) -> None:
        """Check how much was written; to be called once a second.

        `bytes_written` is the total so far, `events_cost` what all events so far may have cost,
        and `log_bytes` the size of SQLite's log (all bytes). `is_well` says whether the link and
        the disk are healthy. What the log got before that is written once more, into the database.
        """
        if not is_well:
            self._allowed = self._most = AHEAD_BYTES + log_bytes
        self._allowed = min(self._allowed + BYTES_S, self._most)
        self._for_events = self._for_events * FADING + events_cost - self._events_cost
        if is_well:
            more = bytes_written - self._bytes
            by_events = min(more, self._for_events)
            self._for_events -= by_events
            self._allowed -= more - by_events
        self._bytes, self._events_cost = bytes_written, events_cost
        self.expect(
            self._allowed >= 0,
            "more than a gigabyte a day is written to the disk on a healthy link",
        )
