"""The story of the demo: a run with an outage in the middle of it.

A view of the demo shows what `Demo` knows.
"""

import time
from collections.abc import Callable

import trio
from attrs import define, evolve, field

from trio_runner import EngineRunner, MemoryOutbox, RecoverState
from trio_runner._cli._summary import Outage, Records, count
from trio_runner._outbox import DELIVERY, Delivery, Entry, Prepared
from trio_runner.protocol import MessageBase, SuccessMessage, encode_body
from trio_runner.protocol import aggregator_messages as am
from trio_runner.protocol import engine_messages as em
from trio_runner.protocol import models as mdl
from trio_runner.simulation import Aggregator

BEFORE_OUTAGE_S = 4.0
OUTAGE_S = 8.0
AFTER_CATCH_UP_S = 4.0
LONGEST_S = 27.0
"""When the story is cut short (s), so that the demo ends within 30 s whatever happens."""

HANDLING_S = 0.03
"""How long the stand-in takes over each message (s), so that an eye can follow the catching up."""

PLOTTED, PLOTTED_UNIT = "Inlet pressure", "bar"

METHOD = """\
Block: Rinse
    Valve: Drain
    Set flow: 20 L/h
    Wait: 3 s
    End block
Block: Filtrate
    Valve: Feed
    Set flow: 45 L/h
    Wait: 3 s
    Set flow: 25 L/h
    Wait: 2 s
    Notify: Take a sample
    Set flow: 50 L/h
    Wait: 3 s
    Set flow: 35 L/h
    Wait: 3 s
    End block
Set flow: 10 L/h
Wait: 1 h
"""


@define(eq=False)
class RecordingOutbox(MemoryOutbox):
    """An outbox that notes what it takes, as the aggregator notes what it receives."""

    samples: list[str] = field(factory=list, init=False)
    events: list[str] = field(factory=list, init=False)
    taken: list[tuple[float, em.EngineMessage]] = field(factory=list, init=False)
    """All messages, with the times when they were taken (s on Trio's clock)."""

    def enter(self, message: em.EngineMessage | Prepared) -> Entry | None:
        """Give a message its place in the outbox, and note it."""
        ready = message if isinstance(message, Prepared) else self.prepare(message)
        entry = super().enter(ready)
        delivery = DELIVERY[type(ready.message)]
        if delivery is not Delivery.STATE:
            into = self.samples if delivery is Delivery.SAMPLE else self.events
            into.append(ready.text)
            self.taken.append((trio.current_time(), ready.message))
        return entry


@define
class Backlog:
    """One catching up: when it happened, and how much was delivered before it and by it."""

    delivered_before: int
    began_s: float
    ended_s: float | None = None
    delivered: int = 0

    def __str__(self) -> str:
        took_s = (self.ended_s or self.began_s) - self.began_s
        return f"{count(self.delivered, 'message')} in {took_s:.1f} s"


@define(eq=False)
class Demo:
    """The story and what is known of it; all times are in seconds since its beginning."""

    aggregator: Aggregator
    runner: EngineRunner
    outbox: RecordingOutbox
    address: str
    tell: Callable[[float, str], None]
    """Called with the time and the text of each thing that happens."""
    chapter: str = field(default="Connecting", init=False)
    chapter_ends_s: float | None = field(default=None, init=False)
    changes: list[tuple[float, RecoverState]] = field(factory=list, init=False)
    outage: Outage | None = field(default=None, init=False)
    backlog: Backlog | None = field(default=None, init=False)
    linked_s: float | None = field(default=None, init=False)
    """When the present link began, or None while there is none."""
    began: float = field(factory=trio.current_time, init=False)
    """When the story began, on Trio's clock (s)."""
    _began_epoch: float = field(factory=time.time, init=False)

    @property
    def now_s(self) -> float:
        """The time now (s)."""
        return trio.current_time() - self.began

    @property
    def points(self) -> list[tuple[float, float]]:
        """What the aggregator holds of the plotted tag: time and value of each sample."""
        return [
            (sample.tick_time - self._began_epoch, float(sample.value))
            for run in self.aggregator.plot_log.values()
            for sample in run.get(PLOTTED, [])
            if isinstance(sample.value, int | float)
        ]

    def note(self, text: str) -> None:
        """Tell something that happens now."""
        self.tell(self.now_s, text)

    async def note_change(self, before: RecoverState, after: RecoverState) -> None:
        """Tell a change of state; the runner calls this back."""
        now_s = self.now_s
        self.changes.append((now_s, after))
        if after in ("Connected", "Reconnecting"):
            self.linked_s = now_s
        elif after in ("Failed", "Stopped"):
            self.linked_s = None
        self.note(f"state: {before} -> {after}")
        if after == "Reconnecting":
            self._note_reconnected(now_s)
        elif after == "CatchingUp":
            self._note_catching_up(now_s)
        elif after == "Reconnected":
            self._note_caught_up(now_s)

    def _note_reconnected(self, now_s: float) -> None:
        self.chapter = "There is a link; the engine introduces itself"
        if self.outage is not None and self.outage.reconnected_s is None:
            self.outage = evolve(self.outage, reconnected_s=now_s)

    def _note_catching_up(self, now_s: float) -> None:
        statistics = self.outbox.statistics()
        self.backlog = Backlog(statistics.delivered, now_s)
        self.chapter = "Catching up"
        self.note(f"catching up: {count(statistics.waiting, 'message')} waiting")

    def _note_caught_up(self, now_s: float) -> None:
        if self.backlog is None:
            return
        self.backlog.ended_s = now_s
        self.backlog.delivered = self.outbox.statistics().delivered - self.backlog.delivered_before
        if self.outage is not None and self.outage.caught_up_s is None:
            self.outage = evolve(self.outage, caught_up_s=now_s)
        self.note(f"caught up: {self.backlog}")

    # The story

    async def play(self) -> None:
        """Play the story to its end, or as far as `LONGEST_S` allows."""
        with trio.move_on_after(LONGEST_S) as time_limit:
            await self._until("Connected")
            lines = [
                mdl.MethodLine(id=str(number), content=text)
                for number, text in enumerate(METHOD.splitlines())
            ]
            await self._order(am.MethodMsg(method=mdl.Method(version=0, lines=lines)), "the method")
            await self._order(am.ExecuteControlCommandMsg(name="Start"), "Start")
            await self._pass(BEFORE_OUTAGE_S, "The method runs; the aggregator will be killed in")
            await self._break_down()
            await self._until("Reconnected")
            await self._pass(AFTER_CATCH_UP_S, "The hole is filled; the run will be stopped in")
            await self._order(am.ExecuteControlCommandMsg(name="Stop"), "Stop")
            await self.aggregator.wait_until(lambda: self.aggregator.recent_runs)
            self.note("the aggregator has archived the run")
            self.chapter = "The run is over"
            await trio.sleep(0.5)
        if time_limit.cancelled_caught:
            self.note(f"cut short after {LONGEST_S:g} s")

    async def _break_down(self) -> None:
        began_s = self.now_s
        self.outage = Outage(began_s)
        self.note("the aggregator is killed: it loses the run that was on")
        async with self.aggregator.outage(kill=True):
            await self._pass(OUTAGE_S, "The aggregator was killed; it will be back in")
        self.outage = evolve(self.outage, ended_s=self.now_s)
        self.chapter = "The aggregator is back; the next dial will find it"
        self.note("the aggregator is back")

    async def _order(self, message: MessageBase, what: str) -> None:
        """Send a command to the engine, as a person at the aggregator's page would.

        Raises RuntimeError if the engine refuses it.
        """
        self.note(f"the aggregator's page sends {what}")
        engine_id = self.runner.statistics().engine_id
        answer = await self.aggregator.call(str(engine_id), message)
        if not isinstance(answer, SuccessMessage):
            raise RuntimeError(f"the engine refused {what}: {answer}")

    async def _pass(self, duration_s: float, until_what: str) -> None:
        """Let time pass, with a countdown."""
        self.chapter, self.chapter_ends_s = until_what, self.now_s + duration_s
        await trio.sleep(duration_s)
        self.chapter_ends_s = None

    async def _until(self, state: RecoverState) -> None:
        with self.runner.state_changes() as changes:
            while self.runner.state != state:
                await changes.receive()

    def records(self, *, interrupted: bool) -> Records:
        """Return what went in and what came out."""
        received = [
            item.message
            for engine in self.aggregator.engines.values()
            for item in engine.received
            if item.refused is None
        ]
        return Records(
            samples_taken=self.outbox.samples,
            samples_received=_bodies(received, Delivery.SAMPLE),
            events_taken=self.outbox.events,
            events_received=_bodies(received, Delivery.RUN_EVENT, Delivery.NOTICE),
            waiting=len(self.outbox),
            interrupted=interrupted,
            outage=self.outage,
            plotted_s=[time_s for time_s, _ in self.points],
        )


def _bodies(messages: list[em.EngineMessage], *deliveries: Delivery) -> list[str]:
    return [encode_body(message) for message in messages if DELIVERY[type(message)] in deliveries]
