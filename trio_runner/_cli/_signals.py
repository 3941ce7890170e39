"""SIGINT, SIGTERM and Ctrl-Break: the first ends in order, the second at once."""

import logging
import signal
from collections.abc import Callable

import trio

from trio_runner._cli import _console

logger = logging.getLogger(__name__)

SAME_S = 1
"""A second signal within this time (s) is the first one sent twice, by `timeout` or a console."""


def signals() -> list[signal.Signals]:
    """Return the signals that ask the command to end.

    SIGTERM never arrives on Windows, SIGBREAK does.
    """
    names = ("SIGINT", "SIGTERM", "SIGBREAK")
    return [getattr(signal, name) for name in names if hasattr(signal, name)]


async def stop_on_signal(
    stop: Callable[[], None], *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED
) -> None:
    """Call `stop` at the first signal, and return `SAME_S` later; started when it listens.

    After that, or after a cancellation, the signals do again what they did before. The system
    itself sees to that, so it works whatever hangs.
    """
    with trio.open_signal_receiver(*signals()) as received:
        _console.heed()
        task_status.started()
        name = signal.Signals(await anext(received)).name
        logger.info(
            "Stopping, because of %s. To end at once, send it again after %d s", name, SAME_S
        )
        stop()
        with trio.move_on_after(SAME_S):
            async for _ in received:
                pass
