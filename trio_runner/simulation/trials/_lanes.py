"""The lanes of a life's picture, made from its record: what was on, and from when to when."""

import math
from collections import deque
from collections.abc import Iterable, Iterator

from attrs import define, field, frozen

from trio_runner.simulation.trials._faults import FAULTS
from trio_runner.simulation.trials._record import Entry, Record, Second
from trio_runner.simulation.trials._watched_link import SAMPLE, Key

NOT_HANDLED = "answered", "sent before"
"""How the reasons begin for which the aggregator did not handle a message.

With other reasons it handled the message, but without effect.
"""


@define
class Span:
    """Something that was on for a while (s), its kind, and how it ended."""

    from_s: float
    to_s: float
    name: str
    kind: str
    end: str = ""


@define
class Made:
    """An event or a sample: when it was made and when it first arrived (both s)."""

    kind: str
    name: str
    made_s: float
    arrived_s: float | None = None
    sent: int = 0
    """How often it was sent."""
    fate: str = ""
    """Why it did not arrive, or had no effect."""


@frozen
class Level:
    """The state of things at a moment; None where there is nothing."""

    at_s: float
    waiting: int | None
    bytes_waiting: int | None
    oldest_s: float | None
    """The age of the oldest message that waits and will arrive (s)."""
    newest_s: float | None
    """The age of the newest value that the aggregator has (s)."""
    disk: str | None
    written_bytes: int | None
    """How much was written to the disk since the moment before (bytes)."""


@define(eq=False)
class Lanes:
    """The data of a picture; each list is in the order of time."""

    processes: list[Span] = field(factory=list)
    states: list[Span] = field(factory=list)
    links: list[Span] = field(factory=list)
    runs: list[Span] = field(factory=list)
    faults: list[Span] = field(factory=list)
    events: list[Made] = field(factory=list)
    samples: list[Made] = field(factory=list)
    levels: list[Level] = field(factory=list)
    violation: tuple[float, str] | None = None
    end_s: float = 0.0


def lanes_of(record: Record) -> Lanes:
    """Return the data for a picture of a life."""
    reader = _Reader(record)
    for entry in record.entries:
        reader.read(entry)
    reader.end()
    reader.lanes.levels.extend(_levels(record.seconds, reader.made.values()))
    return reader.lanes


@define(eq=False)
class _Reader:
    """Reads entries in order, each by the method named after its first word."""

    record: Record
    lanes: Lanes = field(factory=Lanes, init=False)
    made: dict[Key, Made] = field(factory=dict, init=False)
    _on: dict[str, Span] = field(factory=dict, init=False)
    """The spans that are on: the last of each lane, and each fault by its number."""

    def read(self, entry: Entry) -> None:
        """Follow an entry, if it has a place in a lane."""
        first, *rest = entry.words
        follow = getattr(self, f"_{str(first).lower()}", None)
        self.lanes.end_s = entry.at_s
        if follow is not None:
            follow(entry, *rest)

    def _process(self, entry: Entry, number: object, *how: object) -> None:
        if number != "ends:":
            self._begin(self.lanes.processes, "process", entry.at_s, f"process {number}", "process")
            self._begin(self.lanes.states, "state", entry.at_s, "Started", "Started")
            return
        for key in ("dial", "link", "state", "process", "run"):
            self._close(key, entry.at_s, str(how[0]))

    def _state(self, entry: Entry, before: object, arrow: str, after: object) -> None:
        self._close("state", entry.at_s, f"then {after}")
        self._begin(self.lanes.states, "state", entry.at_s, str(after), str(after))

    def _dial(self, entry: Entry, *how: object) -> None:
        if not how:
            self._begin(self.lanes.links, "dial", entry.at_s, "dial", "dial")
            return
        self._close("dial", entry.at_s, str(how[1]))
        if "link" in self._on:
            self._on["link"].end = str(how[1])

    def _link(self, entry: Entry, number: object, *ended: object) -> None:
        if ended:
            self._close("link", entry.at_s)
            return
        self._close("dial", entry.at_s)
        self._begin(self.lanes.links, "link", entry.at_s, f"link {number}", "link")

    def _fault(self, entry: Entry, number: object, kind: str, *ended: object) -> None:
        key = f"fault {number}"
        if ended:
            self._close(key, entry.at_s)
            return
        side = FAULTS[kind].__module__.rpartition("._")[2]
        self._begin(self.lanes.faults, key, entry.at_s, kind, side)

    def _violation(self, entry: Entry, what: object) -> None:
        self.lanes.violation = (entry.at_s, str(what))

    def _made(self, entry: Entry, *words: object) -> None:
        for key in entry.about:
            kind, name = key
            fate = self.record.fates.get(key, "")
            self.made[key] = made = Made(kind, name, entry.at_s, fate=fate)
            (self.lanes.samples if kind == SAMPLE else self.lanes.events).append(made)
            if kind == "RunStartedMsg":
                self._begin(self.lanes.runs, "run", entry.at_s, name, "run")
            elif kind == "RunStoppedMsg":
                self._end_run(entry.at_s, name)

    def _end_run(self, now: float, name: str) -> None:
        began_s = self.lanes.processes[-1].from_s
        if "run" not in self._on and began_s < now:
            # The previous process began the run, and this one resumed it.
            self._begin(self.lanes.runs, "run", began_s, name, "run")
        self._close("run", now)

    def _send(self, entry: Entry, *words: object) -> None:
        for key in entry.about:
            if key in self.made:
                self.made[key].sent += 1

    def _receive(self, entry: Entry, number: object, kind: str, refused: str | None) -> None:
        if refused is not None and refused.startswith(NOT_HANDLED):
            return
        for key in entry.about:
            made = self.made.get(key)
            if made is not None and made.arrived_s is None:
                made.arrived_s = entry.at_s
                made.fate = f"without effect: {refused}" if refused is not None else made.fate

    def _begin(self, lane: list[Span], key: str, now: float, name: str, kind: str) -> None:
        self._close(key, now)
        self._on[key] = Span(now, math.inf, name, kind)
        lane.append(self._on[key])

    def _close(self, key: str, now: float, end: str = "") -> None:
        span = self._on.pop(key, None)
        if span is not None:
            span.to_s, span.end = now, end or span.end

    def end(self) -> None:
        """End all spans that are still on."""
        for key in list(self._on):
            self._close(key, self.lanes.end_s)


def _levels(seconds: Iterable[Second], made: Iterable[Made]) -> Iterator[Level]:
    ages, written = _Ages(made), 0
    for second in seconds:
        total = second.bytes_written
        yield Level(
            second.at_s,
            second.waiting,
            second.bytes_waiting,
            *ages.at(second.at_s),
            second.disk,
            None if total is None else total - written,
        )
        written = total or 0


class _Ages:
    """The ages of the oldest waiting message and of the newest arrived value, as time goes on."""

    def __init__(self, made: Iterable[Made]) -> None:
        known = list(made)
        seen = [one for one in known if not one.fate]
        arrived = [one for one in seen if one.kind == SAMPLE and one.arrived_s is not None]
        self._waiting = deque(one for one in known if one.arrived_s is not None or not one.fate)
        self._on_the_way = deque(sorted(arrived, key=lambda one: one.arrived_s or 0.0))
        self._newest_made_s = -math.inf

    def at(self, now: float) -> tuple[float | None, float | None]:
        """Return both ages at a time (s), which must not be before that of the last call."""
        while self._waiting and (self._waiting[0].arrived_s or math.inf) <= now:
            self._waiting.popleft()
        while self._on_the_way and (self._on_the_way[0].arrived_s or 0.0) <= now:
            made_s = self._on_the_way.popleft().made_s
            self._newest_made_s = max(self._newest_made_s, made_s)
        waits = self._waiting and self._waiting[0].made_s <= now
        return (
            now - self._waiting[0].made_s if waits else None,
            now - self._newest_made_s if self._newest_made_s > -math.inf else None,
        )
