"""Run an engine in a program whose loop is asyncio's: Trio is its guest, in the same thread.

Tk and Qt can be hosts too: give `start_guest_run` their way of calling a function soon.
"""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any

import trio
from bioreactor import main as run_bioreactor


async def host(work: Callable[[], Awaitable[None]], port: int = 9800) -> None:
    """Run the program's own work in asyncio beside the engine, and then stop the engine."""
    loop = asyncio.get_running_loop()
    ended: asyncio.Future[Any] = loop.create_future()
    scope = trio.CancelScope()

    async def guest() -> None:
        with scope:
            await run_bioreactor(port)

    trio.lowlevel.start_guest_run(
        guest,
        run_sync_soon_threadsafe=loop.call_soon_threadsafe,
        done_callback=ended.set_result,  # called in asyncio's thread
        host_uses_signal_set_wakeup_fd=True,
    )
    try:
        await work()
    finally:
        scope.cancel()  # the runner sends what still waits
        outcome = await asyncio.shield(ended)  # noqa: ASYNC102 - the flush is bounded
        outcome.unwrap()  # raises what has ended the engine


async def work() -> None:
    """Stand for the program's own work."""
    await asyncio.sleep(3600)


if __name__ == "__main__":
    with suppress(KeyboardInterrupt):
        asyncio.run(host(work))
