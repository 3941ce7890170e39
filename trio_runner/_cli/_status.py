"""The status of the commands that run engines, served beside them."""

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
"""Between two tries to listen at an address that cannot be had yet."""


async def keep_serving(arguments: Namespace, units: "Iterable[EngineRunner | Unit]") -> None:
    """Serve the status, if it is wanted, until cancelled.

    An engine is worth more than its status: an address that cannot be had, at the start of the
    computer or since another process has it, is an error in the log and is tried again.
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
            say(logging.ERROR, "There is no status at %s:%d for now: %s", host, port, why)
        await trio.sleep(AGAIN_S)
