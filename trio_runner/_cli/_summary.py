"""The judgement of the demo's run, a pure function of its records."""

from collections import Counter
from itertools import pairwise

from attrs import frozen


def count(number: int, what: str) -> str:
    """Return the number and what it counts, in the plural unless it is one."""
    return f"{number} {what}" if number == 1 else f"{number} {what}s"


@frozen
class Outage:
    """The outage's times in seconds since the start; None for what has not happened."""

    began_s: float
    ended_s: float | None = None
    reconnected_s: float | None = None
    caught_up_s: float | None = None

    def __str__(self) -> str:
        if self.ended_s is None:
            return f"from {self.began_s:.1f} s to the end"
        text = f"{self.ended_s - self.began_s:.1f} s"
        if self.reconnected_s is None:
            return f"{text}; not reconnected"
        text += f"; reconnected {self.reconnected_s - self.ended_s:.1f} s after it"
        if self.caught_up_s is None:
            return f"{text}, not caught up"
        return f"{text}, caught up in another {self.caught_up_s - self.reconnected_s:.1f} s"


@frozen
class Records:
    """What went in at the engine, and what came out at the aggregator.

    Messages are compared by their encoded content, without their numbers. `waiting` messages are
    still in the outbox. `plotted_s` are the times of the samples that the plot holds.
    """

    samples_taken: list[str]
    samples_received: list[str]
    events_taken: list[str]
    events_received: list[str]
    waiting: int = 0
    interrupted: bool = False
    outage: Outage | None = None
    plotted_s: list[float] = []  # noqa: RUF008 - the record is frozen, and nothing writes to it


@frozen
class Tally:
    """How many messages of a kind were taken, arrived, arrived again, and are missing."""

    taken: int
    delivered: int
    repeated: int
    missing: int


@frozen
class Summary:
    """The judgement, and in `lines` how it is told."""

    samples: Tally
    events: Tally
    events_in_order: bool
    lost: int
    lines: list[str]

    @property
    def exit_code(self) -> int:
        """0 if nothing is lost and the events came in order, 1 otherwise."""
        return 0 if not self.lost and self.events_in_order else 1


def summarize(records: Records) -> Summary:
    """Judge the records.

    What still waits at the end counts as lost, unless the demo was interrupted and the outbox
    holds it.
    """
    samples = _tally(records.samples_taken, records.samples_received)
    events = _tally(records.events_taken, records.events_received)
    in_order = _in_order(records)
    missing = samples.missing + events.missing
    lost = max(0, missing - records.waiting) if records.interrupted else missing
    lines = [
        _verdict(lost, in_order, missing - lost, interrupted=records.interrupted),
        f"samples  {_figures(samples, lost)}",
        f"events   {_figures(events, lost)}, {'in order' if in_order else 'NOT IN ORDER'}",
    ]
    if records.outage is not None:
        lines.append(f"outage   {records.outage}")
    if len(records.plotted_s) > 1:
        gap_s = max(after - before for before, after in pairwise(records.plotted_s))
        lines.append(f"plot     {len(records.plotted_s)} points, longest gap {gap_s:.1f} s")
    return Summary(samples, events, in_order, lost, lines)


def _tally(taken: list[str], received: list[str]) -> Tally:
    missing = (Counter(taken) - Counter(received)).total()
    repeated = (Counter(received) - Counter(taken)).total()
    return Tally(len(taken), len(taken) - missing, repeated, missing)


def _in_order(records: Records) -> bool:
    """Tell whether events came in order; one that arrives again later does not count against it."""
    came = dict.fromkeys(records.events_received)
    return list(came) == [event for event in dict.fromkeys(records.events_taken) if event in came]


def _verdict(lost: int, in_order: bool, waited: int, *, interrupted: bool) -> str:
    begin = "Interrupted. " if interrupted else ""
    if lost:
        return f"{begin}{count(lost, 'message').upper()} LOST."
    if not in_order:
        return f"{begin}Nothing lost, but EVENTS CAME OUT OF ORDER."
    if waited:
        return f"{begin}Nothing lost so far, {count(waited, 'message')} still waiting."
    return f"{begin}Nothing lost."


def _figures(tally: Tally, lost: int) -> str:
    """Return the figures of a kind of message; what is missing and not lost waits in the outbox."""
    text = f"{tally.taken:3} taken, {tally.delivered:3} delivered, "
    text += f"{tally.missing} {'lost' if lost or not tally.missing else 'waiting'}"
    if tally.repeated:
        text += f", {tally.repeated} sent again"
    return text
