"""Where an engine's outbox is kept: on disk unless told otherwise. It never stops an engine."""

import logging
import os
import re
from argparse import ArgumentTypeError
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path

import trio
from attrs import frozen

from trio_runner import (
    DurableOutbox,
    MemoryOutbox,
    MessageBuilder,
    Outbox,
    OutboxError,
    OutboxInUse,
    OutboxNotWritable,
)
from trio_runner._cli._summary import count
from trio_runner._cli._unit_files import outbox_path
from trio_runner._outbox import OUTBOX_BYTES_MAX

logger = logging.getLogger(__name__)

MEMORY = "memory"
"""Given instead of a path, for an outbox that ends with the process."""

BYTES_MIN = 1024 * 1024
"""The smallest outbox: less would thin the samples of one short outage."""

UNITS = {"": 1, "K": 1024, "M": 1024**2, "G": 1024**3}

CLOSE_S = 4
"""The time for closing an outbox (s): longer than a durable one itself waits for a hanging disk."""


@frozen
class Keeping:
    """Where the outboxes of one command are kept, and how large they may grow."""

    command: str
    where: str | None = None
    """A file or folder, `MEMORY`, or None for the user's state folder."""
    bytes_max: int = OUTBOX_BYTES_MAX
    is_for_several: bool = False
    """Whether the path is a folder, for several units."""

    def open(self, unit: str, builder: MessageBuilder) -> Outbox:
        """Return a unit's outbox, and log where it is and what waits in it.

        If the outbox on disk cannot be used, log an error and return one in memory: an engine
        whose messages may be lost is worth more than none. Raises another `OutboxError` if the
        user gave the path and it is wrong.
        """
        if self.where == MEMORY:
            logger.info("The outbox is in memory: what waits is lost when the process ends")
            return MemoryOutbox(self.bytes_max)
        try:
            outbox = self._claimed(self._path(unit), builder)
        except OutboxError as error:
            is_theirs = self.where is not None
            if is_theirs and not isinstance(error, OutboxInUse | OutboxNotWritable):
                raise
            logger.error(
                "%s What waits is kept in MEMORY ONLY, and is lost when the process ends", error
            )
            return MemoryOutbox(self.bytes_max)
        logger.info("The outbox is %s: %s", outbox.path, _what_waits(outbox))
        return outbox

    def _path(self, unit: str) -> Path:
        if self.where is None:
            return _unit_in(state_folder() / self.command, unit)
        path = Path(self.where)
        if not self.is_for_several and not path.is_dir():
            return path
        if path.exists() and not path.is_dir():
            raise OutboxError(
                f"Several UODs need a folder for their outboxes, and {path} is not one."
            )
        return _unit_in(path, unit)

    def _claimed(self, path: Path, builder: MessageBuilder) -> DurableOutbox:
        """Open an outbox that holds no messages of another unit."""
        register = builder.create_register_engine_msg()
        outbox = DurableOutbox(path, bytes_max=self.bytes_max)
        try:
            outbox.claim(f"{register.computer_name}_{register.uod_name}")
        except OutboxError:
            outbox.close()
            raise
        return outbox


@asynccontextmanager
async def closing(outbox: Outbox) -> AsyncGenerator[None, None]:
    """Close the outbox after the block, in a thread: a hanging disk must not block Trio.

    Closing takes `CLOSE_S` at most, also if cancelled. After that, the thread is left behind and
    an error is logged.
    """
    try:
        yield
    finally:
        with trio.move_on_after(CLOSE_S, shield=True) as patience:
            await trio.to_thread.run_sync(outbox.close, abandon_on_cancel=True)
        if patience.cancelled_caught:
            logger.error("The outbox did not close within %d s: ending without it", CLOSE_S)


def state_folder() -> Path:
    """Return the folder for what outlives the process: the service's, or else the user's."""
    service = os.environ.get("STATE_DIRECTORY")  # set by systemd; of several, take the first
    if service:
        return Path(service.split(":")[0])
    from platformdirs import user_state_path

    return user_state_path("trio-runner", appauthor=False)


def _unit_in(folder: Path, unit: str) -> Path:
    """Return the path of a unit's file in a folder; make the folder if there is none."""
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        return outbox_path(folder, unit)
    except OSError as error:
        raise OutboxNotWritable(
            f"Cannot keep an outbox in the folder {folder}: {error.strerror}."
        ) from error


def _what_waits(outbox: DurableOutbox) -> str:
    if not len(outbox):
        return "nothing waits in it from before"
    verb = "waits" if len(outbox) == 1 else "wait"
    return f"{count(len(outbox), 'message')} {verb} in it from before"


def bytes_of(text: str) -> int:
    """Return how many bytes a text like `64M` means. Raises ArgumentTypeError."""
    match = re.fullmatch(r"([0-9]{1,15})([KMG]?)(i?B)?", text, re.IGNORECASE | re.ASCII)
    if match is None:
        raise ArgumentTypeError(
            f"{text!r} is not a size: give a number with K, M or G, such as 64M"
        )
    number = int(match[1]) * UNITS[match[2].upper()]
    if number < BYTES_MIN:
        raise ArgumentTypeError(f"{text!r} is too small: give 1M or more")
    return number
