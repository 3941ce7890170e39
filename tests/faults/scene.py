"""An engine, its runner, a fault proxy and an aggregator over real sockets, and what must hold.

The clock may run faster than the world's (`MockClock(rate=...)`). So the runner's real times are
tested in less time. Everything that waits for an event waits for that event itself.
"""

import logging
from collections import Counter
from collections.abc import AsyncGenerator, Callable, Sequence
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
    """A generator that draws the upper end of every range: promises hold for the longest waits."""

    def uniform(self, a: float, b: float) -> float:
        """Return b."""
        return b


@define(eq=False)
class NotingOutbox(MemoryOutbox):
    """An outbox that notes when each message was answered."""

    answered_s: dict[int, float] = field(factory=dict, init=False)

    def delivered(self, entry: Entry) -> None:
        """Note the time (s on Trio's clock)."""
        super().delivered(entry)
        self.answered_s[entry.sequence_number] = trio.current_time()


@define(eq=False)
class Scene:
    """Everything that takes part, and what the engine has told."""

    unit: Unit
    aggregator: Aggregator
    proxy: Proxy
    runner: EngineRunner
    outbox: NotingOutbox
    streams: list[trio.SocketStream]
    """All streams that the runner has opened."""
    changes: trio.MemoryReceiveChannel[object]
    told: list[str] = field(factory=list)
    """The engine's events, in order."""
    began_s: float = field(default=0.0, init=False)
    """When the fault began (s on Trio's clock)."""
    samples_before: int = field(default=0, init=False)
    """How many samples had been taken when the fault began."""
    noticed_s: float | None = field(default=None, init=False)
    """How long after the fault began the runner noticed it (s)."""
    samples_unnoticed: int = field(default=0, init=False)
    """How many samples were taken in that time."""

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
        """Wait until the runner says that the link or a dial has failed; then raise an event."""
        async for change in self.changes:
            if getattr(change, "after", None) == "Failed":
                break
        if self.noticed_s is None:
            self.noticed_s = trio.current_time() - self.began_s
            self.samples_unnoticed = self.unit.count - self.samples_before
        self.tell(f"failed {len(self.told)}")

    async def command(self, name: str) -> m.MessageBase:
        """Give a command as the web page does, and return the answer."""
        engine_id = self.runner.statistics().engine_id
        assert engine_id is not None
        return await self.aggregator.call(engine_id, am.ExecuteControlCommandMsg(name=name))

    # What arrived

    def line(self) -> list[Received]:
        """Return the events and samples, in the order in which they arrived."""
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
        """Return the events that were taken, in order, each once."""
        return [_name(r.message) for r in self.taken() if isinstance(r.message, EVENTS)]

    def samples_received(self) -> list[int]:
        """Return the counts of the samples that were taken, in order, each once."""
        return [
            int(str(r.message.tags[0].value))
            for r in self.taken()
            if isinstance(r.message, em.TagsUpdatedMsg)
        ]

    # What must hold in the end

    def check_delivery(self, passed: Sequence[str] = ()) -> None:
        """Check that every event and sample arrived in order, none missing and none refused.

        The notices in `passed` may come later than their order, within their run.
        """
        started, stopped = ["RunStartedMsg", "Run started."], ["RunStoppedMsg", "Run has stopped."]
        told, expected = self.events(), started + self.told + stopped
        assert [e for e in told if e not in passed] == [e for e in expected if e not in passed]
        assert Counter(told) == Counter(expected)
        assert (told[0], told[-2]) == (started[0], stopped[0])
        assert self.samples_received() == list(range(1, self.unit.count + 1))
        refused = [r for r in self.aggregator.engine().refused if not _is_expected(r)]
        assert refused == []
        assert [run.run_id for run in self.aggregator.recent_runs] == [RUN]
        assert self.outbox.statistics().thinned == 0

    def check_repeats(self) -> None:
        """Check that only unanswered messages are sent again, before anything newer.

        Notices hold up no samples. They keep their order among themselves, and run events keep
        theirs with notices and with samples.
        """
        run_started, objected = set[int](), set[int]()
        links: dict[tuple[int, bool], list[int]] = {}
        for received in self.line():
            number = received.sequence_number
            if received.refused == OBJECTED:
                objected.add(number)  # sent again, after those that were under way with it
            if number in objected:
                continue
            if isinstance(received.message, em.RunStartedMsg) and number in run_started:
                continue  # the open run's beginning goes out again on every new link
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
        """Check that nothing arrived on a link after something had arrived on a newer one."""
        links = [received.connection for received in self.aggregator.engine().received]
        assert links == sorted(links)

    def check_end(self) -> None:
        """Check that nothing waits and nothing is open."""
        assert self.runner.state == "ShutdownComplete"
        assert self.runner.buffer_size == 0
        assert all(_is_closed(stream) for stream in self.streams)


def _name(message: m.MessageBase) -> str:
    if isinstance(message, em.WebPushNotificationMsg):
        return message.notification.body or ""
    return type(message).__name__


def _is_expected(received: Received) -> bool:
    """Tell whether the protocol or the test means this message to be refused."""
    return received.refused in (f"run {RUN} is active already", OBJECTED)


def _is_closed(stream: trio.SocketStream) -> bool:
    return stream.socket.fileno() == -1


def warnings(records: list[logging.LogRecord]) -> list[str]:
    """Return what was logged as a warning or worse, and check that nothing was logged twice."""
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
    """Set a scene while the block runs. It begins Connected, and has ended after the block."""
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
