"""Two ways to tell a task something: a doorbell, and a stream that loses nothing."""

import math
from collections.abc import Generator
from contextlib import contextmanager, suppress
from typing import Generic, TypeVar

import trio
from attrs import define, field

T = TypeVar("T")


class Doorbell:
    """Wakes the one task that waits; rung twice before it looks, it wakes it once."""

    def __init__(self) -> None:
        # Rung with every message and every answer: a channel would cost three times as much.
        self._has_rung = False
        self._waiting = trio.lowlevel.ParkingLot()

    def ring(self) -> None:
        """Wake the waiting task, or the next that waits. Call it in Trio's thread only."""
        if self._waiting:
            self._waiting.unpark()
        else:
            self._has_rung = True

    async def wait(self) -> None:
        """Wait for a ring that nobody has heard; a cancelled wait hears none."""
        if not self._has_rung:
            await self._waiting.park()
            return
        await trio.lowlevel.checkpoint_if_cancelled()
        self._has_rung = False
        await trio.lowlevel.cancel_shielded_checkpoint()


@define(eq=False)
class Broadcast(Generic[T]):
    """Hands every value to every subscriber, in order; a slow subscriber loses none."""

    _subscribers: set[trio.MemorySendChannel[T]] = field(factory=set, init=False)
    _is_closed: bool = field(default=False, init=False)

    def publish(self, value: T) -> None:
        """Hand a value to all who are subscribed now."""
        for subscriber in self._subscribers:
            with suppress(trio.BrokenResourceError):  # it closed its channel and has heard enough
                subscriber.send_nowait(value)

    def close(self) -> None:
        """End every subscription behind the values it still holds, and every later one at once."""
        self._is_closed = True
        for subscriber in self._subscribers:
            subscriber.close()
        self._subscribers.clear()

    @contextmanager
    def subscribe(self) -> Generator[trio.MemoryReceiveChannel[T], None, None]:
        """Subscribe for as long as the block runs; iterate over what it yields.

        The channel has no bound, since it must lose nothing and its publisher must not wait: who
        subscribes and does not read holds the values in memory.
        """
        send, receive = trio.open_memory_channel[T](math.inf)
        self._subscribers.add(send)
        if self._is_closed:
            send.close()
        try:
            with receive:
                yield receive
        finally:
            self._subscribers.discard(send)
            send.close()
