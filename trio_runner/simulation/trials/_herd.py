"""A herd: many engines that lose their aggregator at the same moment, as a model of their dials.

Each engine is a real `Backoff`. A dial is three times: when it begins, when it is through the
aggregator's queue, and when it is given up. So tens of thousands of them take seconds. `_fleet`
does the same with whole runners, for as many as run in a minute.
"""

import heapq
import itertools
import math
from bisect import bisect_left
from collections.abc import Iterable, Sequence
from random import Random
from statistics import median

from attrs import define, field, frozen

from trio_runner._backoff import Backoff, Turns
from trio_runner._errors import AggregatorUnreachable, LinkLost, NetworkError

WINDOW_S = 0.1
"""The window in which dials are counted (s)."""

DIALS_MAX = 60
"""How many dials an aggregator can take in a window."""

DIAL_S = 10.0
"""How long an engine waits to be let in (s), if it has not waited in the queue before."""

LIVES_S = 60.0
"""How long links live between two losses (s)."""

CONNECTIONS = 2
"""How many connections a dial makes in turn: the registration's and the websocket's."""

SYN_S = 0.0, 1.0, 3.0, 7.0
"""When an operating system sends a SYN to a silent host (s after the dial begins)."""

LOST = LinkLost("the link was lost")
REFUSED = AggregatorUnreachable("refused", refused=True)
SILENT = AggregatorUnreachable("no answer")
IN_LINE = AggregatorUnreachable("no answer in time", in_line=True)


@frozen
class Loss:
    """A loss that a herd meets.

    All links are lost, and the host refuses dials at once for `away_s` (s). If `is_silent`, the
    network is away instead, and dials get no answer. From then on the aggregator lets in `rate`
    dials a second (1/s), one after the other, including those that were given up meanwhile.
    """

    name: str
    away_s: float
    rate: float
    is_silent: bool = False


@frozen
class Account:
    """How a herd came back; all times are in seconds since the loss."""

    dialled: Sequence[float]
    """When engines began to dial."""
    arrived: Sequence[float]
    """When dials reached the aggregator."""
    back: Sequence[float]
    """When engines were back."""
    away_s: float

    @property
    def dials_most(self) -> int:
        """The most dials that began within 100 ms."""
        return most_within(self.dialled)

    @property
    def arrivals_most(self) -> int:
        """The most dials that reached the aggregator within 100 ms."""
        return most_within(self.arrived)

    @property
    def all_back_s(self) -> float:
        """How long it took until all were back, from when they could be (s)."""
        return max(self.back) - self.away_s

    @property
    def median_back_s(self) -> float:
        """How long the median engine took, from when it could be back (s)."""
        return median(self.back) - self.away_s


def most_within(times: Iterable[float], window_s: float = WINDOW_S) -> int:
    """Return how many of the times lie in the fullest window of this length (s)."""
    ordered = sorted(times)
    # A turn is 2 ms. A time 100 ms later is in the next window, whatever its rounding says.
    ends = (bisect_left(ordered, at + window_s - 1e-6) for at in ordered)
    return max((end - n for n, end in enumerate(ends)), default=0)


@define(eq=False)
class _Engine:
    backoff: Backoff
    turns: Turns
    began: float = 0.0
    """When the dial under way began (s)."""
    number: int = 0
    """The number of the dial under way."""


@define(eq=False)
class Herd:
    """Many engines, each in its own process or all in one, that meet one loss after another."""

    engines: int
    seed: int = 0
    in_one_process: bool = False
    _engines: list[_Engine] = field(init=False)
    _now: float = field(default=0.0, init=False)

    def __attrs_post_init__(self) -> None:
        one = Turns()
        self._engines = [
            _Engine(
                Backoff(Random(f"{self.seed} {n}")),  # noqa: S311 - nothing secret
                one if self.in_one_process else Turns(),
            )
            for n in range(self.engines)
        ]
        for engine in self._engines:
            engine.backoff.let_in(0)  # as at its start, when there was no queue

    def lose(self, loss: Loss) -> Account:
        """Lose all links, and return how the engines came back."""
        course = _Course(loss, self._now, self._engines)
        course.run()
        self._now = max(course.back) + LIVES_S
        for engine in self._engines:
            engine.backoff.reset()
        began = course.began
        dialled, arrived, back = (
            [at - began for at in times] for times in (course.dialled, course.arrived, course.back)
        )
        return Account(dialled, arrived, back, loss.away_s)


@define(eq=False)
class _Course:
    """The course of events after one loss, step by step."""

    loss: Loss
    began: float
    engines: list[_Engine]
    dialled: list[float] = field(factory=list, init=False)
    arrived: list[float] = field(factory=list, init=False)
    back: list[float] = field(factory=list, init=False)
    _due: list[tuple[float, int, str, _Engine, int, int]] = field(factory=list, init=False)
    """A heap of steps: time (s), order, step, engine, number of its dial and of the connection."""
    _order: "itertools.count[int]" = field(factory=itertools.count, init=False)
    _line_free_at: float = field(default=-math.inf, init=False)

    def run(self) -> None:
        """Take steps until all engines are back."""
        for engine in self.engines:
            self._fail(self.began, engine, LOST)
        while self._due:
            at, _, step, engine, number, connection = heapq.heappop(self._due)
            if number != engine.number:
                continue  # that dial was given up
            if step == "turn":
                self._plan(engine.turns.take(at), "dial", engine)
            elif step == "dial":
                self._dial(at, engine)
            elif step == "give up":
                is_silent = self.loss.is_silent and at < self._up_at
                self._fail(at, engine, SILENT if is_silent else IN_LINE)
            elif step == "arrive":
                self._arrive(at, engine, connection)
            else:
                self._serve(at, engine, connection)

    @property
    def _up_at(self) -> float:
        return self.began + self.loss.away_s

    def _plan(self, at: float, step: str, engine: _Engine, connection: int = 1) -> None:
        due = at, next(self._order), step, engine, engine.number, connection
        heapq.heappush(self._due, due)

    def _fail(self, at: float, engine: _Engine, failure: NetworkError) -> None:
        engine.number += 1
        self._plan(at + engine.backoff.wait_s(failure, at - self.began), "turn", engine)

    def _dial(self, at: float, engine: _Engine) -> None:
        engine.began = at
        self.dialled.append(at)
        if at < self._up_at and not self.loss.is_silent:
            self._fail(at, engine, REFUSED)
            return
        self._plan(at + DIAL_S * engine.backoff.patience, "give up", engine)
        heard = [at + syn_s for syn_s in SYN_S if at + syn_s >= self._up_at]
        if heard:
            self._plan(heard[0], "arrive", engine)

    def _arrive(self, at: float, engine: _Engine, connection: int) -> None:
        """Join the aggregator's queue, which also serves connections that have been given up."""
        if connection == 1:
            self.arrived.append(at)
        self._line_free_at = max(at, self._line_free_at) + 1 / (self.loss.rate * CONNECTIONS)
        self._plan(self._line_free_at, "serve", engine, connection)

    def _serve(self, at: float, engine: _Engine, connection: int) -> None:
        if connection < CONNECTIONS:
            self._arrive(at, engine, connection + 1)
            return
        engine.number += 1  # no other step of this dial is due any more
        engine.backoff.let_in(at - engine.began)
        self.back.append(at)
