"""Serves the status of the commands that run engines."""

import logging
from argparse import Namespace
from collections.abc import Iterable
from typing import TYPE_CHECKING

import trio

from trio_runner import EngineRunner
from trio_runner._groups import first
from trio_runner._say_once import SayOnce

if TYPE_CHECKING:
    from trio_runner.status import Unit

logger = logging.getLogger(__name__)

AGAIN_S = 30
"""The time between two tries to listen at an address that is not available yet (s)."""


async def keep_serving(arguments: Namespace, units: "Iterable[EngineRunner | Unit]") -> None:
    """Serve the status, if the arguments ask for it, until cancelled.

    An engine is worth more than its status. An address may be unavailable, while the computer
    starts or because another process has it. That is an error in the log, and is tried again.
    """
    if arguments.status is None:
        return
    from trio_runner.status import serve

    (host, port), say = arguments.status, SayOnce(logger)
    while True:
        try:
            await serve(units, host, port, alarm_after_s=arguments.alarm_after)
        except* OSError as group:
            error = first(group)
            why = getattr(error, "strerror", None) or error
            say(logging.ERROR, "Cannot serve the status at %s:%d for now: %s", host, port, why)
        await trio.sleep(AGAIN_S)
