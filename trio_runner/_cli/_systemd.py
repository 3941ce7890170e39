"""What systemd is told of a command that is a service of `Type=notify`, and when it may kill it.

Ready it is when the first runner's ticker turns: with several units, one whose hardware hangs keeps
nobody from the others. The watchdog is fed for as long as the process does its work:

- Trio's loop turns, or nobody feeds.
- The ticker of each runner turns; they only stand still by a mistake of this program.
- The thread of an engine ticks, in one unit at least: with a driver that hangs a unit controls
  nothing, but the other units' engines do.

A disk is no condition. One that fails or hangs costs nothing as long as the process lives, since it
goes on from memory; its end would cost the run, and what is in memory alone.
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
"""Between two looks at the units (s), unless the watchdog wants to be fed more often."""

LOOK_S = 0.1
"""Between two looks whether it is ready (s)."""

FED_TIMES = 4
"""How often the watchdog is fed in its time."""

STILL_S = 10
"""What has not turned for so long stands still (s), or for half the watchdog's time, if that is
longer. Without a link a runner's ticker turns every 5.2 s."""

SEND_S = 1
"""How long systemd is waited for (s)."""

STATUS_MAX = 1000
"""Of the status (characters)."""

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
    """A unit, as far as systemd is told of it."""

    @property
    def name(self) -> str:
        """The unit's name."""

    @property
    def runner(self) -> EngineRunner | None:
        """Its runner, None until there is one."""

    @property
    def failed(self) -> str | None:
        """Why it has failed, None if it has not."""

    @property
    def ticks(self) -> int | None:
        """How often the thread of its engine has ticked, None while it need not."""


async def tell_systemd(
    units: Sequence[Watched], stopping: trio.Event, environment: Mapping[str, str] = os.environ
) -> None:
    """Tell systemd of the units until cancelled; return at once where it does not ask for it."""
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
    while True:  # what hangs in the end has a time of its own
        await trio.sleep(every_s)
        await teller.feed()


def _watchdog_s(environment: Mapping[str, str]) -> float | None:
    """Return in which time the watchdog is to be fed (s), None if there is none."""
    text, pid = environment.get("WATCHDOG_USEC", ""), environment.get("WATCHDOG_PID")
    is_ours = pid in (None, str(os.getpid()))
    return int(text) / 1e6 if is_ours and text.isdigit() and int(text) else None


@define(eq=False)
class Datagrams:
    """Sends to the socket at an address, a path or with `@` a name; what fails is said once."""

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
            self._say(logging.WARNING, "systemd cannot be told at %s: %s", self._address, error)


@define(eq=False)
class Hearts:
    """Knows since when what has to turn stands still."""

    _units: Sequence[Watched]
    _still_s: float
    _beats: dict[tuple[str, str], tuple[int, float]] = field(factory=dict, init=False)
    """How often what of which unit had turned when it last did, and when (s on Trio's clock)."""

    def why_starved(self) -> str | None:
        """Return what stands still so that the process is of no use, None if it works.

        To be asked several times within `still_s`.
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
    """What is told, and when."""

    _units: Sequence[Watched]
    _send: Callable[[str], Awaitable[None]]
    _hearts: Hearts
    _has_watchdog: bool
    is_ready: bool = field(default=False, init=False)
    _told: str = field(default="", init=False)
    _say: SayOnce = field(factory=lambda: SayOnce(logger), init=False)

    async def tell_if_ready(self) -> None:
        """Tell once that the service has started, if it has."""
        if any(map(turns, self._units)):
            self.is_ready = True
            await self._send("READY=1")

    async def tell(self) -> None:
        """Tell how it goes, if that is news, and feed the watchdog if it does."""
        starved, status = self._hearts.why_starved(), "; ".join(self._words())
        if starved is not None:
            self._say(logging.ERROR, "The watchdog of systemd is not fed: %s", starved)
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
        """Tell that the end has begun."""
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
    """Return how a unit is, for people: since when, what waits, and why."""
    text = IN_WORDS[what.state]
    if what.away_for_s is not None and what.last_failure is not None:
        text += f", away for {duration(what.away_for_s)}"
    text += f", waiting: {count(what.outbox.waiting, 'message')}"
    if what.outbox.degraded is not None:
        text += f", the outbox's disk fails: {what.outbox.degraded}"
    if what.away_for_s is not None and what.last_failure is not None:
        text += f". {what.last_failure}"
    return text
