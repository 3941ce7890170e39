"""What a service of `Type=notify` tells systemd, and when systemd may kill it.

The service is ready when the first runner's ticker turns: one unit whose hardware hangs keeps
nobody from the others. The watchdog is fed for as long as the process does its work:

- Trio's loop turns; otherwise nothing feeds the watchdog.
- The ticker of each runner turns; only a mistake in this program can stop one.
- The engine's thread ticks, in at least one unit. A unit whose driver hangs controls nothing, but
  the other units' engines still do.

The disk is not a condition. If it fails or hangs, nothing is lost while the process lives, since it
goes on from memory. Ending the process would cost the run and whatever is in memory only.
"""

import logging
import os
import socket
import sys
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from typing import Protocol

import trio
from attrs import define, field

from trio_runner import EngineRunner, Statistics
from trio_runner._away import duration
from trio_runner._cli._summary import count
from trio_runner._printable import printable
from trio_runner._say_once import SayOnce

logger = logging.getLogger(__name__)

STATUS_S = 5
"""The time between two looks at the units (s), unless the watchdog must be fed more often."""

LOOK_S = 0.1
"""The time between two looks at whether the service is ready (s)."""

FED_TIMES = 4
"""How many times the watchdog is fed within its time."""

STILL_S = 10
"""How long something must not have turned to count as standing still (s); half the watchdog's time,
if that is longer. Without a link, a runner's ticker turns every 5.2 s."""

SEND_S = 1
"""How long to wait for systemd (s)."""

STATUS_MAX = 1000
"""The most characters of the status."""

IN_WORDS = {
    "Started": "connecting",
    "Connected": "connected",
    "Failed": "no link",
    "Disconnected": "no link",
    "Reconnecting": "introducing itself",
    "CatchingUp": "catching up",
    "Reconnected": "connected",
    "Stopped": "stopping",
    "ShutdownComplete": "stopped",
}


class Watched(Protocol):
    """What systemd is told about a unit."""

    @property
    def name(self) -> str:
        """The unit's name."""

    @property
    def runner(self) -> EngineRunner | None:
        """Its runner, or None until there is one."""

    @property
    def failed(self) -> str | None:
        """Why it has failed, or None if it has not."""

    @property
    def ticks(self) -> int | None:
        """The number of ticks of its engine's thread, or None while the thread need not tick."""


async def tell_systemd(
    units: Sequence[Watched], stopping: trio.Event, environment: Mapping[str, str] = os.environ
) -> None:
    """Tell systemd about the units until cancelled; return at once if it does not ask for it."""
    address = environment.get("NOTIFY_SOCKET")
    if not address:
        return
    watchdog_s = _watchdog_s(environment)
    still_s, every_s = float(STILL_S), float(STATUS_S)
    if watchdog_s is not None:
        still_s = max(STILL_S, watchdog_s / 2)
        every_s = min(STATUS_S, watchdog_s / FED_TIMES)
    teller = Teller(
        units, Datagrams(address).send, Hearts(units, still_s), has_watchdog=watchdog_s is not None
    )
    while not teller.is_ready and not stopping.is_set():
        await trio.sleep(LOOK_S)
        await teller.tell_if_ready()
    while not stopping.is_set():
        await teller.tell()
        with trio.move_on_after(every_s):
            await stopping.wait()
    await teller.tell_end()
    while True:  # an end that hangs has a time limit of its own
        await trio.sleep(every_s)
        await teller.feed()


def _watchdog_s(environment: Mapping[str, str]) -> float | None:
    """Return within which time the watchdog must be fed (s), or None if there is none."""
    text, pid = environment.get("WATCHDOG_USEC", ""), environment.get("WATCHDOG_PID")
    is_ours = pid in (None, str(os.getpid()))
    return int(text) / 1e6 if is_ours and text.isdigit() and int(text) else None


@define(eq=False)
class Datagrams:
    """Sends datagrams to a socket, at a path or with `@` at a name; logs each failure once."""

    _address: str
    _say: SayOnce = field(factory=lambda: SayOnce(logger), init=False)

    async def send(self, text: str) -> None:
        """Send a text in one datagram, within `SEND_S` or not at all."""
        if sys.platform == "win32":
            return
        try:
            with (
                trio.move_on_after(SEND_S),
                trio.socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as to_systemd,
            ):
                await to_systemd.sendto(text.encode(), self._address.replace("@", "\0", 1))
        except OSError as error:
            self._say(logging.WARNING, "Cannot notify systemd at %s: %s", self._address, error)


@define(eq=False)
class Hearts:
    """Knows for how long each ticker and each engine's thread has stood still."""

    _units: Sequence[Watched]
    _still_s: float
    _beats: dict[tuple[str, str], tuple[int, float]] = field(factory=dict, init=False)
    """The last new count of each unit's ticker and thread, and when it came (s on Trio's clock)."""

    def why_starved(self) -> str | None:
        """Return what stands still and makes the process useless, or None if it works.

        Call this several times within `still_s`.
        """
        running = [u for u in self._units if u.runner is not None and u.failed is None]
        tickers = [u.name for u in running if self._stands(u.name, "ticker", turns(u))]
        if tickers:
            return f"the ticker of {', '.join(tickers)} stands still"
        threads = [u.name for u in running if self._stands(u.name, "thread", u.ticks)]
        if threads and len(threads) == len(running):
            return f"the thread of {', '.join(threads)} stands still: a driver hangs"
        return None

    def _stands(self, unit: str, what: str, count: int | None) -> bool:
        now, key = trio.current_time(), (unit, what)
        if count is None or self._beats.get(key, (None,))[0] != count:
            self._beats[key] = (-1 if count is None else count, now)
        return now - self._beats[key][1] > self._still_s


def turns(unit: Watched) -> int:
    """Return how often the ticker of a unit's runner has turned."""
    return 0 if unit.runner is None else sum(unit.runner.statistics().sample_lag_s.counts)


@define(eq=False)
class Teller:
    """Decides what to tell systemd, and when."""

    _units: Sequence[Watched]
    _send: Callable[[str], Awaitable[None]]
    _hearts: Hearts
    _has_watchdog: bool
    is_ready: bool = field(default=False, init=False)
    _told: str = field(default="", init=False)
    _say: SayOnce = field(factory=lambda: SayOnce(logger), init=False)

    async def tell_if_ready(self) -> None:
        """Tell systemd that the service has started, if it has."""
        if any(map(turns, self._units)):
            self.is_ready = True
            await self._send("READY=1")

    async def tell(self) -> None:
        """Tell the status if it has changed, and feed the watchdog if the process works."""
        starved, status = self._hearts.why_starved(), "; ".join(self._words())
        if starved is not None:
            self._say(logging.ERROR, "Not feeding systemd's watchdog: %s", starved)
            status = f"{starved}; {status}"
        else:
            await self.feed()
        if status != self._told:
            self._told = status
            await self._send(f"STATUS={printable(status, STATUS_MAX)}")

    async def feed(self) -> None:
        """Feed the watchdog, if there is one."""
        if self._has_watchdog:
            await self._send("WATCHDOG=1")

    async def tell_end(self) -> None:
        """Tell systemd that the end has begun."""
        await self._send("STOPPING=1\nSTATUS=stopping")
        await self.feed()

    def _words(self) -> Iterator[str]:
        for unit in self._units:
            if unit.failed is not None:
                yield f"{unit.name}: failed: {unit.failed}"
            elif unit.runner is None:
                yield f"{unit.name}: connecting its hardware"
            else:
                yield f"{unit.name}: {in_words(unit.runner.statistics())}"


def in_words(what: Statistics) -> str:
    """Return a unit's condition for people: its state, since when it is away, what waits, why."""
    text = IN_WORDS[what.state]
    if what.away_for_s is not None and what.last_failure is not None:
        text += f", away for {duration(what.away_for_s)}"
    text += f", waiting: {count(what.outbox.waiting, 'message')}"
    if what.outbox.degraded is not None:
        text += f", the outbox's disk fails: {what.outbox.degraded}"
    if what.away_for_s is not None and what.last_failure is not None:
        text += f". {what.last_failure}"
    return text
