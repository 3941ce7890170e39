"""Waiting for what others change: an event that is set anew with every change."""

from collections.abc import Callable

import trio
from attrs import define, field


@define(eq=False)
class Change:
    """Wakes who waits, at every change; who comes later waits for the next one.

    To be used in Trio's thread. A wait that is cancelled leaves nothing behind.
    """

    _waiting: trio.lowlevel.ParkingLot = field(factory=trio.lowlevel.ParkingLot, init=False)

    def notify(self) -> None:
        """Say that something has changed."""
        self._waiting.unpark_all()

    async def wait(self) -> None:
        """Wait for the next change."""
        await self._waiting.park()

    async def wait_until(self, predicate: Callable[[], object]) -> None:
        """Wait until a predicate is true; it is asked at once, and again after each change.

        No checkpoint if it is true at once.
        """
        while not predicate():
            await self._waiting.park()
