"""The demo as a record from which a picture can be drawn."""

from collections.abc import Iterator

import trio
from attrs import define, field

from trio_runner._cli._story import Demo
from trio_runner._outbox import DELIVERY, Delivery
from trio_runner.protocol import encode_body
from trio_runner.protocol import engine_messages as em
from trio_runner.simulation.trials._picture import picture
from trio_runner.simulation.trials._record import Entry, Record, Second
from trio_runner.simulation.trials._watched_link import RUN_EVENTS, SAMPLE, Key

LOOK_S = 0.1
"""The time between two looks at what waits (s)."""


@define(eq=False)
class Notebook:
    """Keeps what the demo tells while it is played, and how much waits meanwhile."""

    told: list[tuple[float, str]] = field(factory=list, init=False)
    _seconds: list[Second] = field(factory=list, init=False)

    def note(self, time_s: float, text: str) -> None:
        """Keep something that happened."""
        self.told.append((time_s, text))

    async def look(self, demo: Demo) -> None:
        """Look at the outbox repeatedly, until cancelled."""
        while True:
            seen = demo.outbox.statistics()
            now = demo.now_s
            self._seconds.append(Second(now, seen.waiting, seen.bytes_waiting, None, None))
            await trio.sleep(LOOK_S)

    def picture(self, demo: Demo, verdict: str, *, is_bad: bool) -> str:
        """Return the page that shows everything."""
        entries = sorted(self._entries(demo), key=lambda entry: entry.at_s)
        record = Record(entries, self._seconds)
        return picture(record, "trio-runner demo", verdict, is_bad=is_bad)

    def _entries(self, demo: Demo) -> Iterator[Entry]:
        yield Entry(0.0, ("process", 1, "starts"), ())
        yield from _states(demo)
        if demo.outage is not None:
            yield Entry(demo.outage.began_s, ("fault", 0, "kill_aggregator"), ())
            if demo.outage.ended_s is not None:
                yield Entry(demo.outage.ended_s, ("fault", 0, "kill_aggregator", "ended"), ())
        for time_s, text in self.told:
            if not text.startswith("state: "):
                yield Entry(time_s, (text,), ())
        yield from _messages(demo)
        yield Entry(demo.now_s, ("process", "ends:", "stopped"), ())


def _states(demo: Demo) -> Iterator[Entry]:
    before, links, is_linked = "Started", 0, False
    for time_s, after in demo.changes:
        yield Entry(time_s, ("state", before, "->", after), ())
        before = after
        if after in ("Connected", "Reconnecting"):
            links, is_linked = links + 1, True
            yield Entry(time_s, ("link", links), ())
        elif is_linked and after in ("Failed", "ShutdownComplete"):
            is_linked = False
            yield Entry(time_s, ("link", links, "ended"), ())


def _messages(demo: Demo) -> Iterator[Entry]:
    """Yield when each event and sample was made, and when it was received."""
    keys: dict[str, tuple[Key, ...]] = {}
    for number, (at_s, message) in enumerate(demo.outbox.taken):
        keys[encode_body(message)] = (_key(number, message),)
        for key in keys[encode_body(message)]:
            yield Entry(at_s - demo.began, ("made", *key), (key,))
    for engine in demo.aggregator.engines.values():
        for item in engine.received:
            kind = type(item.message).__name__
            words = ("receive", item.sequence_number, kind, item.refused)
            about = keys.get(encode_body(item.message), ())
            yield Entry(item.time_s - demo.began, words, about)


def _key(number: int, message: em.EngineMessage) -> Key:
    """Return a key that shows what an event or a sample is and that no other one has."""
    if DELIVERY[type(message)] is Delivery.SAMPLE:
        return SAMPLE, str(number)
    kind = type(message).__name__
    if kind in RUN_EVENTS:
        return kind, str(getattr(message, "run_id", ""))
    if isinstance(message, em.WebPushNotificationMsg):
        return "notification", f"{message.notification.body} ({number})"
    return "errors", str(number)
