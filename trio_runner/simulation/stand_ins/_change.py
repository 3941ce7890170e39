"""Waiting for what other tasks change."""

from collections.abc import Callable

import trio
from attrs import define, field


@define(eq=False)
class Change:
    """Wakes all waiting tasks at every change; a task that comes later waits for the next one.

    Use it in Trio's thread. A cancelled wait leaves nothing behind.
    """

    _waiting: trio.lowlevel.ParkingLot = field(factory=trio.lowlevel.ParkingLot, init=False)

    def notify(self) -> None:
        """Wake all waiting tasks, because something has changed."""
        self._waiting.unpark_all()

    async def wait(self) -> None:
        """Wait for the next change."""
        await self._waiting.park()

    async def wait_until(self, predicate: Callable[[], object]) -> None:
        """Wait until a predicate is true; it is asked at once, and again after each change.

        If it is true at once, this is not a checkpoint.
        """
        while not predicate():
            await self._waiting.park()
