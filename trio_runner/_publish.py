"""Two ways to tell a task something: a doorbell, and a stream that loses nothing."""

import math
from collections.abc import Callable, Generator
from contextlib import contextmanager, suppress
from typing import Generic, TypeVar

import trio
from attrs import define, field

T = TypeVar("T")


class Doorbell:
    """A memory channel of capacity 1, which wakes the one task that waits at its other end.

    A ring always means the same, "look again". So any number of rings before the task looks wake it
    once.
    """

    def __init__(self) -> None:
        self._rings, self._heard = trio.open_memory_channel[None](1)

    def ring(self) -> None:
        """Wake the waiting task, or the next one that waits. Call it in Trio's thread only."""
        with suppress(trio.WouldBlock):
            self._rings.send_nowait(None)

    def from_any_thread(self) -> Callable[[], None]:
        """Return a function that rings from any thread, and does nothing after this Trio run."""
        token = trio.lowlevel.current_trio_token()

        def ring() -> None:
            with suppress(trio.RunFinishedError):
                token.run_sync_soon(self.ring, idempotent=True)

        return ring

    async def wait(self) -> None:
        """Wait for a ring that has not been heard yet. If cancelled, it has taken no ring."""
        await self._heard.receive()


@define(eq=False)
class Broadcast(Generic[T]):
    """Hands every value to every subscriber, in order; a slow subscriber loses none."""

    _subscribers: set[trio.MemorySendChannel[T]] = field(factory=set, init=False)
    _is_closed: bool = field(default=False, init=False)

    def publish(self, value: T) -> None:
        """Hand a value to all present subscribers."""
        for subscriber in self._subscribers:
            with suppress(trio.BrokenResourceError):  # the subscriber has closed its channel
                subscriber.send_nowait(value)

    def close(self) -> None:
        """End each subscription after the values that it still holds, and later ones at once."""
        self._is_closed = True
        for subscriber in self._subscribers:
            subscriber.close()
        self._subscribers.clear()

    @contextmanager
    def subscribe(self) -> Generator[trio.MemoryReceiveChannel[T], None, None]:
        """Subscribe while the block runs; iterate over what this yields.

        The channel has no bound, since it must lose nothing and its publisher must not wait. So the
        values for a subscriber that does not read stay in memory.
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
