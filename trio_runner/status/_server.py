"""The status server: where it listens, what it answers, and the task that watches the units."""

import logging
from collections.abc import Iterable
from functools import partial
from ipaddress import ip_address

import trio
from attrs import define, field

from trio_runner import EngineRunner
from trio_runner._histogram import Durations
from trio_runner._say_once import SayOnce
from trio_runner.status._board import SAMPLE_S, Board, Unit
from trio_runner.status._http import Answer, converse
from trio_runner.status._json import as_json
from trio_runner.status._metrics import CONTENT_TYPE, Metrics
from trio_runner.status._page import POLICY, page
from trio_runner.status._verdict import worst

logger = logging.getLogger(__name__)

CONNECTIONS_MAX = 32
"""The most connections at a time; more are closed at once.

The process needs its file descriptors for links and files."""

WAKE_S = 5
"""The time between two measurements of how late the loop is (s).

Each one wakes the process, and this should not show in its CPU usage. The lag of the samples tells
what is late in between."""

ALARM_AFTER_S = 300
"""An outage that has lasted longer (s) needs a person."""


async def serve(
    units: Iterable[EngineRunner | Unit],
    host: str = "127.0.0.1",
    port: int = 0,
    *,
    alarm_after_s: float = ALARM_AFTER_S,
    task_status: trio.TaskStatus[list[str]] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Serve the status of these units over HTTP until cancelled.

    Once it listens, it calls `task_status.started` with its URLs. Port 0 takes a free port. An
    outage makes `/health` fail once it has lasted longer than `alarm_after_s` seconds. Raises
    OSError if it cannot listen. If cancelled, all connections are closed at once.
    """
    site = Site(Board.of(units, alarm_after_s))
    listeners = await trio.open_tcp_listeners(port, host=host)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(site.watch)
        await nursery.start(partial(trio.serve_listeners, site.welcome, listeners))
        task_status.started([_told(listener) for listener in listeners])


def _told(listener: trio.SocketListener) -> str:
    """Log where the page is and who can see it; return its URL."""
    address, port = listener.socket.getsockname()[:2]
    url = f"http://[{address}]:{port}/" if ":" in address else f"http://{address}:{port}/"
    if ip_address(address).is_loopback:
        logger.info("Status at %s", url)
    else:
        logger.warning("Status at %s: all who can reach this computer can read it", url)
    return url


@define(eq=False)
class Site:
    """What each path answers."""

    _board: Board
    _lag_s: Durations = field(factory=Durations, init=False)
    """How late the watching task woke (s), because Trio's loop was busy with something else."""
    _metrics: Metrics = field(init=False)
    _connections: int = field(default=0, init=False)
    _say: SayOnce = field(factory=lambda: SayOnce(logger), init=False)

    def __attrs_post_init__(self) -> None:
        self._metrics = Metrics(self._board, self._lag_s)

    async def watch(self) -> None:
        """Measure how late Trio's loop is and take the points of the plots, until cancelled."""
        while True:
            self._sample()
            for _ in range(SAMPLE_S // WAKE_S):
                due = trio.current_time() + WAKE_S
                await trio.sleep_until(due)
                self._lag_s.note(trio.current_time() - due)

    def _sample(self) -> None:
        try:
            self._board.sample()
        except Exception as error:  # an engine matters more than its plots
            self._say(logging.ERROR, "Could not show the status: %r", error, error=error)

    async def welcome(self, stream: trio.SocketStream) -> None:
        """Serve a connection, or close it if there are too many."""
        if self._connections >= CONNECTIONS_MAX:
            await stream.aclose()
            return
        self._connections += 1
        try:
            await converse(stream, self.respond)
        finally:
            self._connections -= 1

    def respond(self, path: str) -> Answer:
        """Return the answer for a path; a bug here must not end any engine."""
        try:
            return self._respond(path)
        except Exception as error:
            self._say(logging.ERROR, "Could not show the status: %r", error, error=error)
            return Answer(500, "This failed; the log says why.\n")

    def _respond(self, path: str) -> Answer:
        match path:
            case "/":
                text = page(self._board.look())
                headers = [("Content-Security-Policy", POLICY)]
                return Answer(200, text, "text/html; charset=utf-8", headers)
            case "/health":
                return self._health()
            case "/metrics":
                return Answer(200, self._metrics.text(), CONTENT_TYPE)
            case "/status.json":
                text = as_json(self._board.look(), self._board.alarm_after_s)
                return Answer(200, text, "application/json")
        return Answer(404, "Not found: there are /, /health, /metrics and /status.json.\n")

    def _health(self) -> Answer:
        sights = self._board.look()
        level = worst(sight.level for sight in sights)
        lines = ["OK" if level == "ok" else level.upper()]
        lines += [f"{sight.name}: {r.text}" for sight in sights for r in sight.reasons]
        return Answer(503 if level == "critical" else 200, "\n".join(lines) + "\n")
