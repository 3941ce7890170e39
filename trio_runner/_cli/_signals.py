"""SIGINT and SIGTERM: the first ends in order, the second at once."""

import signal
from collections.abc import Callable

import trio


async def stop_on_signal(
    stop: Callable[[], None], *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED
) -> None:
    """Call `stop` at the first SIGINT or SIGTERM and return; started when it listens.

    Behind it, as after a cancellation, both signals do again what they did before.
    """
    with trio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:
        task_status.started()
        async for _ in signals:
            break
    stop()
