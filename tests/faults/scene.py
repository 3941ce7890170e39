"""An engine, its runner, a fault proxy and an aggregator, over real sockets, and what must hold.

The clock may run faster than the world's (`MockClock(rate=...)`), so that the runner's own times
are tested as they are, in less. Whatever waits for a thing to happen waits for that thing.
"""

import logging
from collections import Counter
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from itertools import pairwise
from random import Random

import trio
from attrs import define, field

from tests.faults.proxy import Proxy
from tests.helpers.unit import Unit, wall_clock
from trio_runner import EngineDispatcher, EngineRunner, MemoryOutbox
from trio_runner._outbox import Entry
from trio_runner.protocol import aggregator_messages as am
from trio_runner.protocol import engine_messages as em
from trio_runner.protocol import messages as m
from trio_runner.simulation import Aggregator, Received

RUN = "run-1"
OBJECTED = "answered by on_message"
STEADY = ("Connected", "Reconnected")
EVENTS = (em.RunStartedMsg, em.RunStoppedMsg, em.WebPushNotificationMsg, em.ErrorLogMsg)


class Longest(Random):
    """Draws the upper end of every range: the promises hold for the longest waits too."""

    def uniform(self, a: float, b: float) -> float:
        """Return b."""
        return b


@define(eq=False)
class NotingOutbox(MemoryOutbox):
    """Notes when the aggregator's answer has come for which message."""

    answered_s: dict[int, float] = field(factory=dict, init=False)

    def delivered(self, entry: Entry) -> None:
        """Note the time (s, Trio's clock)."""
        super().delivered(entry)
        self.answered_s[entry.sequence_number] = trio.current_time()


@define(eq=False)
class Scene:
    """All that take part, and what was told."""

    unit: Unit
    aggregator: Aggregator
    proxy: Proxy
    runner: EngineRunner
    outbox: NotingOutbox
    streams: list[trio.SocketStream]
    """All that the runner has opened."""
    changes: trio.MemoryReceiveChannel[object]
    told: list[str] = field(factory=list)
    """The events of the engine, in order."""
    began_s: float = field(default=0.0, init=False)
    """When the fault began."""
    samples_before: int = field(default=0, init=False)
    noticed_s: float | None = field(default=None, init=False)
    """How long after that the runner noticed."""
    samples_unnoticed: int = field(default=0, init=False)
    """How many samples were taken until then."""

    def tell(self, text: str) -> None:
        """Let the engine raise an event."""
        self.told.append(text)
        self.runner.on_notify_command(text)

    async def arrived(self, text: str) -> None:
        """Wait until the aggregator has taken the event."""
        await self.aggregator.wait_until(lambda: text in self.events())

    async def until(self, *states: str) -> None:
        """Wait until the runner is in one of the states."""
        with self.runner.state_changes() as changes:
            if self.runner.state in states:
                return
            async for change in changes:
                if change.after in states:
                    return
        raise AssertionError(f"ended, never {states}")

    async def samples(self, count: int) -> None:
        """Wait until this many more samples have arrived."""
        before = len(self.samples_received())
        await self.aggregator.wait_until(lambda: len(self.samples_received()) >= before + count)

    def begin_fault(self) -> None:
        """Note that the fault begins now."""
        self.began_s, self.samples_before = trio.current_time(), self.unit.count

    async def noticed(self) -> None:
        """Wait until the runner says that the link or the dial has failed, and go on telling."""
        async for change in self.changes:
            if getattr(change, "after", None) == "Failed":
                break
        if self.noticed_s is None:
            self.noticed_s = trio.current_time() - self.began_s
            self.samples_unnoticed = self.unit.count - self.samples_before
        self.tell(f"failed {len(self.told)}")

    async def command(self, name: str) -> m.MessageBase:
        """Give a command as the web page does and return the answer."""
        engine_id = self.runner.statistics().engine_id
        assert engine_id is not None
        return await self.aggregator.call(engine_id, am.ExecuteControlCommandMsg(name=name))

    # What arrived

    def line(self) -> list[Received]:
        """Return events and samples as they arrived."""
        kinds = (*EVENTS, em.TagsUpdatedMsg)
        return [r for r in self.aggregator.engine().received if isinstance(r.message, kinds)]

    def taken(self) -> list[Received]:
        """Return the first arrival of each event and sample that the aggregator did not refuse."""
        first: dict[int, Received] = {}
        for received in self.line():
            if received.refused is None:
                first.setdefault(received.sequence_number, received)
        return list(first.values())

    def events(self) -> list[str]:
        """Return the events that were taken, in order, the repeated ones once."""
        return [_name(r.message) for r in self.taken() if isinstance(r.message, EVENTS)]

    def samples_received(self) -> list[int]:
        """Return the samples that were taken, in order, the repeated ones once."""
        return [
            int(str(r.message.tags[0].value))
            for r in self.taken()
            if isinstance(r.message, em.TagsUpdatedMsg)
        ]

    # What must hold in the end

    def check_delivery(self) -> None:
        """Every event and every sample, in order, none missing, none refused."""
        started, stopped = ["RunStartedMsg", "Run started."], ["RunStoppedMsg", "Run has stopped."]
        assert self.events() == started + self.told + stopped
        assert self.samples_received() == list(range(1, self.unit.count + 1))
        refused = [r for r in self.aggregator.engine().refused if not _is_expected(r)]
        assert refused == []
        assert [run.run_id for run in self.aggregator.recent_runs] == [RUN]
        assert self.outbox.statistics().thinned == 0

    def check_repeats(self) -> None:
        """Only what has no answer is sent again, with its number, before anything newer.

        Notices hold up no sample, and are in order among themselves; runs are in order with both.
        """
        run_started: set[int] = set()
        links: dict[tuple[int, bool], list[int]] = {}
        for received in self.line():
            number = received.sequence_number
            if received.refused == OBJECTED:
                continue  # sent again on the same link
            if isinstance(received.message, em.RunStartedMsg) and number in run_started:
                continue  # of the open run, once more on every new link
            if isinstance(received.message, em.RunStartedMsg):
                run_started.add(number)
            for of_notices in (False, True):
                is_run = isinstance(received.message, em.RunStartedMsg | em.RunStoppedMsg)
                is_notice = isinstance(received.message, em.WebPushNotificationMsg | em.ErrorLogMsg)
                if is_run or is_notice is of_notices:
                    links.setdefault((received.connection, of_notices), []).append(number)
            answered_s = self.outbox.answered_s.get(number)
            assert answered_s is None or received.time_s <= answered_s, f"answered, sent: {number}"
        for numbers in links.values():
            assert all(a < b for a, b in pairwise(numbers)), numbers

    def check_one_link(self) -> None:
        """Once something has arrived on a link, nothing arrives on an older one."""
        links = [received.connection for received in self.aggregator.engine().received]
        assert links == sorted(links)

    def check_end(self) -> None:
        """Nothing waits, nothing is open."""
        assert self.runner.state == "ShutdownComplete"
        assert self.runner.buffer_size == 0
        assert all(_is_closed(stream) for stream in self.streams)


def _name(message: m.MessageBase) -> str:
    if isinstance(message, em.WebPushNotificationMsg):
        return message.notification.body or ""
    return type(message).__name__


def _is_expected(received: Received) -> bool:
    """Tell whether a message was refused by design of the protocol or of the test."""
    return received.refused in (f"run {RUN} is active already", OBJECTED)


def _is_closed(stream: trio.SocketStream) -> bool:
    return stream.socket.fileno() == -1


def warnings(records: list[logging.LogRecord]) -> list[str]:
    """Return what was logged as a warning or worse; the same is logged once."""
    messages = [r.getMessage() for r in records if r.levelno >= logging.WARNING]
    assert max(Counter(messages).values(), default=0) <= 1, messages
    return messages


@asynccontextmanager
async def scene(
    *,
    rng: Callable[[], Random] = Longest,
    unit: Unit | None = None,
    secret: str = "right",  # noqa: S107
) -> AsyncGenerator[Scene, None]:
    """Set a scene for as long as the block runs: Connected at its beginning; all gone behind it."""
    streams: list[trio.SocketStream] = []

    async def open_stream(host: str, port: int) -> trio.SocketStream:
        assert all(_is_closed(stream) for stream in streams), "two connections at once"
        stream = await trio.open_tcp_stream(host, port)
        streams.append(stream)
        return stream

    async with trio.open_nursery() as nursery:
        aggregator = Aggregator(secret=secret)
        proxy = Proxy(await nursery.start(aggregator.run))
        await nursery.start(proxy.run)
        unit = unit or Unit(secret=secret)
        dispatcher = EngineDispatcher(
            "127.0.0.1", proxy.port, handlers=unit, open_stream=open_stream
        )
        outbox = NotingOutbox()
        runner = EngineRunner(dispatcher, unit, unit, outbox=outbox, rng=rng(), clock=wall_clock)
        with runner.state_changes() as changes:
            this = Scene(unit, aggregator, proxy, runner, outbox, streams, changes)
            nursery.start_soon(runner.run)  # noqa: ASYNC113
            await this.until("Connected")
            yield this
            await runner.shutdown()
        nursery.cancel_scope.cancel()
